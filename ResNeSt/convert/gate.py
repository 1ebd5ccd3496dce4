"""The gate that a model compiled for a CPU has to pass: how near it is to fp32 on tensors held out."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from ResNeSt.common.ais_bench_names import stem
from ResNeSt.common.errors import PipelineError
from ResNeSt.common.progress import Say, silent
from ResNeSt.compare.agreement import Agreement, agreement
from ResNeSt.compare.parting import Layers
from ResNeSt.convert.calibration import sha256_of
from ResNeSt.engines.engine import run_images
from ResNeSt.engines.opening import open_engine
from ResNeSt.engines.tensor_batches import Normalisation, adapter, stack
from ResNeSt.models.onnx_file import Network
from ResNeSt.tensors.folder import TensorFile

WORST_LAYERS, COMPARED_IMAGES = 5, 8


def measure(network: Network, model: Path, held_out: Sequence[TensorFile]) -> Agreement:
    """Runs a compiled model, and the network in fp32, on the held-out tensors."""
    engine = open_engine(model)
    size = engine.input.shape[0]
    truth = open_engine(network.path, "onnxruntime", size)
    normalisation = Normalisation(*network.normalisation) if engine.input.dtype == "uint8" else None
    adapt = adapter(network.shape(1)[1:], "float32", engine.input, normalisation)
    if adapt is None:
        raise PipelineError(f"{model}: takes {engine.input.dtype} {list(engine.input.shape)}, not the network's input")
    total = Agreement()
    for start in tqdm(range(0, len(held_out), size), "judge", unit="batch", disable=None):
        files = held_out[start : start + size]
        images = stack(files, network.shape(1)[1:], "float32")
        actual = run_images(engine, adapt(images))
        total += agreement([stem(file.path) for file in files], actual, run_images(truth, images))
    return total


@dataclasses.dataclass(frozen=True)
class Gate:
    """What a model compiled for a CPU must pass: `minimum` share of the held-out tensors with the top-1 of fp32."""

    network: Network
    held_out: list[TensorFile]
    minimum: float
    say: Say = silent

    @functools.cached_property
    def tensors(self) -> str:
        """Hex SHA-256 of the held-out tensors."""
        return sha256_of(self.held_out)

    def check(self, model: Path, source: Path, name: str) -> float:
        """Says how near `model`, compiled from `source`, is to fp32; raises PipelineError where it is too far.

        Returns the share of the held-out tensors with the top-1 of fp32.
        """
        measured = measure(self.network, model, self.held_out)
        self.say(
            f"{name}: top-1 as fp32 for {100 * measured.top1:.1f} %, cosine {measured.cosine:.4f}, largest difference "
            f"{measured.difference:.1e} of the largest logit ({measured.images} held-out tensors)"
        )
        if not measured.top1 >= self.minimum:
            quantized = source != self.network.path
            lost = f"; furthest off: {', '.join(self._worst_layers(source))}" if quantized else ""
            raise PipelineError(
                f"{name}: not written: agrees with fp32 on {measured.top1:.3f} of the images, --min-agreement is "
                f"{self.minimum}{lost}"
            )
        return measured.top1

    def _worst_layers(self, quantized: Path) -> list[str]:
        """The layers of the quantized ONNX file that are furthest from the network's, with their relative distance."""
        images = stack(self.held_out[:COMPARED_IMAGES], self.network.shape(1)[1:], "float32")
        worst = Layers(self.network.path, quantized).worst(images)
        return [f"{layer.node} {layer.distance:.3f}" for layer in worst[:WORST_LAYERS]]
