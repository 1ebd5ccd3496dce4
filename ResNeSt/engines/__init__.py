"""Engines: one small file per runtime, each with the same few methods.

An engine describes its input and turns a batch into logits. Runtimes are imported only when their engine is opened.
"""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path
from typing import Any, Callable, Dict, NamedTuple, Optional, Protocol, Tuple

import numpy as np

from ResNeSt import onnx_header
from ResNeSt.errors import ArgumentError, MissingRuntimeError, PipelineError
from ResNeSt.files import PathLike


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """One input of a model: name, shape with the batch axis first, NumPy dtype name."""

    name: str
    shape: Tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        """Bytes of one whole batch."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


class Engine(Protocol):
    """A loaded model.

    `title` names runtime and version, `input` says what `run` takes, `info` is what the file says of itself
    (ResNeSt.metadata; empty for a file of another program). `run` is called from the thread that opened the engine.
    """

    title: str
    input: TensorSpec
    info: Dict[str, str]

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Logits, float32 (N, classes), of a batch of exactly `input`'s shape and dtype."""
        ...


class _Runtime(NamedTuple):
    module: str
    suffixes: Tuple[str, ...]
    package: str
    requirements: str = "requirements.txt"


RUNTIMES: Dict[str, _Runtime] = {
    "openvino": _Runtime("ResNeSt.engines.openvino", (".xml", ".onnx"), "openvino"),
    "onnxruntime": _Runtime("ResNeSt.engines.onnxruntime", (".onnx",), "onnxruntime"),
    "torch": _Runtime("ResNeSt.engines.torch", (".pth", ".safetensors", ".ckpt", ".pdparams"), "torch"),
    "ascend": _Runtime("ResNeSt.engines.ascend", (".om",), "ais_bench", "requirements-npu.txt"),
}
DEFAULT_RUNTIME = {
    ".xml": "openvino",
    ".onnx": "onnxruntime",
    ".pth": "torch",
    ".safetensors": "torch",
    ".ckpt": "torch",
    ".pdparams": "torch",
    ".om": "ascend",
}
NAMES = (*RUNTIMES, "null")


def open_engine(
    path: PathLike, name: Optional[str] = None, batch: int = 1, arch: Optional[str] = None, device: int = 0
) -> Engine:
    """Opens a model file with the runtime `name`, by default the one its suffix calls for.

    `batch` sets the batch size of files that leave it free; the others keep theirs. `arch` names the network of a
    checkpoint whose file name does not. `device` is an NPU's number. The engine `null` has the model's input and
    computes nothing.
    Raises PipelineError for a file that cannot be opened, ArgumentError for a file of the wrong kind,
    MissingRuntimeError where the runtime is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise PipelineError(f"{path}: no such model file")
    if path.suffix not in DEFAULT_RUNTIME:
        raise ArgumentError(f"{path}: not a model this machine can run; expected {', '.join(DEFAULT_RUNTIME)}")
    if path.suffix == ".onnx":
        onnx_header.read(path)  # the runtimes would follow its data files anywhere
    if name == "null":
        from ResNeSt.engines.null import NullEngine

        return NullEngine(open_engine(path, None, batch, arch, device))
    runtime = RUNTIMES[name or DEFAULT_RUNTIME[path.suffix]]
    if path.suffix not in runtime.suffixes:
        raise ArgumentError(f"{path}: the {name} engine opens {' and '.join(runtime.suffixes)} files")
    return _opener(runtime)(path, batch, arch, device)


def _opener(runtime: _Runtime) -> Callable[[Path, int, Optional[str], int], Engine]:
    try:
        module: Any = importlib.import_module(runtime.module)
    except ImportError as error:
        raise MissingRuntimeError(
            f"{runtime.package} is not installed here ({error}); {runtime.requirements} says how to install it"
        ) from None
    opener: Callable[[Path, int, Optional[str], int], Engine] = module.open_model
    return opener


def run_images(engine: Engine, images: np.ndarray) -> np.ndarray:
    """Logits, float32 (N, classes), of any number of images, in batches of the engine's; the last is filled up."""
    size = engine.input.shape[0]
    batches = [fill(images[start : start + size], size) for start in range(0, len(images), size)]
    return np.concatenate([engine.run(batch) for batch in batches])[: len(images)]


def fill(images: np.ndarray, size: int) -> np.ndarray:
    """(N, ...) -> (size, ...) by repeating the last image."""
    missing = size - len(images)
    return np.concatenate([images, np.repeat(images[-1:], missing, axis=0)]) if missing else images
