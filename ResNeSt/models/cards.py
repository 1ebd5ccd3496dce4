"""Weight cards: everything that belongs to a weight file, as data (`cards.json`, or a file of the user's own).

A card says how the network is built, how its pictures must be prepared and what accuracy was published for it, so that
nobody evaluates a model with another model's preprocessing. Sources: the official ResNeSt repository at commit 1dfb3e8
(architectures, hashes, crop sizes, top-1, licence), Open Model Zoo (bytes and whole hash of resnest50), and those named
beside other accuracies. `sha256` holds the leading digits of the file's SHA-256, as many as were published. Mean and
standard deviation are of RGB values scaled to 0..1.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ResNeSt.common.ais_bench_names import stem
from ResNeSt.common.arguments import LARGEST_SIDE
from ResNeSt.common.errors import ArgumentError, PipelineError
from ResNeSt.common.files import PathLike, read_json, write_json
from ResNeSt.images.recipes import RECIPES

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Shape of a ResNeSt (paper: arXiv 2004.08955, section 3).

    `width` is the channels of one group at 64 planes (64 in `2s1x64d`); `planes` are the four stages' base widths.
    """

    layers: tuple[int, ...]
    radix: int
    cardinality: int
    width: int
    stem_width: int
    avd_first: bool
    planes: tuple[int, ...] = (64, 128, 256, 512)


@dataclasses.dataclass(frozen=True)
class Published:
    """An accuracy on ImageNet's 50,000 validation images, in percent, with the recipe that it was measured with."""

    recipe: str
    top1: float
    top5: float | None
    source: str


@dataclasses.dataclass(frozen=True)
class Card:
    """One weight file: architecture, recipe, input size in pixels, what was published of it, and where it is.

    `multiply_adds` are of all convolutions and the classifier for one image of `size`. A user's own card knows neither
    these nor `parameters`, `url`, `bytes`, `sha256`, `licence` and `published`. `class_names` is None for ImageNet's.
    """

    name: str
    architecture: Architecture
    recipe: str
    size: int
    classes: int
    parameters: int | None = None
    multiply_adds: int | None = None
    url: str | None = None
    sha256: str | None = None
    bytes: int | None = None
    licence: str | None = None
    published: tuple[Published, ...] = ()
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    class_names: tuple[str, ...] | None = None

    @property
    def own(self) -> Published | None:
        """What was published for the card's own recipe."""
        return next((accuracy for accuracy in self.published if accuracy.recipe == self.recipe), None)

    @property
    def top1(self) -> float | None:
        """The accuracy published for the card's own recipe, in percent."""
        return self.own.top1 if self.own else None


def names() -> list[str]:
    """Names of all published cards, in the order of the file."""
    return list(_CARDS)


def card(name: str) -> Card:
    """The card called `name`, or the one in the user's file `name`, which then ends in .json.

    Raises ArgumentError with the known names where there is none, PipelineError where the file is no card.
    """
    if name.endswith(".json"):
        return read_card(name)
    try:
        return _CARDS[name]
    except KeyError:
        raise ArgumentError(
            f"unknown model {name!r}; known: {', '.join(_CARDS)}, or your own card, a file that ends in .json"
        ) from None


def find_card(path: PathLike) -> Card | None:
    """The card of a checkpoint: the file beside it, else the one that its name speaks of, None where neither is.

    `resnest50-528c19ca.pth` is of resnest50.
    """
    beside = card_beside(path)
    return read_card(beside) if beside.is_file() else _CARDS.get(stem(path).split("-", 1)[0])


def card_beside(path: PathLike) -> Path:
    """Where a checkpoint's own card lies: `best.json` beside `best.pth` or `best.pth.tar`."""
    path = Path(path)
    name = path.stem if path.suffix != ".tar" else Path(path.stem).stem
    return path.with_name(f"{name}.json")


def read_card(path: PathLike) -> Card:
    """A user's card, named after its file; what it leaves out comes from the published card of its architecture.

    Raises PipelineError where the file says something that cannot be.
    """
    fields = read_json(path)
    if not isinstance(fields, dict) or set(fields) - _OWN_FIELDS or "architecture" not in fields:
        unexpected = sorted(set(fields) - _OWN_FIELDS) if isinstance(fields, dict) else type(fields).__name__
        raise PipelineError(
            f"{path}: not a card (unexpected: {unexpected}); expected an object with architecture and, where they "
            f"differ from the published card's, {', '.join(sorted(_OWN_FIELDS - {'architecture'}))}"
        )
    try:
        model_card = _own(stem(path), fields)
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise PipelineError(f"{path}: not a card ({type(error).__name__}: {error})") from None
    return model_card


