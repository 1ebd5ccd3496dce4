"""PyTorch on the CPU, eager, float32: the reference that every other engine is compared with."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

import numpy as np
import torch

from ResNeSt.cards import card, card_of_file
from ResNeSt.checkpoint import load
from ResNeSt.engines import TensorSpec
from ResNeSt.metadata import describe
from ResNeSt.models.resnest import create_model


class TorchEngine:
    """A checkpoint in its network's textbook form."""

    def __init__(self, path: Path, batch: int, arch: Optional[str], device: int) -> None:
        self.title = f"PyTorch {torch.__version__}"
        found = card(arch) if arch else card_of_file(path)
        self.input = TensorSpec("actual_input_1", (batch, 3, found.size, found.size), "float32")
        self.info = describe(found, found.size, path.name)
        self._model = create_model(found)
        load(self._model, path)
        self._model.eval()

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Logits, float32 (N, classes)."""
        with torch.inference_mode():
            logits: np.ndarray = self._model(torch.from_numpy(batch)).numpy()
        return logits


open_model = TorchEngine
