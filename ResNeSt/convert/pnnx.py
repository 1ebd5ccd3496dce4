"""Stage 3 for phones and boards: simplified ONNX -> ncnn's `.ncnn.param` and `.ncnn.bin`, by pnnx."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
from importlib import metadata
from pathlib import Path
from typing import Callable

import numpy as np

from ResNeSt.common import tool
from ResNeSt.common.errors import MissingRuntimeError, PipelineError
from ResNeSt.common.files import remove_plain, scratch_folder
from ResNeSt.compare.agreement import ratio
from ResNeSt.convert.simplify import pictures
from ResNeSt.engines.engine import run_images
from ResNeSt.engines.opening import open_engine
from ResNeSt.models.onnx_file import Network

PACKAGE = "pnnx"
BATCH = 1  # ncnn's networks have no batch axis
# Of the largest logit, on pictures; rounding stays below it, and a network that pnnx turned into another does not.
FURTHEST = {"fp32": 1e-3, "fp16": 5e-2}
_COMPARED = 2  # pictures
# Parameter 31 of every layer: not to compute in fp16, not to store in fp16, not to store in bf16. Of itself ncnn does
# the first two, which is off by 1e-2 of the demo's largest logit on arm64, by 1e-4 on x86; this holds in every program.
FP32_ALONE = " 31=7"
_LAYER = re.compile(r"^[A-Za-z].*$", re.MULTILINE)  # the first lines hold numbers
_INPUT = re.compile(r"^(Input +\S+ +0 +1 +\S+) *$", re.MULTILINE)
# Layers of pnnx's own or of PyTorch's, which ncnn has not: pnnx.Expression, aten::cumsum, Tensor.index.
_UNKNOWN = re.compile(r"^(\w+(?:\.|::)\S+) ", re.MULTILINE)


def version() -> str:
    """Of pnnx and ncnn; raises MissingRuntimeError where one is not installed."""
    try:
        return f"pnnx {metadata.version(PACKAGE)}, ncnn {metadata.version('ncnn')}"
    except metadata.PackageNotFoundError as error:
        raise MissingRuntimeError(f"{error.name} is not installed here; requirements/edge.txt says how") from None


def program() -> str:
    """The executable in the package, which is not imported, since that imports PyTorch."""
    version()
    found = importlib.util.find_spec(PACKAGE)
    return str(Path(found.origin).with_name(PACKAGE)) if found and found.origin else PACKAGE


def form() -> str:
    """SHA-256 of the code that makes the files (see openvino_ir.form)."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()


def command(network: Network, precision: str) -> list[str]:
    """pnnx's command line, run where a copy of the network is called network.onnx: it writes beside that."""
    shape = ",".join(map(str, network.shape(BATCH)))
    # pnnx stores weights in two bytes unless told otherwise.
    return [program(), "network.onnx", f"inputshape=[{shape}]", f"fp16={int(precision == 'fp16')}"]


def compile_model(network: Network, target: Path, precision: str, check: Callable[[Path], None]) -> float:
    """Turns `network` into `target` (.ncnn.param, with .ncnn.bin beside it), for float32 (1, 3, height, width).

    Returns by how much its logits differ from those of `network`, relative to the largest one. `check` gets the model
    before it has its name. Raises PipelineError where pnnx fails, where it has layers that ncnn has not, where the
    answers are others, and what `check` raises; nothing is left at `target` then.
    """
    with scratch_folder(target.parent, PACKAGE) as scratch:
        temporary = _made(network, Path(scratch), target, precision)
        difference = _difference(network, temporary)
        if not difference <= FURTHEST[precision]:
            raise PipelineError(
                f"{target}: not written: ncnn's logits differ from those of {network.path} by {difference:.1e} of the "
                f"largest, {FURTHEST[precision]:.0e} is allowed in {precision}; pnnx cannot express this network"
            )
        check(temporary)
        remove_plain(target)
        os.replace(temporary.with_suffix(".bin"), target.with_suffix(".bin"))
        os.replace(temporary, target)  # the last: where it is, the .bin that belongs to it is
    return difference


def _made(network: Network, scratch: Path, target: Path, precision: str) -> Path:
    if network.data_files:
        network.write_one_file(scratch)
        os.replace(scratch / network.one_file, scratch / "network.onnx")
    else:
        shutil.copyfile(network.path, scratch / "network.onnx")
    ended = tool.run(command(network, precision), scratch, os.environ)
    param, weights = scratch / "network.ncnn.param", scratch / "network.ncnn.bin"
    if ended.code or not (param.is_file() and weights.is_file()):
        last = next((line for line in reversed(ended.output.splitlines()) if line.strip()), "it says nothing")
        raise PipelineError(f"{target}: pnnx cannot convert {network.path} ({ended}): {last.strip()[:200]}")
    text = param.read_text(encoding="utf-8")
    if unknown := sorted(set(_UNKNOWN.findall(text))):
        raise PipelineError(f"{target}: not written: ncnn has no layer for {', '.join(unknown)} of {network.path}")
    # The engine reads the sides from here, and needs no record for that.
    sides = f" 0={network.width} 1={network.height} 2=3"
    text, inputs = _INPUT.subn(lambda line: line[1] + sides, text)
    if inputs != 1:
        raise PipelineError(f"{target}: not written: pnnx gives {network.path} {inputs} inputs, expected one")
    if precision == "fp32":
        text = _LAYER.sub(lambda line: line[0] + FP32_ALONE, text)
    temporary = scratch / target.name
    temporary.write_text(text, encoding="utf-8")
    os.replace(weights, temporary.with_suffix(".bin"))
    return temporary


def _difference(network: Network, model: Path) -> float:
    images = pictures(network.shape(_COMPARED))
    actual = run_images(open_engine(model), images)
    expected = run_images(open_engine(network.path, "onnxruntime"), images)
    if actual.shape != expected.shape:
        raise PipelineError(f"{model.name}: not written: gives {list(actual.shape)} for {list(expected.shape)}")
    return ratio(float(np.abs(actual - expected).max()), float(np.abs(expected).max()))
