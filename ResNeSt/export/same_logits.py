"""The check that an exported file passes before it gets its name: on random images the logits of its source."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Callable

import numpy as np

from ResNeSt.common.errors import PipelineError

SEED = 0
BATCHES = (1, 3)
# Largest difference, relative to the largest logit: float32 rounding stays far below.
TOLERANCE = 1e-4

Logits = Callable[[np.ndarray], np.ndarray]


def check_same(
    target: Path,
    actual: Logits,
    expected: Logits,
    shape: Sequence[int],
    batches: Sequence[int],
    names: str,
    weights: str,
) -> float:
    """The largest difference of `actual` from `expected`, relative to the largest logit.

    Both turn seeded float32 images (N, *shape), N each of `batches`, into logits (N, classes). `names` are those of the
    two, `weights` what to suspect. Raises PipelineError where they differ by more than 1e-4, or where one is NaN.
    """
    random = np.random.default_rng(SEED)
    differences = []
    for batch in batches:
        images = random.standard_normal((batch, *shape)).astype(np.float32)
        ours, theirs = actual(images), expected(images)
        largest = float(np.abs(theirs).max())
        differences.append(float(np.abs(ours - theirs).max()) / (largest or 1))
    worst = float(np.max(differences))
    if not worst <= TOLERANCE:  # NaN is not, either
        raise PipelineError(
            f"{target}: not written: {names} differ by {worst:.1e} of the largest logit, "
            f"{TOLERANCE:.0e} is allowed; are {weights} finite?"
        )
    return worst
