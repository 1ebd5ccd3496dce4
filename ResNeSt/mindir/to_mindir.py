"""The network in an ONNX file as MINDIR, through MindSpore itself; loaded again and compared with ONNX Runtime."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from ResNeSt.common.errors import ArgumentError, MissingRuntimeError, PipelineError
from ResNeSt.common.files import scratch_folder, whole
from ResNeSt.common.paths import refuse_clashes
from ResNeSt.engines.opening import open_engine
from ResNeSt.export.same_logits import BATCHES, Same, check_same, nudged
from ResNeSt.models import onnx_file
from ResNeSt.models.onnx_file import Network


def export(source: Path, target: Path, batch: int | None = None) -> Same:
    """Writes the network in the ONNX file `source` to `target` (.mindir), its batch axis free or set to `batch`.

    Input and output are the ONNX file's. Returns how far the logits of the written file, run by MindSpore on the CPU,
    are from those of ONNX Runtime. Raises MissingRuntimeError without MindSpore, ArgumentError where the ONNX file's
    batch is set to another, PipelineError where the file cannot be exported or differs; nothing is left at `target`
    then.
    """
    if target.suffix != ".mindir":
        raise ArgumentError(f"--target {target}: MindSpore loads files that end in .mindir")
    refuse_clashes([source], [target])
    images = onnx_file.read(source)
    batch = batch or images.batch
    if images.batch not in (None, batch):
        raise ArgumentError(f"--batch {batch}: {source} is set to {images.batch}; leave it out, or export it again")
    mindspore, graph = _import_mindspore()
    cell = graph.read(source).set_train(False)
    with scratch_folder(target.parent, "mindir") as scratch:
        written = scratch / target.name
        try:
            example = mindspore.Tensor(shape=[batch, *images.shape(1)[1:]], dtype=mindspore.float32)
            mindspore.export(cell, example, file_name=str(written), file_format="MINDIR")
            same = _check(mindspore, written, images, target, batch)
        except (RuntimeError, TypeError, ValueError) as error:  # whatever its compiler and its kernels refuse
            raise PipelineError(f"{target}: not written: MindSpore fails: {_first_line(error)}") from error
        with whole(target) as temporary:
            shutil.copyfile(written, temporary)
    return same


def _import_mindspore() -> Any:
    os.environ.setdefault("GLOG_v", "3")  # its warnings are about itself
    try:
        import mindspore

        from ResNeSt.mindir import cell
    except ImportError as error:
        raise MissingRuntimeError(
            f"MindSpore is not installed here ({error}); in a virtual environment of its own run: "
            "pip install -r requirements/mindspore.txt"
        ) from None
    mindspore.set_device("CPU")
    mindspore.set_context(mode=mindspore.GRAPH_MODE)
    return mindspore, cell


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]


def _check(mindspore: Any, path: Path, network: Network, target: Path, batch: int | None) -> Same:
    """Of the file at `path` against the ONNX file that it was made of."""
    loaded = mindspore.nn.GraphCell(mindspore.load(str(path)))

    def by_mindspore(images: np.ndarray) -> np.ndarray:
        return np.asarray(loaded(mindspore.Tensor(images)).asnumpy())

    def by_onnxruntime(images: np.ndarray) -> np.ndarray:
        return open_engine(network.path, "onnxruntime", len(images)).run(images)

    batches = BATCHES if batch is None else (batch,)
    sides, names = (by_mindspore, by_onnxruntime, nudged(by_onnxruntime)), ("MindSpore", "ONNX Runtime")
    return check_same(target, *sides, network.shape(1)[1:], batches, names, f"the weights of {network.path}")
