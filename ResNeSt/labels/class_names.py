"""What the classes are called: ImageNet's synsets and words, or the names that a model or a user brings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import PathLike

IMAGENET = Path(__file__).with_name("imagenet_classes.tsv")


class ClassName(NamedTuple):
    """A class in words; `synset` is its WordNet number, such as n01440764, empty for a class that has none."""

    name: str
    synset: str = ""


def imagenet_classes() -> list[ClassName]:
    """The 1,000 classes of ILSVRC2012, in the order of their numbers (imagenet_classes.tsv says its source)."""
    return read_names(IMAGENET)


def read_names(path: PathLike) -> list[ClassName]:
    """A class a line, in the order of their numbers: `NAME`, or `SYNSET<tab>NAME`; lines that begin with # are remarks.

    Raises PipelineError for a file that holds none or is no UTF-8 text.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise PipelineError(f"{path}: not UTF-8 text ({error}); expected the name of a class a line") from None
    class_names = [_parse(line) for line in lines if line.strip() and not line.startswith("#")]
    if not class_names:
        raise PipelineError(f"{path}: holds no names; expected one a line, in the order of the class numbers")
    return class_names


def _parse(line: str) -> ClassName:
    synset, tab, name = line.partition("\t")
    return ClassName(name.strip(), synset.strip()) if tab else ClassName(line.strip())


def names_of(info: Mapping[str, str], classes: int, names: PathLike | None = None) -> list[ClassName]:
    """Names of a model's `classes`: those of the file `names`, else those in its metadata `info`.

    1,000 classes without names of their own are ImageNet's; others have an empty name. Raises PipelineError
    where the file has fewer or more names than the model has classes.
    """
    if names is not None:
        class_names = read_names(names)
        if len(class_names) != classes:
            raise PipelineError(
                f"{names}: holds {len(class_names)} names, the model has {classes} classes; one line each"
            )
        return class_names
    if "class_names" in info:
        return [ClassName(name) for name in json.loads(info["class_names"])]
    if classes == 1000:
        return imagenet_classes()
    return [ClassName("")] * classes
