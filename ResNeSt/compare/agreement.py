"""How far two stages agree on the same images: the one arithmetic behind compare, run.sh and the gate of convert.sh."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ResNeSt.score.ranking import top_k_predictions


class Flip(NamedTuple):
    """An image with two answers, and by how much each side prefers its own class to the other's, in logits."""

    image: str
    expected: int
    found: int
    expected_margin: float
    found_margin: float


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Sums over images of what is found against what is expected; those of parts of a data set add up.

    `same_top5` counts images with the same five classes in whatever order; `cosines` is a sum, the squares are of
    Euclidean lengths, the largest are absolute values.
    """

    images: int = 0
    same_top1: int = 0
    same_top5: int = 0
    cosines: float = 0.0
    squared_difference: float = 0.0
    squared_expected: float = 0.0
    largest_difference: float = 0.0
    largest_expected: float = 0.0
    flips: tuple[Flip, ...] = ()

    def __add__(self, other: Agreement) -> Agreement:
        return Agreement(
            images=self.images + other.images,
            same_top1=self.same_top1 + other.same_top1,
            same_top5=self.same_top5 + other.same_top5,
            cosines=self.cosines + other.cosines,
            squared_difference=self.squared_difference + other.squared_difference,
            squared_expected=self.squared_expected + other.squared_expected,
            largest_difference=max(self.largest_difference, other.largest_difference),
            largest_expected=max(self.largest_expected, other.largest_expected),
            flips=self.flips + other.flips,
        )

    @property
    def top1(self) -> float:
        """Share of images with the same top-1 class."""
        return self.same_top1 / self.images

    @property
    def top5(self) -> float:
        """Share of images with the same five classes on top."""
        return self.same_top5 / self.images

    @property
    def cosine(self) -> float:
        """Mean cosine between the logits of an image."""
        return self.cosines / self.images

    @property
    def distance(self) -> float:
        """Euclidean distance of all logits, relative to the expected ones' length."""
        return ratio(math.sqrt(self.squared_difference), math.sqrt(self.squared_expected))

    @property
    def difference(self) -> float:
        """Largest difference of a logit, relative to the largest expected one."""
        return ratio(self.largest_difference, self.largest_expected)

    def figures(self) -> dict[str, Any]:
        """The figures for a JSON file; the flips are left out."""
        return {
            "images": self.images,
            "same_top1": self.same_top1,
            "same_top5": self.same_top5,
            "cosine": self.cosine,
            "distance": self.distance,
            "largest_difference": self.largest_difference,
            "difference": self.difference,
        }


class Tolerance(NamedTuple):
    """Share of images that must have the same top-1, and the largest relative difference allowed (None: any)."""

    agreement: float
    difference: float | None = None

    def flags(self) -> list[str]:
        """The same as flags of ResNeSt.compare."""
        difference = [] if self.difference is None else [f"--max-difference={self.difference}"]
        return [f"--min-agreement={self.agreement}", *difference]

    def complaint(self, measured: Agreement) -> str | None:
        """What is out of tolerance in `measured`, or None; NaN is."""
        if not measured.top1 >= self.agreement:
            return (
                f"the same top-1 for {100 * measured.top1:.2f} % of {measured.images} images, "
                f"at least {100 * self.agreement:g} % are expected"
            )
        if self.difference is not None and not measured.difference <= self.difference:
            return (
                f"differs by {measured.difference:.1e} of the largest logit, at most {self.difference:.1e} is expected"
            )
        return None


def agreement(names: Sequence[str], actual: np.ndarray, expected: np.ndarray) -> Agreement:
    """Of logits (N, classes) of the images `names` to the expected ones; raises NotFiniteError where one is no number.

    Of equal logits the lower class ranks higher.
    """
    ours, theirs = top_k_predictions(actual), top_k_predictions(expected)
    difference = np.abs(actual.astype(np.float64) - expected)
    return Agreement(
        images=len(names),
        same_top1=int((ours[:, 0] == theirs[:, 0]).sum()),
        same_top5=int((np.sort(ours) == np.sort(theirs)).all(axis=1).sum()),
        cosines=float(_cosines(actual.astype(np.float64), expected.astype(np.float64)).sum()),
        squared_difference=float(np.square(difference).sum()),
        squared_expected=float(np.square(expected, dtype=np.float64).sum()),
        largest_difference=float(difference.max()),
        largest_expected=float(np.abs(expected).max()),
        flips=tuple(
            Flip(
                image=names[index],
                expected=int(theirs[index, 0]),
                found=int(ours[index, 0]),
                expected_margin=_margin(expected[index], theirs[index, 0], ours[index, 0]),
                found_margin=_margin(actual[index], ours[index, 0], theirs[index, 0]),
            )
            for index in np.flatnonzero(ours[:, 0] != theirs[:, 0]).tolist()
        ),
    )


def _cosines(actual: np.ndarray, expected: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(actual, axis=1) * np.linalg.norm(expected, axis=1)
    return np.asarray((actual * expected).sum(axis=1) / np.maximum(lengths, np.finfo(np.float64).tiny))


def _margin(logits: np.ndarray, best: int, other: int) -> float:
    return float(logits[best]) - float(logits[other])


def ratio(difference: float, size: float) -> float:
    """`difference` relative to `size`; as it is where there is nothing to relate it to."""
    return difference / size if size else difference
