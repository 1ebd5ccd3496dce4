"""ONNX Runtime on an NVIDIA GPU, by its CUDA or its TensorRT provider, and there alone.

Left to itself ONNX Runtime goes on, on the CPU, where a library of the GPU's is not found, and with single nodes that
a provider does not know. Here either is an error: no node of a model may be given to the CPU.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from ResNeSt.common.errors import ArgumentError, MissingRuntimeError, PipelineError, plain
from ResNeSt.engines.engine import ANY_SIZE, Opening, TensorSpec, as_logits, in_pieces
from ResNeSt.models import onnx_file

REQUIREMENTS = "requirements/gpu.txt"
PROVIDERS = {"CUDA": "CUDAExecutionProvider", "TensorRT": "TensorrtExecutionProvider"}
LIBRARIES = {"CUDA": "libonnxruntime_providers_cuda.so", "TensorRT": "libonnxruntime_providers_tensorrt.so"}
# fp32 is fp32: without TF32, whose products have 10 bits. One launch a batch, not one a node (CUDA graph). cuDNN's own
# choice of algorithms ran 1.2 to 1.7 times as fast as what the default, a search for the fastest, came to (H100).
SETTINGS = {
    "CUDA": {"use_tf32": "0", "enable_cuda_graph": "1", "cudnn_conv_algo_search": "HEURISTIC"},
    "TensorRT": {"trt_cuda_graph_enable": "1"},
}
ELEMENTS = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"}
# A place in its source with the function's name, alone or with types; what it writes before a status of its own.
_SOURCE = re.compile(
    r"\S+\.(?:cc|h|cu|cuh|cpp):\d+ (?:[^()]*::[^()]*\([^()]*\)(?: const)?(?: \[with [^]]*\])?|\S+) "
    r"|\[ONNXRuntimeError\] : \d+ : \w+ : |Failed to parse provider option \"\w+\": "
)
FATAL = 4  # of ONNX Runtime's log levels: what it says besides stands in its errors, too


class OnnxRuntimeGpuEngine:
    """An inference session on one card, with the images and the answers of a batch in places of their own there.

    A run copies the images of one batch to the card, and the logits back, nothing else. More images run in batches of
    that size, fewer are filled up to it.
    """

    def __init__(self, path: Path, asked: Opening, name: str) -> None:
        if asked.instances not in (None, 1):
            raise ArgumentError(f"{path}: one instance runs on a GPU; leave --instances out, or take --processes")
        network = onnx_file.read(path)
        self.title = f"ONNX Runtime {onnxruntime.__version__}, {name}, GPU {asked.device}"
        self.info = network.info
        self.input = TensorSpec(network.input_name, tuple(network.shape(network.batch or asked.batch)), "float32")
        self.sizes = (network.batch,) if network.batch else ANY_SIZE
        self.probabilities = network.probabilities
        self.instances = 1
        self._path = path
        self._session = _session(path, name, asked.device, self.info.get("precision", "fp32"))
        (answers,) = self._session.get_outputs()
        if answers.type not in ELEMENTS or not isinstance(answers.shape[-1], int):
            raise PipelineError(
                f"{path}: its output is {answers.type} {answers.shape}, expected [N, classes] with a number for the "
                "classes; make it again with convert.sh"
            )
        size = self.input.shape[0]
        self._images = _on_card(self.input.shape, "float32", asked.device)
        self._logits = _on_card((size, answers.shape[-1]), ELEMENTS[answers.type], asked.device)
        self._binding = self._session.io_binding()
        self._binding.bind_ortvalue_input(self.input.name, self._images)
        self._binding.bind_ortvalue_output(answers.name, self._logits)

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Logits, float32 (N, classes)."""
        return as_logits(self._path, in_pieces(self._run, batch, self.input.shape[0]), len(batch))

    def _run(self, images: np.ndarray) -> np.ndarray:
        try:
            self._images.update_inplace(images)
            self._session.run_with_iobinding(self._binding)
            logits: np.ndarray = self._logits.numpy()
        except Exception as error:  # ONNX Runtime's errors share no base class of their own
            raise PipelineError(f"{self._path}: {self.title} cannot run it ({_text(error)})") from None
        return logits

    def another(self) -> OnnxRuntimeGpuEngine:
        """Itself: one runs on a card."""
        return self


