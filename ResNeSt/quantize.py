"""int8 for a CPU: post-training quantization of the simplified ONNX, and the gate that a compiled model has to pass.

Calibration and gate take different tensors of one folder. Weights are quantized per output channel; the attention
branches, which work on one pixel a channel and cost no time, stay in floating point.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Sequence

import numpy as np

from ResNeSt import onnx_header
from ResNeSt.engines import open_engine
from ResNeSt.errors import MissingRuntimeError, PipelineError
from ResNeSt.files import PathLike, sha256, whole
from ResNeSt.metadata import SECTION
from ResNeSt.network import Network
from ResNeSt.tensors import check_tensors, list_tensors

CALIBRATED, HELD_OUT = 128, 64
FEWEST = 12
# The attention branches: a rewritten one as a whole (WeighedSum of ResNeSt.rewrites), of others the two convolutions.
FLOAT_BRANCHES = [".*/weigh/.*", ".*/fc[12]/.*"]
PER_CHANNEL_OPSET = 13  # QuantizeLinear takes an axis from here on
WORST_LAYERS, COMPARED_IMAGES = 5, 8


class Tensors(NamedTuple):
    """Tensor files to calibrate with, and others to judge the result by."""

    calibration: List[Path]
    held_out: List[Path]


class Closeness(NamedTuple):
    """How near logits are to the reference's: share of equal top-1, mean cosine, largest difference.

    The difference is relative to the largest logit.
    """

    top1: float
    cosine: float
    difference: float

    def __str__(self) -> str:
        return (
            f"top-1 as fp32 for {100 * self.top1:.1f} %, cosine {self.cosine:.4f}, "
            f"largest difference {self.difference:.1e} of the largest logit"
        )


def choose(folder: PathLike, network: Network) -> Tensors:
    """192 tensors at even distances over the folder, or all if it has fewer: two to calibrate, one held out, in turn.

    Raises PipelineError unless the folder holds float32 tensors of the network's size, at least 12.
    """
    check_tensors(folder, network.shape(1), "float32")
    names = list_tensors(folder) if Path(folder).is_dir() else []
    if len(names) < FEWEST:
        raise PipelineError(
            f"{folder}: {len(names)} tensors, calibration takes {FEWEST} and better {CALIBRATED + HELD_OUT}; "
            "make float32 tensors with resnest_preprocess.py"
        )
    places = np.linspace(0, len(names) - 1, min(len(names), CALIBRATED + HELD_OUT)).astype(int)
    chosen = [Path(folder, names[place]) for place in places]
    return Tensors([path for index, path in enumerate(chosen) if index % 3 != 2], chosen[2::3])


def describe(source: Path, tensors: Tensors) -> Dict[str, str]:
    """What a quantized file is made of, as it says itself."""
    return {
        f"{SECTION}.quantized": f"{source.name} sha256:{sha256(source)}",
        f"{SECTION}.calibration": f"{len(tensors.calibration)} tensors of {tensors.calibration[0].parent.name}",
    }


def is_current(target: Path, made_of: Dict[str, str]) -> bool:
    """Whether `target` says that it is made of this."""
    return target.is_file() and made_of.items() <= onnx_header.read(target).metadata.items()


def quantize(network: Network, target: Path, tensors: Tensors) -> None:
    """Writes `network` with int8 weights and activations (QuantizeLinear and DequantizeLinear pairs) to `target`.

    Raises MissingRuntimeError without NNCF, PipelineError where it fails.
    """
    try:
        import nncf
        import onnx
    except ImportError as error:
        raise MissingRuntimeError(f"int8 takes NNCF ({error}); run: pip install -r requirements.txt") from None
    logging.getLogger("nncf").setLevel(logging.ERROR)
    model = onnx.version_converter.convert_version(onnx.load(str(network.path)), PER_CHANNEL_OPSET)
    batches = nncf.Dataset(list(tensors.calibration), lambda path: {network.input_name: _batch(network, [path], 1)})
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it paints progress bars
            quantized = nncf.quantize(
                model,
                batches,
                preset=nncf.QuantizationPreset.MIXED,
                subset_size=len(tensors.calibration),
                ignored_scope=nncf.IgnoredScope(patterns=FLOAT_BRANCHES, validate=False),
            )
    except Exception as error:  # NNCF's errors share no base class with what it calls
        raise PipelineError(f"{network.path}: NNCF cannot quantize it: {error}") from error
    metadata = {**onnx_header.read(network.path).metadata, **describe(network.path, tensors)}
    onnx.helper.set_model_props(quantized, metadata)
    with whole(target) as temporary:
        onnx.save(quantized, str(temporary))


def _batch(network: Network, paths: Sequence[Path], size: int) -> np.ndarray:
    """float32 (size, 3, H, W) of the tensor files, the last one repeated to fill it."""
    shape = network.shape(1)[1:]
    tensors = [np.fromfile(path, np.float32).reshape(shape) for path in paths]
    return np.stack(tensors + tensors[-1:] * (size - len(tensors)))


def measure(network: Network, model: Path, held_out: Sequence[Path]) -> Closeness:
    """Runs a compiled model, and the network in fp32, on the held-out tensors."""
    engine = open_engine(model)
    size = engine.input.shape[0]
    truth = open_engine(network.path, "onnxruntime", size)
    found, expected = [], []
    for start in range(0, len(held_out), size):
        paths = held_out[start : start + size]
        batch = _batch(network, paths, size)
        found.append(engine.run(_as_input(network, batch, engine.input.dtype))[: len(paths)])
        expected.append(truth.run(batch)[: len(paths)])
    return closeness(np.concatenate(found), np.concatenate(expected))


def _as_input(network: Network, batch: np.ndarray, dtype: str) -> np.ndarray:
    """The batch as a model with the normalisation inside takes it: the uint8 levels that it was made of, NHWC."""
    if dtype == "float32":
        return batch
    levels = (batch.transpose(0, 2, 3, 1) * network.std + network.mean) * 255
    return np.ascontiguousarray(np.rint(levels).astype(np.uint8))


def closeness(found: np.ndarray, expected: np.ndarray) -> Closeness:
    """Of logits (N, classes) to the reference's."""
    same = found.argmax(axis=1) == expected.argmax(axis=1)
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    cosine = (found * expected).sum(axis=1) / np.maximum(lengths, np.finfo(np.float32).tiny)
    largest = max(float(np.abs(expected).max()), float(np.finfo(np.float32).tiny))
    return Closeness(float(same.mean()), float(cosine.mean()), float(np.abs(found - expected).max()) / largest)


