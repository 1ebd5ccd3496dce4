"""Makes and checks `val_label.txt`, and moves images into class folders and back."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from typing import Callable

from ResNeSt.common.arguments import Parser, write_result
from ResNeSt.common.errors import run
from ResNeSt.common.flags import take
from ResNeSt.common.progress import aloud, remark
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
    parser = Parser(prog="python -m ResNeSt.labels", description=__doc__, example=_CHECK, tells=())
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", help="what is to be done")
    for name, (work, meaning, add_flags) in COMMANDS.items():
        command = commands.add_parser(name, help=meaning, description=meaning, example=EXAMPLES[name])
        add_flags(command)
        command.set_defaults(work=work)
    return parser


def _from_tree(options: argparse.Namespace) -> int:
    tree = read_tree(options.images, _known(options), options.from_zero, aloud)
    notes = list(tree.remarks)
    if tree.rule == BY_ORDER and not options.from_zero:
        notes.append("a model of other folders counts otherwise; --names, --arch or --model tells its classes")
    return _write(folders.names_and_labels(tree, options.images), options, f", by {tree.rule}", notes)


def _from_devkit(options: argparse.Namespace) -> int:
    return _write(from_devkit(options.kit), options, ", from the kit's own order to that of the synsets")


def _from_csv(options: argparse.Namespace) -> int:
    labels = from_csv(options.csv, _known(options))
    return _write(labels, options, notes=remark_on_numbers(options.labels, list(labels.values())))


def _from_archive(options: argparse.Namespace) -> int:
    return _write(carried(options.images, aloud), options)


def _write(labels: dict[str, int], options: argparse.Namespace, how: str = "", notes: Sequence[str] = ()) -> int:
    write_labels(labels, options.labels)
    classes = len(set(labels.values()))
    aloud(f"{options.labels}: {len(labels)} images of {classes} classes{how}")
    for note in notes:
        remark(note)
    write_result(options, {"labels": options.labels, "images": len(labels), "classes": classes, "notes": notes})
    return 0


def _known(options: argparse.Namespace) -> ClassList | None:
    """The classes that one of --names, --arch and --model tells."""
    if options.names:
        return ClassList(options.names, read_names(options.names))
    if options.arch:
        found = card(options.arch)
        return class_list(options.arch, found.class_names, found.classes)
    if options.model:
        return classes_in(info_of_file(options.model), options.model)
    return None


def _check(options: argparse.Namespace) -> int:
    fit = folders.check(options.labels, options.images, aloud)
    print(
        f"{options.labels}: {fit.labels} images of {fit.classes} classes, {fit.first_class} to {fit.last_class}, "
        f"with {fit.fewest_images} to {fit.most_images} images each"
    )
    print(f"{options.images}: {fit.images} images")
    for kind, names in (("missing", fit.missing), ("extra", fit.extra)):
        if names:
            print(f"{kind}: {len(names)} {KINDS[kind]}, such as {', '.join(names[:SHOWN])}")
    notes = remark_on_numbers(options.labels, list(read_labels(options.labels).values()))
    for note in notes:
        remark(note)
    write_result(options, {**dataclasses.asdict(fit), "notes": notes})
    return 1 if fit.missing or fit.extra else 0


def _to_tree(options: argparse.Namespace) -> int:
    moved = folders.to_tree(options.labels, options.images, _known(options), aloud)
    aloud(f"{options.images}: {moved} images moved into class folders")
    write_result(options, {"images": options.images, "moved": moved})
    return 0


def _to_flat(options: argparse.Namespace) -> int:
    moved = folders.to_flat(options.images, options.labels, _known(options), options.from_zero, aloud)
    aloud(f"{options.images}: {moved} images moved out of their class folders; {options.labels} says their classes")
    write_result(options, {"images": options.images, "labels": options.labels, "moved": moved})
    return 0


def _add_labels(command: Parser, role: str = "reads") -> None:
    take(command, "labels", positional=True, metavar="LABELS", role=role)


def _add_images(command: Parser) -> None:
    take(command, "images", positional=True)


def _add_known(command: Parser, from_zero: bool = False) -> None:
    """Flags that tell the classes, of which one is given."""
    one_of = command.add_mutually_exclusive_group()
    if from_zero:
        one_of.add_argument(
            "--from-zero",
            action="store_true",
            help="count the folders in the order of their names, whatever they are, as torchvision's ImageFolder does",
        )
    take(command, "names", group=one_of, note="or a card")
    take(command, "arch", group=one_of, note="resnest50 has ImageNet's classes", old=["--card"])
    take(command, "model", group=one_of, note="it tells its classes")


def _tree_flags(command: Parser) -> None:
    _add_images(command)
    _add_labels(command, "writes")
    _add_known(command, from_zero=True)


def _devkit_flags(command: Parser) -> None:
    command.reads("kit", metavar="KIT", help="the unpacked folder")
    _add_labels(command, "writes")


def _csv_flags(command: Parser) -> None:
    command.reads("csv", metavar="CSV", help="such as LOC_val_solution.csv")
    _add_labels(command, "writes")
    _add_known(command)


def _archive_flags(command: Parser) -> None:
    _add_images(command)
    _add_labels(command, "writes")


def _check_flags(command: Parser) -> None:
    _add_labels(command)
    _add_images(command)


def _to_tree_flags(command: Parser) -> None:
    _add_labels(command)
    _add_images(command)
    _add_known(command)


def _to_flat_flags(command: Parser) -> None:
    _add_images(command)
    _add_labels(command)
    _add_known(command, from_zero=True)


_CHECK = "python -m ResNeSt.labels check demo/val_label.txt demo/val"
_TREE = (
    "seq 0 9 > work/names.txt && cp -r demo/val work/tree && "
    "python -m ResNeSt.labels to-tree demo/val_label.txt work/tree --names work/names.txt"
)
EXAMPLES = {
    "tree": f"{_TREE} && python -m ResNeSt.labels tree work/tree work/tree.txt",
    "devkit": "python -m ResNeSt.labels devkit ILSVRC2012_devkit_t12 work/labels.txt    # the kit: docs/labels.md",
    "csv": "printf 'name,class\\na.jpg,0\\n' > work/a.csv && python -m ResNeSt.labels csv work/a.csv work/csv.txt",
    "archive": "mkdir -p work/a && cp demo/val/digits_val_00000001.JPEG work/a/a.jpg && echo 0 > work/a/a.cls && "
    "tar cf work/a.tar -C work/a a.jpg a.cls && python -m ResNeSt.labels archive work/a.tar work/a.txt",
    "check": _CHECK,
    "to-tree": _TREE,
    "to-flat": f"{_TREE} && python -m ResNeSt.labels to-flat work/tree work/flat.txt",
}
COMMANDS: dict[str, tuple[Callable[[argparse.Namespace], int], str, Callable[[Parser], None]]] = {
    "tree": (_from_tree, "make LABELS from a folder with one folder per class", _tree_flags),
    "devkit": (
        _from_devkit,
        "make LABELS of ImageNet's validation images from ILSVRC2012_devkit_t12",
        _devkit_flags,
    ),
    "csv": (_from_csv, "make LABELS from a CSV with a head: name, then synset or class number", _csv_flags),
    "archive": (
        _from_archive,
        "make LABELS of those that come with images in a WebDataset's .tar files or in .parquet files",
        _archive_flags,
    ),
    "check": (_check, "say whether every image has a label and every label an image", _check_flags),
    "to-tree": (_to_tree, "move the images of SRC into a folder per class", _to_tree_flags),
    "to-flat": (_to_flat, "move the images of SRC out of their class folders, after writing LABELS", _to_flat_flags),
}

if __name__ == "__main__":
    run(main)
