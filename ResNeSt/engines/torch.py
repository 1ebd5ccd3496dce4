"""PyTorch on the CPU, eager, float32: the reference that every other engine is compared with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ResNeSt.engines.engine import TensorSpec
from ResNeSt.models.cards import card, card_of_file
from ResNeSt.models.checkpoint import load
from ResNeSt.models.model_info import INPUT, describe
from ResNeSt.models.resnest import create_model


class TorchEngine:
    """A checkpoint in its network's textbook form."""

    def __init__(self, path: Path, batch: int, arch: str | None, device: int) -> None:
        self.title = f"PyTorch {torch.__version__}"
        model_card = card(arch) if arch else card_of_file(path)
        self.input = TensorSpec(INPUT, (batch, 3, model_card.size, model_card.size), "float32")
        self.info = describe(model_card, model_card.size, path.name)
        self.probabilities = False
        self._model = create_model(model_card)
        load(self._model, path)
        self._model.eval()

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Logits, float32 (N, classes)."""
        with torch.inference_mode():
            logits: np.ndarray = self._model(torch.from_numpy(batch)).numpy()
        return logits


open_model = TorchEngine