@dataclasses.dataclass(frozen=True)
class Gate:
    """What a model compiled for a CPU must pass: `minimum` share of the held-out tensors with the top-1 of fp32."""

    network: Network
    held_out: List[Path]
    minimum: float

    def check(self, model: Path, source: Path, name: str) -> None:
        """Prints how near `model`, compiled from `source`, is to fp32; raises PipelineError where it is too far."""
        found = measure(self.network, model, self.held_out)
        print(f"{name}: {found} ({len(self.held_out)} held-out tensors)", flush=True)
        if not found.top1 >= self.minimum:
            lost = f"; furthest off: {', '.join(worst_layers(self.network, source, self.held_out))}"
            raise PipelineError(
                f"{name}: not written: agrees with fp32 on {found.top1:.3f} of the images, --min-agreement is "
                f"{self.minimum}{lost if source != self.network.path else ''}"
            )


def worst_layers(network: Network, quantized: Path, held_out: Sequence[Path]) -> List[str]:
    """The layers of the quantized ONNX file that are furthest from the network's, with their relative distance."""
    batch = _batch(network, held_out[:COMPARED_IMAGES], min(len(held_out), COMPARED_IMAGES))
    expected, found = (dict(_activations(path, network, batch)) for path in (network.path, quantized))
    distances = {
        name: float(np.linalg.norm(found[name] - value)) / max(float(np.linalg.norm(value)), 1e-30)
        for name, value in expected.items()
        if name in found
    }
    worst = sorted(distances, key=distances.__getitem__, reverse=True)[:WORST_LAYERS]
    return [f"{name} {distances[name]:.3f}" for name in worst]


def _activations(path: Path, network: Network, batch: np.ndarray) -> Iterator[Any]:
    """(layer, output) of every convolution and addition of an ONNX file."""
    import onnx
    import onnxruntime

    model = onnx.load(str(path))
    layers = {node.output[0]: node.name for node in model.graph.node if node.op_type in ("Conv", "Add", "Gemm")}
    known = {output.name for output in model.graph.output}
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in layers if name not in known)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    yield from zip(layers.values(), session.run(list(layers), {network.input_name: batch}))
