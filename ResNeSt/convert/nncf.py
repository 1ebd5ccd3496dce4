"""int8 for a CPU: post-training quantization of the simplified ONNX, by NNCF.

Weights are quantized per output channel; the attention
branches, which work on one pixel a channel and cost no time, stay in floating point.
"""

from __future__ import annotations

import contextlib
import io
import logging
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ResNeSt.common.errors import MissingRuntimeError, PipelineError
from ResNeSt.common.files import whole
from ResNeSt.common.progress import hidden
from ResNeSt.convert.calibration import FLOAT_BRANCHES, CalibrationTensors, check_described, describe
from ResNeSt.engines.tensor_batches import stack
from ResNeSt.formats import onnx_header
from ResNeSt.models import onnx_file
from ResNeSt.models.onnx_file import Network
from ResNeSt.tensors.folder import TensorFile

PER_CHANNEL_OPSET = 13  # QuantizeLinear takes an axis from here on


def quantize(network: Network, target: Path, tensors: CalibrationTensors) -> None:
    """Writes `network` with int8 weights and activations (QuantizeLinear and DequantizeLinear pairs) to `target`.

    Raises MissingRuntimeError without NNCF, PipelineError where it fails, or where network or tensors change meanwhile.
    """
    try:
        import nncf
        import onnx
    except ImportError as error:
        raise MissingRuntimeError(f"int8 takes NNCF ({error}); run: pip install -r requirements.txt") from None
    made_of = describe(network.path, tensors)
    logging.getLogger("nncf").setLevel(logging.ERROR)
    bar = tqdm(desc="calibrate", total=len(tensors.calibration), unit="img", disable=hidden())

    def images(file: TensorFile) -> dict[str, np.ndarray]:
        bar.update()
        return {network.input_name: stack([file], network.shape(1)[1:], "float32")}

    batches = nncf.Dataset(list(tensors.calibration), images)
    try:
        model = onnx.version_converter.convert_version(onnx_file.load(network.path), PER_CHANNEL_OPSET)
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
    check_described(made_of, network.path, tensors)
    metadata = {**onnx_header.read(network.path).metadata, **made_of}
    onnx.helper.set_model_props(quantized, metadata)
    onnx_file.seal(quantized)
    with whole(target) as temporary:
        onnx.save(quantized, str(temporary))
