"""Which runtime opens which file; runtimes are imported only when their engine is opened."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Callable, NamedTuple

from ResNeSt.common.arguments import LARGEST_BATCH
from ResNeSt.common.errors import ArgumentError, MissingRuntimeError, PipelineError
from ResNeSt.common.files import PathLike
from ResNeSt.engines.engine import Engine
from ResNeSt.models import classifier


class _Runtime(NamedTuple):
    """A runtime's engine: the files it opens unless another is named, and those it opens where it is named."""

    module: str
    package: str
    suffixes: tuple[str, ...]
    others: tuple[str, ...] = ()
    requirements: str = "requirements.txt"


RUNTIMES: dict[str, _Runtime] = {
    "openvino": _Runtime("ResNeSt.engines.openvino", "openvino", (".xml",), (".onnx",)),
    "onnxruntime": _Runtime("ResNeSt.engines.onnxruntime", "onnxruntime", (".onnx",)),
    "torch": _Runtime("ResNeSt.engines.torch", "torch", (".pth", ".pt", ".tar", ".safetensors", ".ckpt", ".pdparams")),
    "ascend": _Runtime("ResNeSt.engines.ascend", "ais_bench", (".om",), requirements="requirements/npu.txt"),
}
NAMES = (*RUNTIMES, "null")
SUFFIXES = {suffix: name for name, runtime in RUNTIMES.items() for suffix in runtime.suffixes}
CHECKPOINTS = RUNTIMES["torch"].suffixes


def open_engine(
    path: PathLike,
    name: str | None = None,
    batch: int = 1,
    arch: str | None = None,
    device: int = 0,
    ema: bool | None = None,
) -> Engine:
    """Opens a model file with the runtime `name`, by default the one its suffix calls for.

    `batch` sets the batch size of files that leave it free; the others keep theirs. `arch` names the network of a
    checkpoint whose file name does not, `ema` chooses in one that holds its weights' moving average, too
    (ResNeSt.models.checkpoint). `device` is an NPU's number. The engine `null` has the model's input and
    computes nothing.
    Raises PipelineError for a file that cannot be opened, ArgumentError for a file of the wrong kind,
    MissingRuntimeError where the runtime is not installed.
    """
    path = Path(path)
    if not 1 <= batch <= LARGEST_BATCH:
        raise ArgumentError(f"batch {batch}, expected a whole number from 1 to {LARGEST_BATCH:,}")
    if not path.is_file():
        raise PipelineError(f"{path}: no such model file")
    if path.suffix not in SUFFIXES:
        raise ArgumentError(f"{path}: not a model this machine can run; expected {', '.join(SUFFIXES)}")
    if path.suffix == ".onnx":
        classifier.read(path)  # which reads where its weights lie, too: the runtimes would follow that anywhere
    if name is not None and name not in NAMES:
        raise ArgumentError(f"unknown engine {name!r}; known: {', '.join(NAMES)}")
    if name == "null":
        from ResNeSt.engines.null import NullEngine

        return NullEngine(open_engine(path, None, batch, arch, device, ema))
    runtime = RUNTIMES[name or SUFFIXES[path.suffix]]
    opened = (*runtime.suffixes, *runtime.others)
    if path.suffix not in opened:
        raise ArgumentError(f"{path}: the {name} engine opens {' and '.join(opened)} files")
    return _opener(runtime)(path, batch, arch, device, ema)


def _opener(runtime: _Runtime) -> Callable[..., Engine]:
    try:
        module: Any = importlib.import_module(runtime.module)
    except ImportError as error:
        raise MissingRuntimeError(
            f"{runtime.package} is not installed here ({error}); {runtime.requirements} says how to install it"
        ) from None
    opener: Callable[..., Engine] = module.open_model
    return opener
