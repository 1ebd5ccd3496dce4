"""A labels file beside the folder that it is of: whether they fit, and moving images into class folders and back.

Images are moved one by one within their file system, and never over another file, so a run that was stopped can be
repeated. What the class folders were called stands in a file beside the labels.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import tempfile
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from ResNeSt.common.ais_bench_names import stem
from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import PathLike, read_json, sha256, write_json
from ResNeSt.common.progress import Say, hidden, silent
from ResNeSt.images.listing import find_images, list_images, refuse_archives
from ResNeSt.labels.class_names import ClassList, imagenet_classes
from ResNeSt.labels.file import keys_of, label_names, read_labels, write_labels
from ResNeSt.labels.numbering import number_folders
from ResNeSt.labels.sources import Tree, class_folder, read_tree

_VALIDATION_IMAGE = re.compile(r"ILSVRC2012_val_[0-9]{8}")
_TRAINING_IMAGE = re.compile(r"(n[0-9]{8})_[0-9]+")


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


def check(labels: PathLike, source: PathLike, say: Say = silent) -> Fit:
    """Compares a labels file with a folder of images; `say` hears which files are no images.

    Raises PipelineError where either is damaged or empty.
    """
    truth, images = read_labels(labels), list_images(source, say)
    keys = keys_of(images, source, truth)
    here = set(keys)
    counts = Counter(truth.values())
    return Fit(
        labels=len(truth),
        images=len(images),
        missing=[name for name in truth if name not in here],
        extra=[image for image, key in zip(images, keys) if key not in truth],
        classes=len(counts),
        first_class=min(counts),
        last_class=max(counts),
        fewest_images=min(counts.values()),
        most_images=max(counts.values()),
    )


def to_tree(labels: PathLike, source: PathLike, known: ClassList | None = None, say: Say = silent) -> int:
    """Moves each image of `source` into a folder called by its class, and returns how many were moved.

    Folders are called by the `known` classes, else as `to_flat` found them, else, where the names of the images or a
    thousand classes say that they are ImageNet's, by synset. `say` hears what does not fit. Raises PipelineError,
    before anything moves, where an image has no label or its class no name, and what `_move` raises.
    """
    truth, images = read_labels(labels), list_images(source, say)
    refuse_archives(images, source)
    recorded = _recorded(labels) if known is None else None
    folders = recorded if recorded is not None else _folders(labels, truth, known)
    keys = keys_of(images, source, truth)
    _refuse_unlabelled(truth, images, keys, labels)
    numbers = {image: truth[key] for image, key in zip(images, keys)}
    _refuse_nameless(numbers, folders, labels)
    used = {folders[number]: number for number in numbers.values()}
    if missing := truth.keys() - set(keys):
        say(f"note: {labels}: {len(missing)} labelled images are not in {source}, such as {min(missing)}")
    if not _counted_alike(used, source):
        say("note: without these class names the folders will be numbered otherwise; give them wherever they are read")
    targets = {image: Path(source, folders[number], os.path.basename(image)) for image, number in numbers.items()}
    moved = _move(targets, source)
    for folder in (recorded or {}).values():
        Path(source, folder).mkdir(exist_ok=True)  # of a class without images
    return moved


def _folders(labels: PathLike, truth: Mapping[str, int], known: ClassList | None) -> dict[int, str]:
    """Name of the folder of each class that has one."""
    if known is None and not _is_imagenet(truth):
        raise PipelineError(
            f"{labels}: nothing says what its classes are called; give their names with --names, or --arch resnest50 "
            "for ImageNet's synsets"
        )
    names = imagenet_classes() if known is None else known.names
    folders = {number: name.synset or name.name for number, name in enumerate(names)}
    return {number: folder for number, folder in folders.items() if folder}


def _is_imagenet(truth: Mapping[str, int]) -> bool:
    """Whether the names of all images, or as many classes as it has, say that the classes are ImageNet's."""
    classes = imagenet_classes()
    if set(truth.values()) == set(range(len(classes))) or all(map(_VALIDATION_IMAGE.fullmatch, truth)):
        return True
    synsets = {name: match[1] for name in truth if (match := _TRAINING_IMAGE.fullmatch(name))}
    return all(truth[name] < len(classes) and synsets.get(name) == classes[truth[name]].synset for name in truth)