def _own(name: str, fields: dict[str, Any]) -> Card:
    architecture = fields["architecture"]
    base = _CARDS[architecture if isinstance(architecture, str) else "resnest50"]
    class_names = fields.get("class_names")
    for key in ("class_names", "mean", "std"):
        if not isinstance(fields.get(key, []), list):
            raise ValueError(f"{key} is {fields[key]!r}, expected a list")
    model_card = Card(
        name=name,
        architecture=base.architecture if isinstance(architecture, str) else _architecture(architecture),
        recipe=fields.get("recipe", base.recipe),
        size=fields.get("size", base.size),
        classes=fields.get("classes", base.classes if class_names is None else len(class_names)),
        mean=tuple(map(float, fields.get("mean", base.mean))),
        std=tuple(map(float, fields.get("std", base.std))),
        class_names=None if class_names is None else tuple(map(str, class_names)),
    )
    _check(model_card)
    return model_card


def _check(model_card: Card) -> None:
    """Raises ValueError for what no network or picture can be."""
    if not re.fullmatch(r"[\w-]+", model_card.name, re.ASCII):
        raise ValueError(f"the name {model_card.name!r} goes into file names; use letters, digits, _ and -")
    shape = model_card.architecture
    numbers = [*shape.layers, *shape.planes, shape.radix, shape.cardinality, shape.width, shape.stem_width]
    if {len(shape.layers), len(shape.planes)} != {4} or not all(
        type(value) is int and 0 < value <= 9999 for value in numbers
    ):
        raise ValueError("architecture takes four layers, four planes, and whole numbers above 0, to 9,999")
    if type(shape.avd_first) is not bool:  # a text is true, whatever it says, and the shapes are those of false
        raise ValueError(f"architecture.avd_first is {shape.avd_first!r}, expected true or false")
    if model_card.recipe not in RECIPES:
        raise ValueError(f"recipe {model_card.recipe!r}, expected one of {', '.join(RECIPES)}")
    sizes = ((model_card.size, LARGEST_SIDE), (model_card.classes, 1_000_000))
    if not all(type(value) is int and 0 < value <= most for value, most in sizes):
        raise ValueError(
            f"size {model_card.size!r} and classes {model_card.classes!r}, expected whole numbers from 1 to 4,096, "
            "and to 1,000,000"
        )
    if not are_moments(model_card.mean, model_card.std):
        raise ValueError("mean and std take three numbers each, std above 0 (from 0.000001), none beyond 1,000")
    if model_card.class_names is not None and len(model_card.class_names) != model_card.classes:
        raise ValueError(f"{len(model_card.class_names)} class_names, expected {model_card.classes}")


def are_moments(mean: Sequence[float], std: Sequence[float]) -> bool:
    """Whether these can be mean and standard deviation of three channels: finite in float32, and so is 1 / std."""
    within = all(-1000 <= value <= 1000 for value in mean) and all(1e-6 <= value <= 1000 for value in std)
    return len(mean) == len(std) == 3 and within


def write_card(model_card: Card, path: PathLike) -> None:
    """Writes what a user's card file holds; `read_card` gives it back under the name of the file."""
    write_json(path, _own_fields(model_card))


def card_text(model_card: Card, classes: int) -> str:
    """What a card file says of the same network with another number of classes, in one line."""
    other = dataclasses.replace(model_card, classes=classes, class_names=None)
    is_published = model_card == _CARDS.get(model_card.name)
    fields = {"architecture": model_card.name, "classes": classes} if is_published else _own_fields(other)
    return json.dumps(fields)


def _own_fields(model_card: Card) -> dict[str, Any]:
    fields = dataclasses.asdict(model_card)
    return {key: value for key, value in fields.items() if key in _OWN_FIELDS and value is not None}


def _architecture(fields: dict[str, Any]) -> Architecture:
    converted: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()
    }
    return Architecture(**converted)


def _published(name: str, fields: dict[str, Any]) -> Card:
    converted = {
        "architecture": _architecture(fields["architecture"]),
        "published": tuple(Published(**accuracy) for accuracy in fields["published"]),
    }
    return Card(name=name, **{**fields, **converted})


_OWN_FIELDS = {"architecture", "recipe", "size", "classes", "mean", "std", "class_names"}
_CARDS = {name: _published(name, fields) for name, fields in read_json(Path(__file__).with_name("cards.json")).items()}
