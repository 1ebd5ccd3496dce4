"""Weight cards: everything that belongs to a published weight file, as data (`cards.json`).

A card says how the network is built, how its pictures must be prepared and what accuracy was published for it, so that
nobody evaluates a model with another model's preprocessing. Sources: the official ResNeSt repository at commit 1dfb3e8
(architectures, hashes, crop sizes, top-1). `sha256` holds the leading digits of the file's SHA-256, as many as were
published. Mean and standard deviation are of RGB values scaled to 0..1.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from ResNeSt.errors import ArgumentError, PipelineError
from ResNeSt.files import PathLike, read_json, stem

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Shape of a ResNeSt (paper: arXiv 2004.08955, section 3).

    `width` is the channels of one group at 64 planes (64 in `2s1x64d`); `planes` are the four stages' base widths.
    """

    layers: Tuple[int, ...]
    radix: int
    cardinality: int
    width: int
    stem_width: int
    avd_first: bool
    planes: Tuple[int, ...] = (64, 128, 256, 512)


@dataclasses.dataclass(frozen=True)
class Card:
    """One weight file: architecture, recipe, input size in pixels, published top-1 in percent."""

    name: str
    architecture: Architecture
    recipe: str
    size: int
    classes: int
    parameters: int
    top1: float
    url: Optional[str]
    sha256: Optional[str]
    mean: Tuple[float, ...] = IMAGENET_MEAN
    std: Tuple[float, ...] = IMAGENET_STD


def _card(name: str, fields: Dict[str, Any]) -> Card:
    architecture: Dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in fields["architecture"].items()
    }
    return Card(name=name, **{**fields, "architecture": Architecture(**architecture)})


def names() -> List[str]:
    """Names of all cards, in the order of the file."""
    return list(_CARDS)


def card(name: str) -> Card:
    """The card called `name`; raises ArgumentError with the known names otherwise."""
    try:
        return _CARDS[name]
    except KeyError:
        raise ArgumentError(f"unknown model {name!r}; known: {', '.join(_CARDS)}") from None


def card_of_file(path: PathLike) -> Card:
    """The card that a checkpoint's file name speaks of: `resnest50-528c19ca.pth` -> resnest50.

    Raises PipelineError where the name says nothing.
    """
    name = stem(path).split("-", 1)[0]
    if name not in _CARDS:
        raise PipelineError(f"{path}: the file name does not tell which model this is; name it <model>-<anything>.pth")
    return _CARDS[name]


_CARDS = {name: _card(name, fields) for name, fields in read_json(Path(__file__).with_name("cards.json")).items()}