def _refuse_unlabelled(truth: Mapping[str, int], images: Sequence[str], keys: Sequence[str], labels: PathLike) -> None:
    unlabelled = [image for image, key in zip(images, keys) if key not in truth]
    if unlabelled:
        raise PipelineError(
            f"{labels}: has no line for {len(unlabelled)} of {len(images)} images, such as {unlabelled[0]}; complete "
            "it, or move them elsewhere"
        )


def _refuse_nameless(numbers: Mapping[str, int], folders: Mapping[int, str], labels: PathLike) -> None:
    classes: dict[str, int] = {}
    for image, number in numbers.items():
        folder = folders.get(number)
        if folder is None:
            raise PipelineError(
                f"{labels}: {image} is of class {number}, there are names for {len(folders)}; give one for each with "
                "--names"
            )
        if not _names_a_folder(folder, number):
            raise PipelineError(f"{labels}: class {number} is called {folder!r}, which no folder of a class can be")
        if classes.setdefault(folder, number) != number:
            raise PipelineError(
                f"{labels}: classes {classes[folder]} and {number} are both called {folder}, so one folder would hold "
                "both; give each a name of its own with --names"
            )


def _names_a_folder(folder: str, number: object) -> bool:
    """Whether a class can be called so: hidden folders are no classes."""
    return type(number) is int and bool(folder) and not re.search("[/\0]|^[.]", folder)


def _counted_alike(used: Mapping[str, int], source: PathLike) -> bool:
    try:
        return number_folders(sorted(used), source).numbers == used
    except PipelineError:
        return False


def to_flat(
    source: PathLike, labels: PathLike, known: ClassList | None = None, from_zero: bool = False, say: Say = silent
) -> int:
    """Moves all images out of their class folders into `source`, and returns how many were moved.

    Their classes, numbered as `number_folders` does, go to the file `labels`, and the names of the folders beside it,
    before anything moves. Labels that are there are kept, after all images still in a folder were found in them, with a
    class for each folder. `say` hears what is skipped. Raises PipelineError where they do not fit, and as `_move` does.
    """
    images = find_images(source, say)
    refuse_archives(images, source)
    inside = [image for image in images if Path(image).parent != Path(source)]
    targets = {image: Path(source, os.path.basename(image)) for image in inside}
    _check_moves(targets, source)
    if os.path.lexists(labels):
        _refuse_other_labels(inside, source, labels)
    else:
        tree = read_tree(source, known, from_zero)
        write_labels(names_and_labels(tree, source), labels)
        _record(labels, tree.numbers)
    moved = _move(targets, source)
    for folder in (_recorded(labels) or {}).values():
        with contextlib.suppress(OSError):  # it holds something else, or is gone
            Path(source, folder).rmdir()
    return moved


def names_and_labels(tree: Tree, source: PathLike) -> dict[str, int]:
    """A labels file's name for every image of a tree, and its class; raises PipelineError where two share one."""
    return dict(zip(label_names(tree.images, source), tree.labels))


def _record_of(labels: PathLike) -> Path:
    return Path(f"{os.fspath(labels)}.classes.json")


def _record(labels: PathLike, numbers: Mapping[str, int]) -> None:
    write_json(_record_of(labels), {"labels": sha256(labels), "folders": dict(numbers)})


def _recorded(labels: PathLike) -> dict[int, str] | None:
    """What `to_flat` wrote beside the labels: the folder of each class; None where there is nothing.

    Raises PipelineError where it is damaged or of other labels.
    """
    path = _record_of(labels)
    if not path.is_file():
        return None
    record = read_json(path)
    folders = record.get("folders") if isinstance(record, dict) else None
    if not isinstance(folders, dict) or not all(_names_a_folder(*item) for item in folders.items()):
        raise PipelineError(f"{path}: not the names of class folders; delete it and give them with --names")
    if record.get("labels") != sha256(labels):
        raise PipelineError(
            f"{path}: the names of class folders are of another state of {labels}; delete it and give them with --names"
        )
    return {number: folder for folder, number in folders.items()}


