"""A labels file beside the folder that it is of: whether they fit, and moving images into class folders and back.

Images are moved one by one within their file system, and never over another file, so a run that was stopped can be
repeated.
"""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from pathlib import Path

from tqdm import tqdm

from ResNeSt.common.ais_bench_names import stem
from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import PathLike
from ResNeSt.images.listing import find_images
from ResNeSt.labels.class_names import imagenet_classes, read_names
from ResNeSt.labels.file import read_labels, write_labels
from ResNeSt.labels.sources import class_numbers, from_tree


@dataclasses.dataclass(frozen=True)
class Fit:
    """How a labels file and a folder of images fit: how many of each, and the names in one alone.

    `missing` are labelled images that are not in the folder, `extra` files without a label; `fewest_images` and
    `most_images` are those of a class.
    """

    labels: int
    images: int
    missing: list[str]
    extra: list[str]
    classes: int
    first_class: int
    last_class: int
    fewest_images: int
    most_images: int


def check(labels: PathLike, source: PathLike) -> Fit:
    """Compares a labels file with a folder of images; raises PipelineError where either is damaged or empty."""
    truth, images = read_labels(labels), find_images(source)
    stems = {stem(image) for image in images}
    counts = Counter(truth.values())
    return Fit(
        labels=len(truth),
        images=len(images),
        missing=[name for name in truth if name not in stems],
        extra=[image for image in images if stem(image) not in truth],
        classes=len(counts),
        first_class=min(counts),
        last_class=max(counts),
        fewest_images=min(counts.values()),
        most_images=max(counts.values()),
    )


def to_tree(labels: PathLike, source: PathLike, names: PathLike | None) -> int:
    """Moves each image of `source` into a folder called by its class, and returns how many were moved.

    Folders are ImageNet's synsets, or the lines of `names`, of each the synset if it has one. Raises PipelineError,
    before anything moves, where an image has no label, where a class has no name, or where the folders would not give
    the same class numbers again.
    """
    truth, images = read_labels(labels), find_images(source)
    folders = _folders(names)
    _refuse_unknown(truth, images, folders, labels)
    used = sorted({truth[stem(image)] for image in images})
    again, _ = class_numbers([folders[label] for label in used])
    if any(again[folders[label]] != label for label in used):
        raise PipelineError(
            f"{names or labels}: the folders of classes {used[0]} to {used[-1]}, in the order of their names, would "
            "not have the same class numbers; name them so that they are in order, and leave out none"
        )
    return _move({image: Path(source, folders[truth[stem(image)]], os.path.basename(image)) for image in images})


def _folders(names: PathLike | None) -> list[str]:
    if names is None:
        return [class_name.synset for class_name in imagenet_classes()]
    folders = [class_name.synset or class_name.name for class_name in read_names(names)]
    odd = [folder for folder in folders if "/" in folder or folder in {"", ".", ".."}]
    if odd:
        raise PipelineError(f"{names}: {odd[0]!r} cannot be the name of a folder")
    return folders


def _refuse_unknown(truth: dict[str, int], images: list[str], folders: list[str], labels: PathLike) -> None:
    for image in images:
        if stem(image) not in truth:
            raise PipelineError(f"{labels}: has no line for {image}; complete it, or move the image elsewhere")
        if truth[stem(image)] >= len(folders):
            raise PipelineError(
                f"{labels}: {image} is of class {truth[stem(image)]}, there are names for {len(folders)}; "
                "give one for each with --names"
            )


def to_flat(source: PathLike, labels: PathLike) -> int:
    """Moves all images out of their class folders into `source`, and returns how many were moved.

    Their classes go to the file `labels` before anything moves. One that a stopped run wrote is kept, after all images
    still in a folder were found in it, with a class for each folder.
    """
    images = find_images(source)
    inside = [image for image in images if Path(image).parent != Path(source)]
    if Path(labels).exists():
        _refuse_other_labels(inside, labels)
    else:
        write_labels(from_tree(source)[0], labels)
    moved = _move({image: Path(source, os.path.basename(image)) for image in inside})
    for folder in {Path(image).parent for image in inside}:
        if not any(folder.iterdir()):
            folder.rmdir()
    return moved


def _refuse_other_labels(images: list[str], labels: PathLike) -> None:
    truth = read_labels(labels)
    unknown = [image for image in images if stem(image) not in truth]
    if unknown:
        raise PipelineError(
            f"{labels}: exists and has no line for {unknown[0]}, so it is not of these images; name another file"
        )
    classes: dict[str, set[int]] = {}
    for image in images:
        classes.setdefault(os.path.dirname(image), set()).add(truth[stem(image)])
    mixed = [folder for folder, folder_classes in classes.items() if len(folder_classes) > 1]
    numbers = [min(classes[folder]) for folder in sorted(classes)]
    if mixed or numbers != sorted(set(numbers)):
        raise PipelineError(
            f"{labels}: exists and does not give each class folder{f' ({mixed[0]})' if mixed else ''} a class of its "
            "own, in the order of their names, so what the folders say would be lost; name another file"
        )


def _move(targets: dict[str, Path]) -> int:
    moves = {image: target for image, target in targets.items() if Path(image) != target}
    for image, target in moves.items():
        if target.exists():
            raise PipelineError(f"{target}: is there already, so {image} is not moved; delete one of them")
    for image, target in tqdm(moves.items(), unit="img", desc="move", disable=None):
        target.parent.mkdir(exist_ok=True)
        os.rename(image, target)
    return len(moves)
