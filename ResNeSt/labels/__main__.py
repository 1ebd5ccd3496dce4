"""Makes and checks `val_label.txt`, and moves images into class folders and back."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any, Callable

from ResNeSt.common.errors import run
from ResNeSt.common.files import write_json
from ResNeSt.labels import folders, sources
from ResNeSt.labels.file import write_labels

KINDS = {"missing": "labelled images are not there", "extra": "images have no label"}
SHOWN = 5  # of the images that do not fit; the JSON has them all


def main() -> int:
    """Runs the command line; 1 where labels and images do not fit."""
    parser = argparse.ArgumentParser(prog="python -m ResNeSt.labels", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (work, meaning, arguments) in COMMANDS.items():
        command = commands.add_parser(name, help=meaning, description=meaning)
        for argument, settings in arguments.items():
            command.add_argument(argument, **settings)
        command.set_defaults(work=work)
    options = parser.parse_args()
    code: int = options.work(options)
    return code


def _from_tree(options: argparse.Namespace) -> int:
    labels, meaning = sources.from_tree(options.images, options.from_zero)
    return _write(labels, options, f", by {meaning}")


def _from_devkit(options: argparse.Namespace) -> int:
    return _write(sources.from_devkit(options.kit), options, ", from the kit's own order to that of the synsets")


def _from_csv(options: argparse.Namespace) -> int:
    return _write(sources.from_csv(options.csv), options)


def _write(labels: dict[str, int], options: argparse.Namespace, remark: str = "") -> int:
    write_labels(labels, options.labels)
    print(f"{options.labels}: {len(labels)} images of {len(set(labels.values()))} classes{remark}")
    return 0


def _check(options: argparse.Namespace) -> int:
    fit = folders.check(options.labels, options.images)
    if options.json:
        write_json(options.json, dataclasses.asdict(fit))
    print(
        f"{options.labels}: {fit.labels} images of {fit.classes} classes, {fit.first_class} to {fit.last_class}, "
        f"with {fit.fewest_images} to {fit.most_images} images each"
    )
    print(f"{options.images}: {fit.images} images")
    for kind, names in (("missing", fit.missing), ("extra", fit.extra)):
        if names:
            print(f"{kind}: {len(names)} {KINDS[kind]}, such as {', '.join(names[:SHOWN])}")
    if fit.first_class == 1:
        print("note: no image is of class 0; the classes of this project count from 0")
    return 1 if fit.missing or fit.extra else 0


def _to_tree(options: argparse.Namespace) -> int:
    moved = folders.to_tree(options.labels, options.images, options.names)
    print(f"{options.images}: {moved} images moved into class folders")
    return 0


def _to_flat(options: argparse.Namespace) -> int:
    moved = folders.to_flat(options.images, options.labels)
    print(f"{options.images}: {moved} images moved out of their class folders; {options.labels} says their classes")
    return 0


_LABELS: dict[str, Any] = {"metavar": "LABELS", "help": "a file with a line 'NAME CLASS' for every image"}
_IMAGES: dict[str, Any] = {"metavar": "DIR", "help": "the folder of images"}
_Command = Callable[[argparse.Namespace], int]
COMMANDS: dict[str, Any] = {
    "tree": (
        _from_tree,
        "make LABELS from a folder with one folder per class",
        {
            "images": _IMAGES,
            "labels": _LABELS,
            "--from-zero": {
                "action": "store_true",
                "help": "number synsets, too, in the order of the folders, as resnest_train.py does",
            },
        },
    ),
    "devkit": (
        _from_devkit,
        "make LABELS of ImageNet's validation images from ILSVRC2012_devkit_t12",
        {"kit": {"metavar": "KIT", "help": "the unpacked folder"}, "labels": _LABELS},
    ),
    "csv": (
        _from_csv,
        "make LABELS from a CSV with a head: name, then synset or class number",
        {"csv": {"metavar": "CSV", "help": "such as LOC_val_solution.csv"}, "labels": _LABELS},
    ),
    "check": (
        _check,
        "say whether every image has a label and every label an image",
        {"labels": _LABELS, "images": _IMAGES, "--json": {"metavar": "FILE", "help": "write all of it here as well"}},
    ),
    "to-tree": (
        _to_tree,
        "move the images of DIR into a folder per class",
        {
            "labels": _LABELS,
            "images": _IMAGES,
            "--names": {"metavar": "FILE", "help": "names of the folders, one a line [ImageNet's synsets]"},
        },
    ),
    "to-flat": (
        _to_flat,
        "move the images of DIR out of their class folders, after writing LABELS",
        {"images": _IMAGES, "labels": _LABELS},
    ),
}

if __name__ == "__main__":
    run(main)
