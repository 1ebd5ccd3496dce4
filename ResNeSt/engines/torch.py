"""PyTorch on the CPU, eager, float32: the reference that every other engine is compared with."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import torch

from ResNeSt.common.cores import cores
from ResNeSt.common.errors import ArgumentError
from ResNeSt.engines.engine import ANY_SIZE, Opening, TensorSpec
from ResNeSt.models.checkpoint import card_for, load
from ResNeSt.models.model_info import INPUT, describe
from ResNeSt.models.resnest import create_model


class TorchEngine:
    """A checkpoint in its network's textbook form."""

    sizes = ANY_SIZE

    def __init__(self, path: Path, asked: Opening) -> None:
        if asked.instances not in (None, 1):
            raise ArgumentError(f"{path}: PyTorch runs one instance, on all cores; leave --instances out")
        torch.set_num_threads(min(torch.get_num_threads(), cores()))
        model_card = card_for(path, asked.arch)
        self.input = TensorSpec(INPUT, (asked.batch, 3, model_card.size, model_card.size), "float32")
        # Of networks with the same shapes it tells which one this is.
        architecture = json.dumps(dataclasses.asdict(model_card.architecture))
        self.info = {**describe(model_card, model_card.size, path.name), "architecture": architecture}
        self.probabilities = False
        self.instances = 1
        self._model = create_model(model_card)
        weights = load(self._model, path, asked.ema, model_card)
        self._model.eval()
        self.title = ", ".join(filter(None, (f"PyTorch {torch.__version__}", str(weights))))

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Logits, float32 (N, classes)."""
        with torch.inference_mode():
            logits: np.ndarray = self._model(torch.from_numpy(batch)).numpy()
        return logits

    def another(self) -> TorchEngine:
        """Itself."""
        return self


open_model = TorchEngine
