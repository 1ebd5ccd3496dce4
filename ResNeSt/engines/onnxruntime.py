"""ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime

from ResNeSt.common.errors import PipelineError
from ResNeSt.engines.engine import TensorSpec
from ResNeSt.models.model_info import of_onnx

DTYPES = {"tensor(float)": "float32", "tensor(uint8)": "uint8"}


class OnnxRuntimeEngine:
    """An inference session on all cores, at its default optimisation level."""

    def __init__(self, session: onnxruntime.InferenceSession, batch: int) -> None:
        self.title = f"ONNX Runtime {onnxruntime.__version__}"
        self._session = session
        port = session.get_inputs()[0]
        self.info = of_onnx(session.get_modelmeta().custom_metadata_map)
        free, *rest = port.shape
        self.input = TensorSpec(port.name, (free if isinstance(free, int) else batch, *rest), DTYPES[port.type])

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Logits, float32 (N, classes)."""
        logits: np.ndarray = self._session.run(None, {self.input.name: batch})[0]
        return logits


def open_model(path: Path, batch: int, arch: str | None, device: int) -> OnnxRuntimeEngine:
    """Opens `path`; a free batch axis is set to `batch`."""
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors share no base class of their own
        raise PipelineError(f"{path}: ONNX Runtime cannot open it ({error}); export it again") from None
    port = session.get_inputs()[0]
    if port.type not in DTYPES or not port.shape:
        raise PipelineError(
            f"{path}: its input is {port.type} {port.shape}, expected {' or '.join(DTYPES)} with a batch axis"
        )
    return OnnxRuntimeEngine(session, batch)
