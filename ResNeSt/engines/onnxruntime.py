"""ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime

from ResNeSt.common.cores import cores, thread_limit
from ResNeSt.common.errors import PipelineError
from ResNeSt.engines.engine import ANY_SIZE, Opening, TensorSpec, as_logits
from ResNeSt.models import onnx_file

CORES_EACH = 4  # of an instance where their number is left open


class OnnxRuntimeEngine:
    """An inference session on its share of the cores, at its default optimisation level."""

    def __init__(self, path: Path, asked: Opening) -> None:
        network = onnx_file.read(path)
        self.instances = _count(asked, network.batch or asked.batch)
        self._session = _session(path, self.instances)
        self.title = f"ONNX Runtime {onnxruntime.__version__}"
        self.info = network.info
        self.input = TensorSpec(network.input_name, tuple(network.shape(network.batch or asked.batch)), "float32")
        self.sizes = (network.batch,) if network.batch else ANY_SIZE
        self.probabilities = network.probabilities
        self._path = path
        self._asked = asked

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Logits, float32 (N, classes)."""
        return as_logits(self._path, self._session.run(None, {self.input.name: batch})[0], len(batch))

    def another(self) -> OnnxRuntimeEngine:
        """One with threads of its own; calls of one session share the session's."""
        return OnnxRuntimeEngine(self._path, self._asked)


open_model = OnnxRuntimeEngine


def _count(asked: Opening, size: int) -> int:
    return asked.instances or max(1, min(cores() // CORES_EACH, asked.busy(size)))


def _session(path: Path, count: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    # 0: as many as it finds, each bound to a core
    options.intra_op_num_threads = (thread_limit() or 0) if count == 1 else max(1, cores() // count)
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors share no base class of their own
        raise PipelineError(f"{path}: ONNX Runtime cannot open it ({error}); export it again") from None
