"""OpenVINO on the CPU: compiled `.xml`, or `.onnx` as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

import numpy as np
import openvino as ov

from ResNeSt.engines import TensorSpec
from ResNeSt.errors import PipelineError
from ResNeSt.metadata import SECTION

# int8 is in the graph; the hint is for what stays in floating point. Without bf16 in the CPU, OpenVINO takes f32.
PRECISION_HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "bf16"}


class OpenVINOEngine:
    """A model compiled for one batch at a time on all cores, in the precision that its file asks for."""

    def __init__(self, model: ov.Model, precision: str) -> None:
        self.title = f"OpenVINO {ov.__version__.split('-')[0]}"
        compiled = ov.Core().compile_model(
            model,
            "CPU",
            {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": PRECISION_HINTS[precision]},
        )
        port = compiled.input(0)
        self.input = TensorSpec(port.any_name, tuple(port.shape), np.dtype(port.element_type.to_dtype()).name)
        self._request = compiled.create_infer_request()

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Logits, float32 (N, classes)."""
        # share_inputs: the batch is read where it lies; the output is copied out, since the next run overwrites it.
        return np.array(self._request.infer([batch], share_inputs=True)[0], dtype=np.float32)


def open_model(path: Path, batch: int, arch: Optional[str]) -> OpenVINOEngine:
    """Reads `path`; a free batch axis is set to `batch`."""
    try:
        model = ov.Core().read_model(path)
        if model.input(0).partial_shape[0].is_dynamic:
            model.reshape([batch, *list(model.input(0).partial_shape)[1:]])
        return OpenVINOEngine(model, _precision(model))
    except RuntimeError as error:
        reason = str(error).strip().split("\n")[-1]
        raise PipelineError(f"{path}: OpenVINO cannot compile it ({reason}); make it again with convert.sh") from None


def _precision(model: ov.Model) -> str:
    key = [SECTION, "precision"]
    precision = str(model.get_rt_info(key).astype(str)) if model.has_rt_info(key) else "fp32"
    if precision not in PRECISION_HINTS:
        raise RuntimeError(f"its precision is {precision!r}, expected one of {', '.join(PRECISION_HINTS)}")
    return precision
