"""What the classes are called: ImageNet's synsets and words, or the names that a model or a user brings."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import PathLike, read_json

IMAGENET = Path(__file__).with_name("imagenet_classes.tsv")
_SYNSET = re.compile(r"(n[0-9]{8})(?:[ \t]+(.*))?")


class ClassName(NamedTuple):
    """A class in words; `synset` is its WordNet number, such as n01440764, empty for a class that has none."""

    name: str
    synset: str = ""


class ClassList(NamedTuple):
    """All classes of a model in the order of their numbers, with empty names where it has none; `source` says so."""

    source: str
    names: list[ClassName]

    @property
    def named(self) -> bool:
        """Whether the classes have names."""
        return any(any(class_name) for class_name in self.names)

    @property
    def info(self) -> dict[str, str]:
        """What `classes_in` reads the same of, in as few words: ImageNet's names are left out."""
        names = [" ".join(filter(None, (class_name.synset, class_name.name))) for class_name in self.names]
        told = any(names) and self.names != _own_names({}, len(names))
        return {"classes": str(len(names)), **({"class_names": json.dumps(names)} if told else {})}


def imagenet_classes() -> list[ClassName]:
    """The 1,000 classes of ILSVRC2012, in the order of their numbers (imagenet_classes.tsv says its source)."""
    return read_names(IMAGENET)


def class_list(source: str, names: Iterable[str] | None, classes: int) -> ClassList:
    """The classes of a card; 1,000 without names are ImageNet's."""
    info = {} if names is None else {"class_names": json.dumps(list(names))}
    return ClassList(source, names_of(info, classes))


def classes_in(info: Mapping[str, str], source: str) -> ClassList:
    """The classes that the metadata `info` of the model file `source` tell; raises PipelineError where they do not."""
    classes = str(info.get("classes", ""))
    if not re.fullmatch("[0-9]{1,6}", classes):
        raise PipelineError(f"{source}: does not say what its classes are; give them with --names or --arch")
    return ClassList(source, names_of(info, int(classes)))


def read_names(path: PathLike) -> list[ClassName]:
    """A class a line, in the order of their numbers: `NAME`, or a synset, or `SYNSET<tab>NAME`; # begins a remark.

    A file that ends in .json is a card with class_names, or a list of names. Raises PipelineError for a file that
    holds none or is no UTF-8 text.
    """
    if Path(path).suffix == ".json":
        return _of_json(path)
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise PipelineError(f"{path}: not UTF-8 text ({error}); expected the name of a class a line") from None
    class_names = [_parse(line) for line in lines if line.strip() and not line.startswith("#")]
    if not class_names:
        raise PipelineError(f"{path}: holds no names; expected one a line, in the order of the class numbers")
    return class_names


def _of_json(path: PathLike) -> list[ClassName]:
    held = read_json(path)
    names = held.get("class_names") if isinstance(held, dict) else held
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise PipelineError(f"{path}: holds no names; expected a card with class_names, or a list of names")
    return [_plain(name) for name in names]


def _parse(line: str) -> ClassName:
    synset, tab, name = line.partition("\t")
    return ClassName(name.strip(), synset.strip()) if tab else _plain(line.strip())


def _plain(name: str) -> ClassName:
    """A synset, alone or before a name as in ImageNet's own lists, is one; all else is a name."""
    match = _SYNSET.fullmatch(name)
    return ClassName(match[2] or "", match[1]) if match else ClassName(name)


def names_in(info: Mapping[str, str]) -> list[str] | None:
    """The class names in a model's metadata, None where it has none; raises PipelineError for anything but a list."""
    if "class_names" not in info:
        return None
    try:
        names = json.loads(info["class_names"])
    except (TypeError, ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise PipelineError(
            f"the model's class_names are {str(info['class_names'])[:80]!r}, expected a list of names; export it again"
        )
    return names


def names_of(info: Mapping[str, str], classes: int, names: PathLike | None = None) -> list[ClassName]:
    """Names of a model's `classes`: those of the file `names`, else those in its metadata `info`.

    1,000 classes without names of their own are ImageNet's; others have an empty name. A file that names the model's
    own classes, or ImageNet's synsets, in another order is put into the model's. Raises PipelineError where there are
    fewer or more names than classes, and where a file has a synset or a name at a place that is not its own and is no
    such list.
    """
    own = _own_names(info, classes)
    if names is None:
        return own
    given = read_names(names)
    if len(given) != classes:
        raise PipelineError(f"{names}: holds {len(given)} names, the model has {classes} classes; one line each")
    return _in_the_order_of(own, given, names)


def _own_names(info: Mapping[str, str], classes: int) -> list[ClassName]:
    own = names_in(info)
    if own is None:
        return imagenet_classes() if classes == 1000 else [ClassName("")] * classes
    if len(own) != classes:
        raise PipelineError(
            f"the model has {len(own)} class_names and {classes} classes; correct its card and export it again"
        )
    return [_plain(name) for name in own]


def _in_the_order_of(own: list[ClassName], given: list[ClassName], path: PathLike) -> list[ClassName]:
    """The names `given`, each at the number of the class in `own` that it is of; as they stand where they are of none.

    Classes with a synset go by it alone: of ImageNet's words some are of two classes.
    """
    places = {class_name.synset or class_name.name: number for number, class_name in enumerate(own) if any(class_name)}
    found = [places.get(class_name.synset or class_name.name) for class_name in given]
    if sorted(number for number in found if number is not None) == list(range(len(own))):
        return [class_name for _, class_name in sorted(zip(found, given), key=lambda pair: pair[0] or 0)]
    for number, (place, class_name) in enumerate(zip(found, given)):
        if place not in (None, number):
            raise PipelineError(
                f"{path}: its class {number} is {class_name.synset or class_name.name}, which is class {place} of the "
                "model, and the others are not all the model's; name each of the model's classes once"
            )
    return given
