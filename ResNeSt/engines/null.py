"""An engine that computes nothing: what is left when it runs is the harness."""

from __future__ import annotations

import numpy as np

from ResNeSt.engines.engine import Engine


class NullEngine:
    """Has another engine's input and returns zeros."""

    title = "null"

    def __init__(self, like: Engine) -> None:
        self.input, self.sizes = like.input, like.sizes
        self.info = like.info
        self.instances = like.instances
        self.probabilities = like.probabilities
        self._logits = np.zeros_like(like.run(np.zeros(like.input.shape, like.input.dtype)))

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Zeros, float32 (N, classes)."""
        return self._logits[: len(batch)]

    def another(self) -> NullEngine:
        """Itself: nothing of it changes."""
        return self
