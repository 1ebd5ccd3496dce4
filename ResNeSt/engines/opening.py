"""Which runtime opens which file; runtimes are imported only when their engine is opened."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path
from typing import Any, Callable, NamedTuple

import numpy as np

from ResNeSt.common import cann_libraries
from ResNeSt.common.arguments import LARGEST_BATCH, MOST_INSTANCES
from ResNeSt.common.errors import ArgumentError, MissingRuntimeError, PipelineError
from ResNeSt.common.files import PathLike
from ResNeSt.engines.engine import Engine, Opening
from ResNeSt.formats import onnx_header
from ResNeSt.models import classifier, model_info
from ResNeSt.models.model_info import CHIP, CUDA


class _Runtime(NamedTuple):
    """A runtime's engine: the files it opens unless another is named, and those it opens where it is named."""

    module: str
    package: str
    suffixes: tuple[str, ...]
    others: tuple[str, ...] = ()
    requirements: str = "requirements.txt"
    opener: str = "open_model"
    cards: bool = False  # whether --device chooses among several


def _gpu(module: str, package: str, others: tuple[str, ...], opener: str) -> _Runtime:
    return _Runtime(f"ResNeSt.engines.{module}", package, (), others, "requirements/gpu.txt", opener, cards=True)


CHECKPOINTS = (".pth", ".pt", ".tar", ".safetensors", ".ckpt", ".pdparams")
RUNTIMES: dict[str, _Runtime] = {
    "openvino": _Runtime("ResNeSt.engines.openvino", "openvino", (".xml",), (".onnx",)),
    "onnxruntime": _Runtime("ResNeSt.engines.onnxruntime", "onnxruntime", (".onnx",)),
    "torch": _Runtime("ResNeSt.engines.torch", "torch", CHECKPOINTS),
    "ncnn": _Runtime("ResNeSt.engines.ncnn", "ncnn", (".param",), requirements="requirements/edge.txt"),
    "ascend": _Runtime("ResNeSt.engines.ascend", "ais_bench", (".om",), (), "requirements/npu.txt", cards=True),
    "cuda": _gpu("onnxruntime_gpu", "onnxruntime-gpu", (".onnx",), "open_cuda"),
    "tensorrt": _gpu("onnxruntime_gpu", "onnxruntime-gpu", (".onnx",), "open_tensorrt"),
    "torch-cuda": _gpu("torch_gpu", "torch", CHECKPOINTS, "open_fp32"),
    "torch-cuda-bf16": _gpu("torch_gpu", "torch", CHECKPOINTS, "open_bf16"),
    "torch-cuda-fp16": _gpu("torch_gpu", "torch", CHECKPOINTS, "open_fp16"),
}
NAMES = (*RUNTIMES, "null")
SUFFIXES = {suffix: name for name, runtime in RUNTIMES.items() for suffix in runtime.suffixes}
DEPENDS = 0.1  # of the largest answer: a scale that a runtime takes from the whole batch stays below


def open_engine(
    path: PathLike,
    name: str | None = None,
    batch: int = 1,
    arch: str | None = None,
    device: int = 0,
    ema: bool | None = None,
    instances: int | None = 1,
    images: int | None = None,
) -> Engine:
    """Opens a model file with the runtime `name`, by default the one its suffix calls for.

    The rest is said in `Opening`. The engine `null` has the model's input and computes nothing.
    Raises PipelineError for a file that cannot be opened, ArgumentError for a file of the wrong kind,
    MissingRuntimeError where the runtime is not installed.
    """
    path = Path(path)
    asked = Opening(batch, arch, device, ema, instances, images)
    _check_asked(path, name, asked)
    if path.suffix == ".onnx":
        classifier.read(path)  # which reads where its weights lie, too: the runtimes would follow that anywhere
    if name == "null":
        from ResNeSt.engines.null import NullEngine

        return NullEngine(open_engine(path, None, batch, arch, device, ema, instances, images))
    name = name or _runtime_of(path)
    runtime = RUNTIMES[name]
    opened = (*runtime.suffixes, *runtime.others)
    if path.suffix not in opened:
        raise ArgumentError(f"{path}: the {name} engine opens {' and '.join(opened)} files")
    if device and not runtime.cards:
        raise ArgumentError(f"--device {device}: {path} runs by {name}; on cpu there is device 0 only")
    opener = _opener(runtime)
    engine = opener(path, asked)
    _check_apart(path, engine, lambda: opener(path, dataclasses.replace(asked, batch=2)))
    return engine


