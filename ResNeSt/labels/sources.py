"""Where labels come from: a folder per class, ImageNet's development kit, or a CSV."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ResNeSt.common.errors import MissingRuntimeError, PipelineError
from ResNeSt.common.files import PathLike
from ResNeSt.common.progress import Say, silent
from ResNeSt.images.listing import class_folders, list_images, refuse_archives, relative
from ResNeSt.labels.class_names import ClassList, ClassName, imagenet_classes
from ResNeSt.labels.file import class_number, keys_of
from ResNeSt.labels.numbering import BY_NUMBER, BY_ORDER, composed, number_folders, places, unlike_folders

GROUND_TRUTH = "data/ILSVRC2012_validation_ground_truth.txt"
META = "data/meta.mat"
_SYNSET = re.compile(r"^(n[0-9]{8})\s")


class Tree(NamedTuple):
    """The images of a folder with one folder per class, and the class of each.

    `numbers` are the folders' class numbers, which go by `rule`; `classes` are all, `remarks` what a user must know.
    """

    images: list[str]
    labels: list[int]
    numbers: dict[str, int]
    classes: list[ClassName]
    rule: str
    remarks: list[str]

    @property
    def named(self) -> bool:
        """Whether the folders are called by classes, so that no class is another one's number."""
        return self.rule not in {BY_NUMBER, BY_ORDER}


def read_tree(source: PathLike, known: ClassList | None = None, from_zero: bool = False, say: Say = silent) -> Tree:
    """The images of a folder with one folder per class, by `number_folders`; a folder without images is a class, too.

    `say` hears what is skipped. Raises PipelineError where an image lies beside the folders.
    """
    return tree_of(list_images(source, say), source, known, from_zero)


def tree_of(images: list[str], source: PathLike, known: ClassList | None = None, from_zero: bool = False) -> Tree:
    """The same of the images that are listed already."""
    refuse_archives(images, source)
    folders = class_folders(source)
    lies_in = [class_folder(image, source) for image in images]
    numbering = number_folders(folders, source, known, from_zero)
    remarks = numbering.remarks(source)
    if images and all(os.path.dirname(relative(image, source)).count("/") for image in images):
        remarks.append(
            f"{source}: all images lie two folders down or deeper, such as {relative(images[0], source)}; the first "
            "folder is the class, is it the one that holds the class folders?"
        )
    if empty := sorted(set(folders) - set(lies_in)):
        remarks.append(
            f"{source}: {len(empty)} class folders have no images, such as {empty[0]}; each is a class all the same"
        )
    labels = [numbering.numbers[folder] for folder in lies_in]
    return Tree(images, labels, numbering.numbers, numbering.classes, numbering.rule, remarks)


def tree_of_model(images: list[str], source: PathLike, known: ClassList) -> Tree:
    """The same by the classes of a model, which `known` has all; raises PipelineError where they do not decide."""
    try:
        tree = tree_of(images, source, known)
    except PipelineError as error:
        raise PipelineError(f"{error}; or name a labels file with --labels") from None
    if tree.rule == BY_ORDER:
        tree.remarks.append(
            f"{source}: its folders were numbered in the order of their names, since {known.source} does not say what "
            "its classes are called"
        )
    return tree


def class_folder(image: PathLike, source: PathLike) -> str:
    """Name of the folder of `source` that an image lies in; raises PipelineError for one that lies in none."""
    folder, slash, _ = relative(image, source).partition("/")
    if not slash:
        raise PipelineError(f"{image}: lies in no folder of a class; move it into one")
    return folder


def check_folders(
    labels: PathLike, truth: Mapping[str, int], images: Sequence[str], source: PathLike, known: ClassList
) -> None:
    """Raises PipelineError where images lie in a folder called by a class of `known` that is not their label's."""
    numbers = {image: truth[key] for image, key in zip(images, keys_of(images, source, truth)) if key in truth}
    labelled = list(numbers)
    folders = [relative(image, source).rpartition("/")[0].partition("/")[0] for image in labelled]
    unlike = list(unlike_folders(folders, list(numbers.values()), known))
    if unlike:
        place, number = unlike[0]
        raise PipelineError(
            f"{labels}: {len(unlike)} images have another class than their folder, such as {labelled[place]}, class "
            f"{numbers[labelled[place]]}, while {folders[place]} is class {number} of {known.source}; make the "
            f"labels anew by `python -m ResNeSt.labels tree` with the model's class names"
        )