def open_cuda(path: Path, asked: Opening) -> OnnxRuntimeGpuEngine:
    """By CUDA and cuDNN. Raises MissingRuntimeError where a library is not here, PipelineError without a GPU."""
    return OnnxRuntimeGpuEngine(path, asked, "CUDA")


def open_tensorrt(path: Path, asked: Opening) -> OnnxRuntimeGpuEngine:
    """By TensorRT, which compiles it for the card, for minutes. Raises as `open_cuda` does."""
    return OnnxRuntimeGpuEngine(path, asked, "TensorRT")


def _session(path: Path, name: str, device: int, precision: str) -> Any:
    """A session of which every node runs by the provider."""
    _load(path, name)
    settings = {"device_id": str(device), **SETTINGS[name]}
    if name == "TensorRT" and precision == "fp16":
        settings["trt_fp16_enable"] = "1"
    options = onnxruntime.SessionOptions()
    options.log_severity_level = FATAL
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        # Its own way back to the CPU, after an error, is `enable_fallback`.
        session = onnxruntime.InferenceSession(
            path, options, providers=[(PROVIDERS[name], settings)], enable_fallback=0
        )
    except Exception as error:  # ONNX Runtime's errors share no base class of their own
        raise PipelineError(
            f"{path}: ONNX Runtime cannot open it by {name} on GPU {device} ({_text(error)}); it does not run on the "
            "CPU instead: nvidia-smi tells whether there is a GPU, and an .xml made for cpu runs without one"
        ) from None
    if session.get_providers()[0] != PROVIDERS[name]:
        raise PipelineError(
            f"{path}: ONNX Runtime took {', '.join(session.get_providers())}, not {name}; it is not run on the CPU"
        )
    return session


def _load(path: Path, name: str) -> None:
    """Raises MissingRuntimeError where this ONNX Runtime has no such provider, or a library that it needs is not here.

    ONNX Runtime itself writes that to its log, and goes on without.
    """
    available = onnxruntime.get_available_providers()
    if PROVIDERS[name] not in available:
        raise MissingRuntimeError(
            f"{path}: ONNX Runtime {onnxruntime.__version__} here has no {name} provider (it has "
            f"{', '.join(available)}); {REQUIREMENTS} says how to install one that has"
        )
    onnxruntime.set_default_logger_severity(FATAL)
    with contextlib.redirect_stdout(io.StringIO()):  # where it says what it does not find; the loader says it below
        _preload()
    folder = Path(onnxruntime.__file__).parent / "capi"
    try:
        ctypes.CDLL(str(folder / "libonnxruntime_providers_shared.so"), ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(folder / LIBRARIES[name]))
    except OSError as error:
        raise MissingRuntimeError(
            f"{path}: the {name} provider of ONNX Runtime {onnxruntime.__version__} cannot be loaded ({error}); "
            f"{REQUIREMENTS} says which libraries it needs, libcuda comes with the driver of the GPU"
        ) from None


@functools.cache
def _preload() -> None:
    """CUDA's and cuDNN's libraries, as packages of Python hold them."""
    onnxruntime.preload_dlls()


def _on_card(shape: tuple[int, ...], dtype: str, device: int) -> Any:
    return onnxruntime.OrtValue.ortvalue_from_shape_and_type(list(shape), np.dtype(dtype), "cuda", device)


def _text(error: Exception) -> str:
    """What it says at last, without the places and functions in ONNX Runtime's source that it begins with."""
    text = " ".join(plain(str(error)).split())
    return (_SOURCE.split(text.split(" ; GPU=")[0])[-1] or text).rstrip(". ")[:300]