def card_for(path: PathLike, name: str | None = None) -> str:
    """NPU or GPU, where the engine that `open_engine` opens runs on one; empty where it runs on cores."""
    path = Path(path)
    if name in (None, "null"):
        name = _runtime_of(path) if path.suffix in SUFFIXES else None
    runtime = RUNTIMES.get(name or "")
    return "" if runtime is None or not runtime.cards else "NPU" if name == "ascend" else "GPU"


def _runtime_of(path: Path) -> str:
    """By its suffix; an ONNX file that convert.sh made for a GPU says so, and runs there or nowhere."""
    if path.suffix == ".onnx" and model_info.of_onnx(onnx_header.read(path).metadata).get(CHIP) == CUDA:
        return "cuda"
    return SUFFIXES[path.suffix]


def _check_asked(path: Path, name: str | None, asked: Opening) -> None:
    bounds = {"batch": (asked.batch, LARGEST_BATCH), "instances": (asked.instances, MOST_INSTANCES)}
    for what, (number, most) in bounds.items():
        if number is not None and not 1 <= number <= most:
            raise ArgumentError(f"{what} {number}, expected a whole number from 1 to {most:,}")
    if not path.is_file():
        raise PipelineError(f"{path}: no such model file")
    if path.suffix not in SUFFIXES:
        raise ArgumentError(f"{path}: not a model this machine can run; expected {', '.join(SUFFIXES)}")
    if name is not None and name not in NAMES:
        raise ArgumentError(f"unknown engine {name!r}; known: {', '.join(NAMES)}")
    if asked.ema is not None and path.suffix not in CHECKPOINTS:
        raise ArgumentError(f"{path}: --ema and --no-ema choose among a checkpoint's weights; leave them out")


def _check_apart(path: Path, engine: Engine, with_two: Callable[[], Engine]) -> None:
    """Raises PipelineError where the answer to an image depends on the others of its batch, or tells no classes apart.

    In networks of other programs it may: a Softmax over the wrong axis does it, and batch norms as in training, in
    whatever operators they were written. One image at a time hides it: `with_two` opens the same model for two, where
    it leaves that free.
    """
    if engine.info or path.suffix not in (".onnx", ".xml"):
        return
    if engine.input.shape[0] == 1:
        engine = with_two()
    shape = engine.input.shape
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    if engine.input.dtype == "float32":
        images = images.astype(np.float32) / 64 - 2
    alone = engine.run(np.broadcast_to(images[:1], shape).copy())[0]
    images[1:] //= 4
    difference = np.abs(alone - engine.run(images)[0]).max()
    if difference > DEPENDS * np.abs(alone).max() or np.ptp(alone) == 0:
        what = "depends on the other images of the batch" if difference else f"is {alone[0]:.3g} for every class"
        raise PipelineError(
            f"{path}: its answer to an image {what}; export it again for inference (model.eval()), with nothing "
            "computed over axis 0, such as a Softmax"
        )


def _opener(runtime: _Runtime) -> Callable[..., Engine]:
    try:
        module: Any = importlib.import_module(runtime.module)
    except ImportError as error:
        told = cann_libraries.not_imported(str(error)) if runtime is RUNTIMES["ascend"] else None
        raise MissingRuntimeError(
            told or f"{runtime.package} is not installed here ({error}); {runtime.requirements} says how to install it"
        ) from None
    opener: Callable[..., Engine] = getattr(module, runtime.opener)
    return opener