def from_devkit(kit: PathLike) -> dict[str, int]:
    """Class of each validation image by ILSVRC2012_devkit_t12, whose own numbers (1 to 1000) have another order.

    Raises PipelineError for a kit that is not whole, MissingRuntimeError without SciPy.
    """
    synsets = _synsets(Path(kit, META))
    truth = Path(kit, GROUND_TRUTH)
    of_imagenet = {name.synset: number for number, name in enumerate(imagenet_classes())}
    try:
        numbers = [of_imagenet[synsets[int(line)]] for line in truth.read_text(encoding="ascii").split()]
    except (ValueError, KeyError) as error:
        raise PipelineError(f"{truth}: {error!s} is none of the {len(synsets)} classes in {META}") from None
    return {f"ILSVRC2012_val_{number:08}.JPEG": label for number, label in enumerate(numbers, start=1)}


def _synsets(meta: Path) -> dict[int, str]:
    """Synset of every ILSVRC2012_ID; those above the leaves of the tree have one, too, but no image shows them."""
    try:
        from scipy.io import loadmat
    except ImportError:
        raise MissingRuntimeError("scipy, which reads meta.mat, is not installed here: pip install scipy") from None
    meta.stat()  # names the file, where there is none
    try:
        entries = loadmat(meta, squeeze_me=True)["synsets"]
        leaves = entries[entries["num_children"] == 0]
        return {int(number): str(synset) for number, synset in zip(leaves["ILSVRC2012_ID"], leaves["WNID"])}
    except Exception as error:  # loadmat raises many things on a file that is none of MATLAB's
        raise PipelineError(
            f"{meta}: not the synsets of the development kit ({error}); unpack ILSVRC2012_devkit_t12.tar.gz again"
        ) from None


def from_csv(path: PathLike, known: ClassList | None = None) -> dict[str, int]:
    """Class of every image of a CSV with a head: a name in the first column, a class in the second.

    A class is its number, the name of one of the classes that are `known`, or a synset of ImageNet, which boxes may
    follow, as in the CSV of Kaggle's ImageNet challenge. Raises PipelineError, with the line number, for any other line
    and for an image that comes twice.
    """
    with open(path, newline="", encoding="utf-8-sig") as file:
        try:
            rows = list(csv.reader(file, strict=True))
        except (UnicodeDecodeError, csv.Error) as error:
            raise PipelineError(f"{path}: not a CSV in UTF-8 ({error})") from None
    classes = places(imagenet_classes() if known is None else known.names)
    labels: dict[str, int] = {}
    if rows and _label(rows[0], classes) is not None:
        raise PipelineError(f"{path}: line 1 labels an image already; put a head before it, such as ImageId,Class")
    for line, row in enumerate(rows[1:], start=2):
        if not row:
            continue
        name, label = row[0].strip(), _label(row, classes)
        if not name or label is None:
            raise PipelineError(
                f"{path}: line {line}: found {','.join(row)[:80]!r}, expected an image and a synset or a class number"
            )
        if name in labels:
            raise PipelineError(
                f"{path}: line {line}: image {name!r} has class {labels[name]} already, here {label}; remove one"
            )
        labels[name] = label
    if not labels:
        raise PipelineError(f"{path}: holds no labels; expected a head and lines 'NAME,CLASS'")
    return labels


def _label(row: Sequence[str], classes: Mapping[str, Sequence[int]]) -> int | None:
    """The class that the second column says, None where it says none or two."""
    cell = row[1].strip() if len(row) > 1 else ""
    for word in (cell, *_SYNSET.findall(cell)):
        if len(found := classes.get(composed(word), [])) == 1:
            return found[0]
    return class_number(cell)
