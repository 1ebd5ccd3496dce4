"""The check that an exported file passes before it gets its name: on random images the logits of its source.

Where they differ, a reference that is more exact than the source tells the two reasons apart: an export that is wrong,
and a network that turns float32's own rounding into a large difference (on noise, some do).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Callable, NamedTuple

import numpy as np

from ResNeSt.common.errors import PipelineError

SEED = 0
BATCHES = (1, 3)
# Largest difference, relative to the largest logit: float32 rounding stays far below in a well-conditioned network.
TOLERANCE = 1e-4
# Of two float32 computations of one function, one may be this many times as far from the exact one as the other.
ROUNDINGS = 10

Logits = Callable[[np.ndarray], np.ndarray]


class Same(NamedTuple):
    """The largest difference on noise, relative to the largest logit, and what is to be told of it, if anything."""

    difference: float
    note: str = ""


class _Off(NamedTuple):
    """Largest differences from the expected logits, and of those from the exact ones, relative to the largest."""

    difference: float
    rounding: float


def check_same(
    target: Path,
    actual: Logits,
    expected: Logits,
    exact: Logits,
    shape: Sequence[int],
    batches: Sequence[int],
    names: tuple[str, str],
    weights: str,
) -> Same:
    """How far `actual` is from `expected`, which must be no further than rounding takes it.

    All turn seeded float32 images (N, *shape), N each of `batches`, into logits (N, classes); `exact` does what
    `expected` does with less rounding, or with another one, and is asked only where the two differ. `names` are those
    of the two, `weights` what to suspect. Raises PipelineError where they differ by more than 1e-4, and by more than
    ten times what `expected` is from `exact`, on noise or on smooth pictures, or where one is not finite.
    """
    noise = _measure(actual, expected, None, [_noise(batch, shape) for batch in batches], target, names, weights)
    if noise.difference <= TOLERANCE:
        return Same(noise.difference)
    kinds = {"noise": _noise, "smooth pictures": _pictures}
    off = {
        kind: _measure(actual, expected, exact, [make(batch, shape) for batch in batches], target, names, weights)
        for kind, make in kinds.items()
    }
    for kind, (difference, rounding) in off.items():
        if difference > max(TOLERANCE, ROUNDINGS * rounding):
            raise PipelineError(
                f"{target}: not written: wrongly exported: on {kind} {' and '.join(names)} differ by {difference:.1e} "
                f"of the largest logit, {TOLERANCE:.0e} is allowed and {rounding:.1e} is rounding; report it"
            )
    told = " and ".join(f"{found.difference:.1e} on {kind}" for kind, found in off.items())
    return Same(
        noise.difference,
        f"the network is ill-conditioned: rounding alone moves {names[1]}'s logits by {off['noise'].rounding:.1e} of "
        f"the largest on noise; the export differs by {told}, which is as near as float32 comes",
    )


def nudged(logits: Logits) -> Logits:
    """The same function of images that are a float32 step away: what rounding does to it, without float64."""

    def of(images: np.ndarray) -> np.ndarray:
        away = np.random.default_rng(SEED).choice([-np.inf, np.inf], images.shape).astype(np.float32)
        return logits(np.nextafter(images, away))

    return of


def _measure(
    actual: Logits,
    expected: Logits,
    exact: Logits | None,
    batches: Sequence[np.ndarray],
    target: Path,
    names: tuple[str, str],
    weights: str,
) -> _Off:
    differences, roundings = [], []
    for images in batches:
        ours, theirs = actual(images), expected(images)
        if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
            raise PipelineError(
                f"{target}: not written: {' or '.join(names)} gives logits that are not finite; are {weights} finite?"
            )
        largest = float(np.abs(theirs).max()) or 1
        differences.append(float(np.abs(ours - theirs).max()) / largest)
        roundings.append(float(np.abs(theirs - exact(images)).max()) / largest if exact else 0.0)
    return _Off(max(differences), max(roundings))


def _noise(batch: int, shape: Sequence[int]) -> np.ndarray:
    return np.random.default_rng(SEED + batch).standard_normal((batch, *shape)).astype(np.float32)


def _pictures(batch: int, shape: Sequence[int]) -> np.ndarray:
    """Patches of 1/4 of the side, which are nearer to photographs than noise is."""
    channels, height, width = shape
    coarse = np.random.default_rng(SEED + batch).standard_normal((batch, channels, 4, 4)).astype(np.float32)
    return coarse[:, :, np.arange(height) * 4 // height][:, :, :, np.arange(width) * 4 // width]
