"""Makes and checks `val_label.txt`, and moves images into class folders and back."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any, Callable

from ResNeSt.common.arguments import Parser
from ResNeSt.common.errors import run
from ResNeSt.common.files import write_json
from ResNeSt.common.progress import aloud
from ResNeSt.labels import folders
from ResNeSt.labels.carried import carried
from ResNeSt.labels.class_names import ClassList, class_list, classes_in, read_names
from ResNeSt.labels.file import read_labels, remark_on_numbers, write_labels
from ResNeSt.labels.numbering import BY_ORDER
from ResNeSt.labels.sources import from_csv, from_devkit, read_tree
from ResNeSt.models.cards import card
from ResNeSt.models.files import info_of_file

KINDS = {"missing": "labelled images are not there", "extra": "images have no label"}
SHOWN = 5  # of the images that do not fit; the JSON has them all


def main() -> int:
    """Runs the command line; 1 where labels and images do not fit."""
    options = make_parser().parse_args()
    code: int = options.work(options)
    return code


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(prog="python -m ResNeSt.labels", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (work, meaning, arguments) in COMMANDS.items():
        command = commands.add_parser(name, help=meaning, description=meaning)
        alternatives = arguments.keys() & {*_KNOWN, "--from-zero"}
        one_of = command.add_mutually_exclusive_group() if alternatives else command
        for argument, settings in arguments.items():
            group = one_of if argument in alternatives else command
            if "role" in settings:
                command.add_path(argument, group=group, **settings)
            else:
                group.add_argument(argument, **settings)
        command.set_defaults(work=work)
    return parser


def _from_tree(options: argparse.Namespace) -> int:
    tree = read_tree(options.images, _known(options), options.from_zero, aloud)
    _write(folders.names_and_labels(tree, options.images), options, f", by {tree.rule}")
    for remark in tree.remarks:
        print(f"note: {remark}")
    if tree.rule == BY_ORDER and not options.from_zero:
        print("note: a model of other folders counts otherwise; --names, --card or --model tells its classes")
    return 0


def _from_devkit(options: argparse.Namespace) -> int:
    return _write(from_devkit(options.kit), options, ", from the kit's own order to that of the synsets")


def _from_csv(options: argparse.Namespace) -> int:
    labels = from_csv(options.csv, _known(options))
    code = _write(labels, options)
    for remark in remark_on_numbers(options.labels, list(labels.values())):
        print(f"note: {remark}")
    return code


def _from_archive(options: argparse.Namespace) -> int:
    return _write(carried(options.images, aloud), options)


def _write(labels: dict[str, int], options: argparse.Namespace, remark: str = "") -> int:
    write_labels(labels, options.labels)
    print(f"{options.labels}: {len(labels)} images of {len(set(labels.values()))} classes{remark}")
    return 0


def _known(options: argparse.Namespace) -> ClassList | None:
    """The classes that one of --names, --card and --model tells."""
    if options.names:
        return ClassList(options.names, read_names(options.names))
    if options.card:
        found = card(options.card)
        return class_list(options.card, found.class_names, found.classes)
    if options.model:
        return classes_in(info_of_file(options.model), options.model)
    return None


def _check(options: argparse.Namespace) -> int:
    fit = folders.check(options.labels, options.images, aloud)
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
    for remark in remark_on_numbers(options.labels, list(read_labels(options.labels).values())):
        print(f"note: {remark}")
    return 1 if fit.missing or fit.extra else 0


def _to_tree(options: argparse.Namespace) -> int:
    moved = folders.to_tree(options.labels, options.images, _known(options), aloud)
    print(f"{options.images}: {moved} images moved into class folders")
    return 0


def _to_flat(options: argparse.Namespace) -> int:
    moved = folders.to_flat(options.images, options.labels, _known(options), options.from_zero, aloud)
    print(f"{options.images}: {moved} images moved out of their class folders; {options.labels} says their classes")
    return 0


_LABELS: dict[str, Any] = {
    "role": "reads",
    "metavar": "LABELS",
    "help": "a file with a line 'NAME CLASS' for every image",
}
_NEW_LABELS = {**_LABELS, "role": "writes"}
_IMAGES: dict[str, Any] = {"role": "reads", "metavar": "DIR", "help": "the folder of images"}
_FROM_ZERO: dict[str, Any] = {
    "action": "store_true",
    "help": "count the folders in the order of their names, whatever they are, as torchvision's ImageFolder does",
}
_KNOWN: dict[str, dict[str, Any]] = {
    "--names": {
        "role": "reads",
        "metavar": "FILE",
        "help": "names of all classes, one a line in the order of their numbers, or a card",
    },
    "--card": {
        "role": "card",
        "metavar": "CARD",
        "help": "of the model whose classes they are: resnest50 for ImageNet's, or a file",
    },
    "--model": {"role": "reads", "metavar": "FILE", "help": "the model itself, whose file or card tells its classes"},
}
_Command = Callable[[argparse.Namespace], int]
COMMANDS: dict[str, Any] = {
    "tree": (
        _from_tree,
        "make LABELS from a folder with one folder per class",
        {
            "images": _IMAGES,
            "labels": _NEW_LABELS,
            "--from-zero": _FROM_ZERO,
            **_KNOWN,
        },
    ),
    "devkit": (
        _from_devkit,
        "make LABELS of ImageNet's validation images from ILSVRC2012_devkit_t12",
        {"kit": {"role": "reads", "metavar": "KIT", "help": "the unpacked folder"}, "labels": _NEW_LABELS},
    ),
    "csv": (
        _from_csv,
        "make LABELS from a CSV with a head: name, then synset or class number",
        {
            "csv": {"role": "reads", "metavar": "CSV", "help": "such as LOC_val_solution.csv"},
            "labels": _NEW_LABELS,
            **_KNOWN,
        },
    ),
    "archive": (
        _from_archive,
        "make LABELS of those that come with images in a WebDataset's .tar files or in .parquet files",
        {"images": {**_IMAGES, "metavar": "SRC", "help": "the archive, a pattern, or a folder"}, "labels": _NEW_LABELS},
    ),
    "check": (
        _check,
        "say whether every image has a label and every label an image",
        {
            "labels": _LABELS,
            "images": _IMAGES,
            "--json": {"role": "writes", "metavar": "FILE", "help": "write all of it here as well"},
        },
    ),
    "to-tree": (
        _to_tree,
        "move the images of DIR into a folder per class",
        {
            "labels": _LABELS,
            "images": _IMAGES,
            **_KNOWN,
        },
    ),
    "to-flat": (
        _to_flat,
        "move the images of DIR out of their class folders, after writing LABELS",
        {"images": _IMAGES, "labels": _LABELS, "--from-zero": _FROM_ZERO, **_KNOWN},
    ),
}

if __name__ == "__main__":
    run(main)
