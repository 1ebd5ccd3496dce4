"""ONNX -> MINDIR, MindSpore's file format, through MindSpore itself; loaded again and compared with ONNX Runtime.

pip install -r requirements-mindspore.txt       # a virtual environment of its own: MindSpore wants NumPy 1
python -m ResNeSt.mindir --onnx resnest50.onnx --target resnest50.mindir
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path
from typing import Any, Optional

import numpy as np

from ResNeSt import network
from ResNeSt.agreement import ratio
from ResNeSt.arguments import positive
from ResNeSt.engines import open_engine
from ResNeSt.errors import ArgumentError, MissingRuntimeError, PipelineError, run
from ResNeSt.files import scratch_folder, whole
from ResNeSt.network import Network

SEED = 0
CHECKED_BATCHES = (1, 3)
# Largest difference between MindSpore and ONNX Runtime, relative to the largest logit.
TOLERANCE = 1e-4


def export(source: Path, target: Path, batch: Optional[int] = None) -> float:
    """Writes the network in the ONNX file `source` to `target` (.mindir), its batch axis free or set to `batch`.

    Input and output are the ONNX file's. Returns the largest difference between the logits of the written file, run by
    MindSpore on the CPU, and those of ONNX Runtime, relative to the largest logit. Raises MissingRuntimeError without
    MindSpore, PipelineError where the file cannot be exported or differs; nothing is left at `target` then.
    """
    if target.suffix != ".mindir":
        raise ArgumentError(f"--target {target}: MindSpore loads files that end in .mindir")
    images = network.read(source)
    mindspore, graph = _import_mindspore()
    cell = graph.read(source).set_train(False)
    with scratch_folder(target.parent, "mindir") as scratch:
        made = scratch / target.name
        try:
            example = mindspore.Tensor(shape=[batch, *images.shape(1)[1:]], dtype=mindspore.float32)
            mindspore.export(cell, example, file_name=str(made), file_format="MINDIR")
            difference = _check(mindspore, made, images, batch)
        except (RuntimeError, TypeError, ValueError) as error:  # whatever its compiler and its kernels refuse
            raise PipelineError(f"{target}: not written: MindSpore fails: {_first_line(error)}") from error
        if not difference <= TOLERANCE:  # NaN is not, either
            raise PipelineError(
                f"{target}: not written: MindSpore and ONNX Runtime differ by {difference:.1e} of the largest logit, "
                f"{TOLERANCE:.0e} is allowed; are the weights of {source} finite?"
            )
        with whole(target) as temporary:
            shutil.copyfile(made, temporary)
    return difference


def _import_mindspore() -> Any:
    os.environ.setdefault("GLOG_v", "3")  # its warnings are about itself
    try:
        import mindspore

        from ResNeSt import mindspore_graph
    except ImportError as error:
        raise MissingRuntimeError(
            f"MindSpore is not installed here ({error}); in a virtual environment of its own run: "
            "pip install -r requirements-mindspore.txt"
        ) from None
    mindspore.set_device("CPU")
    mindspore.set_context(mode=mindspore.GRAPH_MODE)
    return mindspore, mindspore_graph


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]


def _check(mindspore: Any, path: Path, images: Network, batch: Optional[int]) -> float:
    """Largest relative difference of the file at `path` from the ONNX file on seeded random images."""
    loaded = mindspore.nn.GraphCell(mindspore.load(str(path)))
    random = np.random.default_rng(SEED)
    differences = []
    for size in CHECKED_BATCHES if batch is None else (batch,):
        values = random.standard_normal(images.shape(size)).astype(np.float32)
        expected = open_engine(images.path, "onnxruntime", size).run(values)
        found = loaded(mindspore.Tensor(values)).asnumpy()
        differences.append(ratio(float(np.abs(found - expected).max()), float(np.abs(expected).max())))
    return float(np.max(differences))


def main() -> None:
    """Parses the command line, exports, prints what was written."""
    parser = argparse.ArgumentParser(
        prog="python -m ResNeSt.mindir", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--onnx", type=Path, required=True, metavar="FILE", help="what stage 2 writes, simplified or not"
    )
    parser.add_argument("--target", type=Path, metavar="FILE", help="[the same name, .mindir]")
    parser.add_argument("--batch", type=positive, metavar="N", help="fixed batch size [free]")
    options = parser.parse_args()
    target = options.target or options.onnx.with_suffix(".mindir")
    difference = export(options.onnx, target, options.batch)
    print(
        f"{target}: exported from {options.onnx}, batch {options.batch or 'free'}, {target.stat().st_size:,} bytes; "
        f"differs from ONNX Runtime by {difference:.1e} of the largest logit"
    )


if __name__ == "__main__":
    run(main)
