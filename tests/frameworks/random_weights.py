"""Weights and statistics as a trained network might have them, so that every entry shows in the logits."""

from __future__ import annotations

import numpy as np

SIZE, CLASSES = 64, 7


def values(kind: str, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """float32 values of an entry: `kind` is scale, shift, or weight (of a layer whose first axis are the outputs)."""
    if kind == "scale":
        made = random.uniform(0.5, 1.5, shape)
    elif kind == "shift":
        made = random.normal(0, 0.3, shape)
    else:
        made = random.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
    return made.astype(np.float32)


def images(random: np.random.Generator) -> np.ndarray:
    """float32 (2, 3, SIZE, SIZE)."""
    return random.standard_normal((2, 3, SIZE, SIZE)).astype(np.float32)