def _refuse_other_labels(inside: Sequence[str], source: PathLike, labels: PathLike) -> None:
    """Makes sure that labels which are there say what the class folders say, and records what these are called."""
    truth = read_labels(labels)
    unknown = [image for image in inside if stem(image) not in truth]
    if unknown:
        raise PipelineError(
            f"{labels}: exists and has no line for {unknown[0]}, so it is not of these images; name another file"
        )
    classes: dict[str, set[int]] = {}
    for image in inside:
        classes.setdefault(class_folder(image, source), set()).add(truth[stem(image)])
    recorded = _recorded(labels)
    mixed = [folder for folder, numbers in classes.items() if not _is_its_own(folder, numbers, recorded)]
    if mixed or len(set().union(*classes.values())) < len(classes):
        raise PipelineError(
            f"{labels}: exists and does not give each class folder a class of its own"
            f"{f' ({mixed[0]})' if mixed else ''}, so what the folders say would be lost; name another file"
        )
    if recorded is None:
        _record(labels, {folder: min(numbers) for folder, numbers in classes.items()})


def _is_its_own(folder: str, numbers: Collection[int], recorded: Mapping[int, str] | None) -> bool:
    return len(numbers) == 1 and (recorded is None or recorded.get(min(numbers)) == folder)


def _move(targets: Mapping[str, Path], source: PathLike) -> int:
    """Moves images of `source`; raises what `_check_moves` raises, before the first."""
    moves = _check_moves(targets, source)
    for image, target in tqdm(moves.items(), unit="img", desc="move", disable=hidden()):
        target.parent.mkdir(exist_ok=True)
        os.rename(image, target)
        if Path(image).parent != Path(source):
            with contextlib.suppress(OSError):  # it holds something else
                Path(image).parent.rmdir()
    return len(moves)


def _check_moves(targets: Mapping[str, Path], source: PathLike) -> dict[str, Path]:
    """The images that have to move; raises PipelineError, naming the file or folder, where one cannot be moved.

    Not moved are images through a linked folder, which would be taken from where it leads, links by a relative path,
    which would lead elsewhere, images deeper than a class folder, and none onto another file or file system.
    """
    moves = {image: target for image, target in targets.items() if Path(image) != target}
    taken = Counter(moves.values())
    for image, target in moves.items():
        if os.path.lexists(target) or taken[target] > 1:
            raise PipelineError(f"{target}: is there already, so {image} is not moved; delete or rename one of them")
        if os.path.islink(image) and not os.path.isabs(os.readlink(image)):
            raise PipelineError(f"{image}: a link to {os.readlink(image)} leads nowhere once moved; put the file here")
        if Path(source) not in (Path(image).parent, Path(image).parent.parent):
            raise PipelineError(f"{image}: lies deeper than in a class folder of {source}; move it there")
    for folder in {Path(path).parent for pair in moves.items() for path in pair} - {Path(source)}:
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise PipelineError(f"{folder}: is a link or a file, not a folder of {source}; nothing was moved")
    for here, there in {(Path(image).parent, target.parent) for image, target in moves.items()}:
        _try_to_move(here, there if there.exists() else Path(source))
    return moves


def _try_to_move(here: Path, there: Path) -> None:
    """Moves a file of its own, since a mount or a lack of rights shows in nothing else."""
    handle, name = tempfile.mkstemp(".part", ".", here)
    os.close(handle)
    moved = there / os.path.basename(name)
    try:
        os.rename(name, moved)
    except OSError as error:
        os.unlink(name)
        raise PipelineError(
            f"{here}: its images cannot be moved to {there} ({error.strerror}); nothing was moved"
        ) from None
    os.unlink(moved)
