"""Which class number a folder stands for: the one place that decides, for labels, training and evaluation."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import PathLike
from ResNeSt.labels.class_names import ClassList, ClassName, imagenet_classes

LARGEST = 99_999  # class number of a folder; beyond it a name such as 20240131 is no class number

BY_ORDER = "numbers in the order of the folders"
BY_NUMBER = "the numbers that the folders are called by"
BY_SYNSET = "ImageNet's numbers of the synsets"


class Numbering(NamedTuple):
    """The class number of each folder, all classes from 0 with their names, and in words what the numbers go by."""

    numbers: dict[str, int]
    classes: list[ClassName]
    rule: str

    def remarks(self, source: PathLike) -> list[str]:
        """What a user may not expect of them."""
        lacking = sorted(set(range(len(self.classes))) - set(self.numbers.values()))
        if self.rule != BY_NUMBER or not lacking:
            return []
        from_one = min(self.numbers.values()) == 1
        return [
            f"{source}: no folder for {len(lacking)} of the classes 0 to {len(self.classes) - 1}, such as "
            f"{lacking[0]}" + ("; classes count from 0, do these folders count from 1?" if from_one else "")
        ]


def number_folders(
    folders: Sequence[str], source: PathLike, known: ClassList | None = None, from_zero: bool = False
) -> Numbering:
    """Class numbers of the class folders of `source`.

    The classes that are `known` decide where they have names. Else folders that are all numbers mean these, and those
    that are all ImageNet's synsets have ImageNet's numbers, even if not all 1,000 are there. All others, and with
    `from_zero` all, are counted from 0 in the order of their names, as torchvision's ImageFolder does. Raises
    PipelineError for a folder that is no class of them, and where numbers or synsets stand beside other names.
    """
    if not folders:
        raise PipelineError(f"{source}: has no folder of a class; expected one for each, with its images in it")
    digits = [bool(re.fullmatch("-?[0-9]+", folder)) for folder in folders]
    if from_zero:
        return _by_order(folders)
    if all(digits) and (known is None or _counts(known)):
        return _by_number(folders, source, known)
    if known is not None and known.named:
        return _by_list(folders, source, known)
    imagenet = ClassList("ImageNet", imagenet_classes())
    synsets = {class_name.synset for class_name in imagenet.names}
    if known is None and set(folders) <= synsets:
        return _by_list(folders, source, imagenet)._replace(rule=BY_SYNSET)
    _refuse_some("a number", folders, digits, source)
    if known is None:
        _refuse_some("a synset of ImageNet", folders, [folder in synsets for folder in folders], source)
    if known is not None and len(known.names) != len(folders):
        raise PipelineError(
            f"{source}: has {len(folders)} folders, {known.source} has {len(known.names)} classes without names; say "
            "which class each is by a list of their names"
        )
    return _by_order(folders)


def _refuse_some(what: str, folders: Sequence[str], are: Sequence[bool], source: PathLike) -> None:
    if any(are):
        raise PipelineError(
            f"{source}: its folder {folders[are.index(True)]} is {what}, {folders[are.index(False)]} is none; move it "
            "elsewhere, or say which class each is by a list of their names"
        )


def _counts(known: ClassList) -> bool:
    """Whether no class is called by the number of another."""
    numbers = [(number, name.name) for number, name in enumerate(known.names) if re.fullmatch("[0-9]{1,9}", name.name)]
    return all(int(name) == number for number, name in numbers)


def _by_order(folders: Sequence[str]) -> Numbering:
    ordered = sorted(folders)
    return Numbering({folder: number for number, folder in enumerate(ordered)}, list(map(ClassName, ordered)), BY_ORDER)


def _by_number(folders: Sequence[str], source: PathLike, known: ClassList | None) -> Numbering:
    top = LARGEST if known is None else len(known.names) - 1
    whose = "class numbers here are" if known is None else f"{known.source} has classes"
    numbers: dict[str, int] = {}
    for folder in folders:
        if folder.startswith("-") or len(folder.lstrip("0")) > 9 or int(folder) > top:
            shift = known is not None and folder == str(top + 1) and not set(folders) & {"0", "-1"}
            raise PipelineError(
                f"{source}: its folder {folder[:20]} is a number, and {whose} 0 to {top}; "
                + ("the folders seem to count from 1, " if shift else "")
                + "rename it, or say which class each is by a list of their names"
            )
        numbers[folder] = int(folder)
    _refuse_equal(numbers, source)
    if known is not None:
        return Numbering(numbers, known.names, BY_NUMBER)
    return Numbering(numbers, [ClassName(str(number)) for number in range(max(numbers.values()) + 1)], BY_NUMBER)


def _by_list(folders: Sequence[str], source: PathLike, known: ClassList) -> Numbering:
    by_name = places(known.names)
    numbers: dict[str, int] = {}
    for folder in folders:
        found = by_name.get(composed(folder), [])
        if len(found) != 1:
            what = f"{len(found)} of" if found else "none of"
            raise PipelineError(
                f"{source}: its folder {folder} is {what} the {len(known.names)} classes of {known.source}; rename it, "
                "or move it elsewhere"
            )
        numbers[folder] = found[0]
    _refuse_equal(numbers, source)
    return Numbering(numbers, known.names, f"the class names of {known.source}")


def places(names: Sequence[ClassName]) -> dict[str, list[int]]:
    """The numbers of the classes that have a name or synset; ImageNet has two called crane."""
    numbers: dict[str, list[int]] = {}
    for number, class_name in enumerate(names):
        for name in {composed(name) for name in class_name if name}:
            numbers.setdefault(name, []).append(number)
    return numbers


def composed(name: str) -> str:
    """As most systems write accents; macOS takes them apart in names of files."""
    return unicodedata.normalize("NFC", name)


def _refuse_equal(numbers: dict[str, int], source: PathLike) -> None:
    folders: dict[int, str] = {}
    for folder, number in numbers.items():
        if folders.setdefault(number, folder) != folder:
            raise PipelineError(
                f"{source}: its folders {folders[number]} and {folder} are both class {number}; join or rename them"
            )


def unlike_folders(folders: Sequence[str], labels: Sequence[int], known: ClassList) -> Iterator[tuple[int, int]]:
    """Where a label is not the class that the name of the image's folder says: the place, and that class.

    `folders` has the name of each image's folder, empty for an image in none; only names of `known` classes say one.
    """
    by_name = places(known.names)
    for place, (folder, label) in enumerate(zip(folders, labels)):
        found = by_name.get(composed(folder), [])
        if len(found) == 1 and found[0] != label and not folder.isdigit():
            yield place, found[0]
