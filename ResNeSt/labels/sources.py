"""Where labels come from: a folder per class, ImageNet's development kit, or a CSV."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ResNeSt.common.errors import MissingRuntimeError, PipelineError
from ResNeSt.common.files import PathLike
from ResNeSt.images.listing import find_images, relative
from ResNeSt.labels.class_names import imagenet_classes

GROUND_TRUTH = "data/ILSVRC2012_validation_ground_truth.txt"
META = "data/meta.mat"


def imagenet_numbers() -> dict[str, int]:
    """Class number, 0 to 999, of every synset of ILSVRC2012."""
    return {class_name.synset: number for number, class_name in enumerate(imagenet_classes())}


def class_numbers(folders: Sequence[str], from_zero: bool = False) -> tuple[dict[str, int], str]:
    """Class numbers of class folders, and in words what they go by.

    Folders that are all ImageNet's synsets have ImageNet's numbers, even if not all 1,000 are there; others, and with
    `from_zero` all, are counted from 0 in the order of their names, as resnest_train.py and torchvision's ImageFolder
    do.
    """
    of_imagenet = imagenet_numbers()
    if not from_zero and set(folders) <= set(of_imagenet):
        return {folder: of_imagenet[folder] for folder in folders}, "ImageNet's numbers of the synsets"
    return {folder: number for number, folder in enumerate(sorted(set(folders)))}, "numbers in the order of the folders"


def class_folder(image: PathLike, source: PathLike) -> str:
    """Name of the folder of `source` that an image lies in; raises PipelineError for one that lies in none."""
    folder, slash, _ = relative(image, source).partition("/")
    if not slash:
        raise PipelineError(f"{image}: lies in no folder of a class; move it into one")
    return folder


def from_tree(source: PathLike, from_zero: bool = False) -> tuple[dict[str, int], str]:
    """Class of every image of a folder with one folder per class, and what the numbers go by.

    Raises PipelineError where an image lies beside the folders.
    """
    images = find_images(source)
    folders = [class_folder(image, source) for image in images]
    numbers, meaning = class_numbers(folders, from_zero)
    return {os.path.basename(image): numbers[folder] for image, folder in zip(images, folders)}, meaning


def from_devkit(kit: PathLike) -> dict[str, int]:
    """Class of each validation image by ILSVRC2012_devkit_t12, whose own numbers (1 to 1000) have another order.

    Raises PipelineError for a kit that is not whole, MissingRuntimeError without SciPy.
    """
    synsets = _synsets(Path(kit, META))
    truth = Path(kit, GROUND_TRUTH)
    of_imagenet = imagenet_numbers()
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


def from_csv(path: PathLike) -> dict[str, int]:
    """Class of every image of a CSV with a head: a name in the first column, a synset or a class number in the second.

    Only the first word of the second column counts: the CSV of Kaggle's ImageNet challenge has boxes behind it. Raises
    PipelineError, with the line number, for any other line and for an image that comes twice.
    """
    with open(path, newline="", encoding="utf-8-sig") as file:
        try:
            rows = list(csv.reader(file))
        except (UnicodeDecodeError, csv.Error) as error:
            raise PipelineError(f"{path}: not a CSV in UTF-8 ({error})") from None
    of_imagenet = imagenet_numbers()
    labels: dict[str, int] = {}
    if rows and _label(rows[0], of_imagenet) is not None:
        raise PipelineError(f"{path}: line 1 labels an image already; put a head before it, such as ImageId,Class")
    for line, row in enumerate(rows[1:], start=2):
        if not row:
            continue
        name, label = row[0].strip(), _label(row, of_imagenet)
        if not name or label is None:
            raise PipelineError(
                f"{path}: line {line}: found {','.join(row)[:80]!r}, expected an image and a synset or a class number"
            )
        if name in labels:
            raise PipelineError(f"{path}: line {line}: image {name!r} has a label already; remove one of them")
        labels[name] = label
    if not labels:
        raise PipelineError(f"{path}: holds no labels; expected a head and lines 'NAME,CLASS'")
    return labels


def _label(row: list[str], of_imagenet: Mapping[str, int]) -> int | None:
    """The class that the first word of the second column says, None where it says none."""
    first = row[1].split()[0] if len(row) > 1 and row[1].strip() else ""
    if first in of_imagenet:
        return of_imagenet[first]
    return int(first) if first.isascii() and first.isdigit() else None
