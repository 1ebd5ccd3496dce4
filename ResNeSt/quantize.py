"""int8 for a CPU: post-training quantization of the simplified ONNX, and the gate that a compiled model has to pass.

Calibration and gate take different tensors of one folder. Weights are quantized per output channel; the attention
branches, which work on one pixel a channel and cost no time, stay in floating point.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import io
import logging
import re
from pathlib import Path
from typing import Dict, List, NamedTuple, Sequence

import numpy as np
from tqdm import tqdm

from ResNeSt import onnx_header
from ResNeSt.agreement import Agreement, agreement
from ResNeSt.engines import open_engine, run_images
from ResNeSt.errors import MissingRuntimeError, PipelineError
from ResNeSt.files import PathLike, stem, whole
from ResNeSt.layers import Layers
from ResNeSt.metadata import SECTION
from ResNeSt.model_files import sha256_of_model
from ResNeSt.network import Network
from ResNeSt.tensors import TensorFile, check_tensors, find_tensors, read_bytes, read_tensor, spread

CALIBRATED, HELD_OUT = 128, 64
FEWEST = 12
# The attention branches: a rewritten one as a whole (WeighedSum of ResNeSt.rewrites), of others the two convolutions.
FLOAT_BRANCHES = [".*/weigh/.*", ".*/fc[12]/.*"]
PER_CHANNEL_OPSET = 13  # QuantizeLinear takes an axis from here on
WORST_LAYERS, COMPARED_IMAGES = 5, 8


def is_float_branch(node: str) -> bool:
    """Whether a node of this name is of an attention branch."""
    return any(re.fullmatch(pattern, node) for pattern in FLOAT_BRANCHES)


class Tensors(NamedTuple):
    """Tensors to calibrate with, and others to judge the result by."""

    calibration: List[TensorFile]
    held_out: List[TensorFile]


def choose(folder: PathLike, network: Network) -> Tensors:
    """192 tensors at even distances over the folder, or all if it has fewer: two to calibrate, one held out, in turn.

    Raises PipelineError unless the folder holds float32 tensors of the network's size, at least 12.
    """
    check_tensors(folder, network.shape(1), "float32", network.info)
    files = find_tensors(folder) if Path(folder).is_dir() else []
    if len(files) < FEWEST:
        raise PipelineError(
            f"{folder}: {len(files)} tensors, calibration takes {FEWEST} and better {CALIBRATED + HELD_OUT}; "
            "make float32 tensors with resnest_preprocess.py"
        )
    chosen = spread(files, CALIBRATED + HELD_OUT)
    return Tensors([file for index, file in enumerate(chosen) if index % 3 != 2], chosen[2::3])


def describe(source: Path, tensors: Tensors) -> Dict[str, str]:
    """What a quantized file is made of, as it says itself."""
    folder = Path(tensors.calibration[0].path).parent
    calibration = f"{len(tensors.calibration)} tensors of {folder.name} sha256:{sha256_of(tensors.calibration)}"
    return {
        f"{SECTION}.quantized": f"{source.name} sha256:{sha256_of_model(source)}",
        f"{SECTION}.calibration": calibration,
    }


def sha256_of(tensors: Sequence[TensorFile]) -> str:
    """Hex SHA-256 of the tensors, one after the other."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(read_bytes(tensor))
    return digest.hexdigest()


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
    bar = tqdm(desc="calibrate", total=len(tensors.calibration), unit="img", disable=None)

    def images(file: TensorFile) -> Dict[str, np.ndarray]:
        bar.update()
        return {network.input_name: _images(network, [file])}

    batches = nncf.Dataset(list(tensors.calibration), images)
    try:
        model = onnx.version_converter.convert_version(onnx.load(str(network.path)), PER_CHANNEL_OPSET)
        with contextlib.redirect_stdout(io.StringIO()), bar:  # NNCF paints bars of its own
            quantized = nncf.quantize(
                model,
                batches,
                preset=nncf.QuantizationPreset.MIXED,
                subset_size=len(tensors.calibration),
                ignored_scope=nncf.IgnoredScope(patterns=FLOAT_BRANCHES, validate=False),
            )
    except Exception as error:  # the errors of NNCF, ONNX and what they call share no base class
        raise PipelineError(f"{network.path}: cannot be quantized: {error}") from error
    metadata = {**onnx_header.read(network.path).metadata, **describe(network.path, tensors)}
    onnx.helper.set_model_props(quantized, metadata)
    with whole(target) as temporary:
        onnx.save(quantized, str(temporary))


def _images(network: Network, files: Sequence[TensorFile]) -> np.ndarray:
    """float32 (N, 3, H, W) of the tensors."""
    return np.stack([read_tensor(file, network.shape(1)[1:], "float32") for file in files])


def measure(network: Network, model: Path, held_out: Sequence[TensorFile]) -> Agreement:
    """Runs a compiled model, and the network in fp32, on the held-out tensors."""
    engine = open_engine(model)
    size = engine.input.shape[0]
    truth = open_engine(network.path, "onnxruntime", size)
    total = Agreement()
    for start in tqdm(range(0, len(held_out), size), "judge", unit="batch", disable=None):
        files = held_out[start : start + size]
        images = _images(network, files)
        found = run_images(engine, _as_input(network, images, engine.input.dtype))
        total += agreement([stem(file.path) for file in files], found, run_images(truth, images))
    return total


def _as_input(network: Network, batch: np.ndarray, dtype: str) -> np.ndarray:
    """The batch as a model with the normalisation inside takes it: the uint8 levels that it was made of, NHWC."""
    if dtype == "float32":
        return batch
    levels = (batch.transpose(0, 2, 3, 1) * network.std + network.mean) * 255
    return np.ascontiguousarray(np.rint(levels).astype(np.uint8))


@dataclasses.dataclass(frozen=True)
class Gate:
    """What a model compiled for a CPU must pass: `minimum` share of the held-out tensors with the top-1 of fp32."""

    network: Network
    held_out: List[TensorFile]
    minimum: float

    @functools.cached_property
    def tensors(self) -> str:
        """Hex SHA-256 of the held-out tensors."""
        return sha256_of(self.held_out)

    def check(self, model: Path, source: Path, name: str) -> float:
        """Prints how near `model`, compiled from `source`, is to fp32; raises PipelineError where it is too far.

        Returns the share of the held-out tensors with the top-1 of fp32.
        """
        found = measure(self.network, model, self.held_out)
        tqdm.write(
            f"{name}: top-1 as fp32 for {100 * found.top1:.1f} %, cosine {found.cosine:.4f}, largest difference "
            f"{found.difference:.1e} of the largest logit ({found.images} held-out tensors)",
        )
        if not found.top1 >= self.minimum:
            quantized = source != self.network.path
            lost = f"; furthest off: {', '.join(self._worst_layers(source))}" if quantized else ""
            raise PipelineError(
                f"{name}: not written: agrees with fp32 on {found.top1:.3f} of the images, --min-agreement is "
                f"{self.minimum}{lost}"
            )
        return found.top1

    def _worst_layers(self, quantized: Path) -> List[str]:
        """The layers of the quantized ONNX file that are furthest from the network's, with their relative distance."""
        worst = Layers(self.network.path, quantized).worst(_images(self.network, self.held_out[:COMPARED_IMAGES]))
        return [f"{layer.node} {layer.distance:.3f}" for layer in worst[:WORST_LAYERS]]
