"""ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime

from ResNeSt.common.cores import thread_limit
from ResNeSt.common.errors import PipelineError
from ResNeSt.engines.engine import ANY_SIZE, TensorSpec, as_logits
from ResNeSt.models import onnx_file


class OnnxRuntimeEngine:
    """An inference session on all cores, at its default optimisation level."""

    def __init__(self, path: Path, session: onnxruntime.InferenceSession, batch: int) -> None:
        network = onnx_file.read(path)
        self.title = f"ONNX Runtime {onnxruntime.__version__}"
        self.info = network.info
        self.input = TensorSpec(network.input_name, tuple(network.shape(network.batch or batch)), "float32")
        self.sizes = (network.batch,) if network.batch else ANY_SIZE
        self.probabilities = network.probabilities
        self._path = path
        self._session = session

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Logits, float32 (N, classes)."""
        return as_logits(self._path, self._session.run(None, {self.input.name: batch})[0], len(batch))


def open_model(path: Path, batch: int, arch: str | None, device: int, ema: bool | None) -> OnnxRuntimeEngine:
    """Opens `path`; a free batch axis is set to `batch`."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = thread_limit() or 0  # 0: as many as it finds
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors share no base class of their own
        raise PipelineError(f"{path}: ONNX Runtime cannot open it ({error}); export it again") from None
    return OnnxRuntimeEngine(path, session, batch)
