"""The gate that a model compiled for a CPU has to pass: how near it is to fp32 on tensors held out."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ResNeSt.common.ais_bench_names import stem
from ResNeSt.common.errors import PipelineError
from ResNeSt.common.progress import Say, hidden, silent
from ResNeSt.compare.agreement import Agreement, agreement, ratio
from ResNeSt.convert.calibration import sha256_of
from ResNeSt.convert.layer_cost import LayerCost, layer_costs
from ResNeSt.engines.engine import run_images
from ResNeSt.engines.opening import open_engine
from ResNeSt.engines.tensor_batches import Normalisation, adapter, stack
from ResNeSt.models.onnx_file import Network
from ResNeSt.score.ranking import top_k_predictions
from ResNeSt.tensors.folder import TensorFile

WORST_LAYERS, COMPARED_IMAGES = 5, 8
ONE_ANSWER = 0.95  # a larger share of one class among the answers, and agreeing with them proves nothing
# Of what the logits of fp32 vary by from image to image: the demo in int8 is 0.11 off, a model that was calibrated on
# noise 0.33, one that answers by chance 1.
FURTHEST = 0.5
BATCH = 8  # of fp32, and of models that leave it free


@dataclasses.dataclass(frozen=True)
class Gate:
    """What a model compiled for a CPU must pass: `minimum` share of the held-out tensors with the top-1 of fp32.

    And its logits must be near those of fp32. With a minimum of 0 nothing is refused.
    """

    network: Network
    held_out: list[TensorFile]
    minimum: float
    say: Say = silent

    @functools.cached_property
    def tensors(self) -> str:
        """Hex SHA-256 of the held-out tensors."""
        return sha256_of(self.held_out)

    @functools.cached_property
    def _expected(self) -> np.ndarray:
        """Logits of fp32, (tensors, classes)."""
        engine = open_engine(self.network.path, "onnxruntime", BATCH)
        return np.concatenate([run_images(engine, images) for images in self._images(BATCH)])

    def _images(self, size: int) -> Iterator[np.ndarray]:
        """The held-out tensors, (N, 3, height, width) of at most `size` each."""
        for start in tqdm(range(0, len(self.held_out), size), "judge", unit="batch", disable=hidden()):
            yield stack(self.held_out[start : start + size], self.network.shape(1)[1:], "float32")

    def check_tensors(self) -> None:
        """Raises PipelineError where fp32 gives the held-out tensors one answer; with a minimum of 0 says so instead.

        Needs ONNX Runtime.
        """
        counts = np.bincount(top_k_predictions(self._expected)[:, 0])
        if counts.max() <= ONE_ANSWER * counts.sum():
            return
        found = f"fp32 gives {counts.max()} of {counts.sum()} held-out tensors one answer, class {counts.argmax()}"
        if self.minimum > 0:
            raise PipelineError(
                f"{Path(self.held_out[0].path).parent}: {found}, which judges nothing; take pictures of several "
                "classes, such as the model will see, or accept whatever comes out with --min-agreement 0"
            )
        self.say(f"note: {found}, which judges nothing")

    def check(self, model: Path, source: Path, name: str) -> dict[str, Any]:
        """Says how near `model`, compiled from `source`, is to fp32; raises PipelineError where it is too far.

        Returns what is to be recorded: `agreement`, the share of the held-out tensors with the top-1 of fp32,
        `distance`, that of the logits, relative to what those of fp32 vary by from image to image, and of a quantized
        one `layer_costs`: on how many images, and what int8 costs each of its layers (LayerCost).
        """
        self.check_tensors()
        measured = self._measure(model)
        spread = float(np.linalg.norm(self._expected - self._expected.mean(axis=0)))
        distance = ratio(math.sqrt(measured.squared_difference), spread)
        self.say(
            f"{name}: top-1 as fp32 for {100 * measured.top1:.1f} %, cosine {measured.cosine:.4f}, distance "
            f"{distance:.2f} of the spread of the logits, largest difference {measured.difference:.1e} of the largest "
            f"logit ({measured.images} held-out tensors)"
        )
        judged = {"agreement": measured.top1, "distance": distance}
        costs = self._layer_costs(source) if source != self.network.path else []
        if not self.passes(judged):
            lost = f"; furthest off: {', '.join(_furthest_off(costs))}" if costs else ""
            raise PipelineError(
                f"{name}: not written: agrees with fp32 on {measured.top1:.3f} of the images, --min-agreement is "
                f"{self.minimum}, and is off by {distance:.2f} of the spread of the logits, {FURTHEST} is allowed{lost}"
            )
        told = {"images": len(self._compared), "layers": [cost._asdict() for cost in costs]}
        return {**judged, **({"layer_costs": told} if costs else {})}

    def passes(self, judged: Mapping[str, Any]) -> bool:
        """Whether a model of which `check` recorded this is as good as is asked for."""
        agreement, distance = judged.get("agreement"), judged.get("distance")
        if agreement is None or distance is None:
            return False
        return self.minimum <= 0 or bool(agreement >= self.minimum and distance <= FURTHEST)

    def _measure(self, model: Path) -> Agreement:
        engine = open_engine(model, None, BATCH)
        size = engine.input.shape[0]
        normalisation = Normalisation(*self.network.normalisation) if engine.input.dtype == "uint8" else None
        adapt = adapter(self.network.shape(1)[1:], "float32", engine.input, normalisation)
        if adapt is None:
            raise PipelineError(
                f"{model}: takes {engine.input.dtype} {list(engine.input.shape)}, not the network's input"
            )
        actual = np.concatenate([run_images(engine, adapt(images)) for images in self._images(size)])
        return agreement([stem(file.path) for file in self.held_out], actual, self._expected)

    @property
    def _compared(self) -> list[TensorFile]:
        return self.held_out[:COMPARED_IMAGES]

    @functools.cached_property
    def _known_costs(self) -> dict[Path, list[LayerCost]]:
        return {}

    def _layer_costs(self, quantized: Path) -> list[LayerCost]:
        """Of the layers of a quantized ONNX file, once; none where they cannot be had, which keeps no model back."""
        if quantized not in self._known_costs:
            images = stack(self._compared, self.network.shape(1)[1:], "float32")
            try:
                self._known_costs[quantized] = layer_costs(self.network, quantized, images)
            except Exception as error:  # the errors of ONNX and ONNX Runtime share no base class
                self.say(f"note: {quantized.name}: what int8 costs each layer could not be measured ({error})")
                self._known_costs[quantized] = []
        return self._known_costs[quantized]


def _furthest_off(costs: Sequence[LayerCost]) -> list[str]:
    """The layers of the int8 network that are furthest from fp32's, with their relative distance."""
    worst = sorted(costs, key=lambda cost: np.nan_to_num(cost.together, nan=np.inf), reverse=True)
    return [f"{cost.name} {cost.together:.3f}" for cost in worst[:WORST_LAYERS]]
