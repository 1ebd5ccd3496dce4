"""ncnn on the CPU of a phone or board: `.ncnn.param` with its `.ncnn.bin`, one image at a time."""

from __future__ import annotations

import copy
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

# Threads that wait for each other spin unless OpenMP is told before it is loaded: beside threads that decode the demo
# took 10 to 30 s so, and 2 s as it is.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
import ncnn

from ResNeSt.common.cores import cores
from ResNeSt.common.errors import PipelineError
from ResNeSt.engines.engine import Opening, TensorSpec, as_logits
from ResNeSt.models import sidecar
from ResNeSt.models.files import check_record

# A model of fp32 forbids the first ones itself, layer by layer (ResNeSt.convert.pnnx).
_OPTIONS = {
    **dict.fromkeys(("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"), True),
    **dict.fromkeys(("use_bf16_packed", "use_bf16_storage", "use_vulkan_compute"), False),
}
_INPUT = re.compile(r"^Input +\S+ +0 +1 +(\S+) +0=(\d+) +1=(\d+) +2=3\b", re.MULTILINE)


class NcnnEngine:
    """A net in the precision that its file allows, on its share of the cores."""

    sizes = (1,)

    def __init__(self, path: Path, asked: Opening) -> None:
        self.title = f"ncnn {ncnn.__version__}"
        self.info = sidecar.info_of(path)
        self.probabilities = sidecar.read(path).get("answers") == "probabilities"
        self.instances = asked.instances or min(cores(), asked.busy(1))
        self.input = _input(path)
        _check(path)
        self._path = path
        self._net = _load(path, self.instances)
        (self._output,) = self._net.output_names()

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Logits, float32 (1, classes)."""
        image = np.ascontiguousarray(batch[0])  # a Mat borrows it
        with self._net.create_extractor() as extractor:
            extractor.input(self.input.name, ncnn.Mat(image).clone())  # the layers may work in place
            code, output = extractor.extract(self._output)
            if code != 0:
                raise PipelineError(
                    f"{self._path}: ncnn cannot run it (code {code}), out of memory perhaps; convert it again"
                )
            return as_logits(self._path, np.array(output, np.float32)[None], 1)

    def another(self) -> NcnnEngine:
        """The same net, whose weights are shared: each run is one of its own."""
        return copy.copy(self)


open_model = NcnnEngine


def _input(path: Path) -> TensorSpec:
    found = _INPUT.findall(path.read_text(encoding="utf-8", errors="replace"))
    if len(found) != 1:
        raise PipelineError(
            f"{path}: has no input of one image, with its sides, as convert.sh writes it; convert it again"
        )
    name, width, height = found[0]
    return TensorSpec(name, (1, 3, int(height), int(width)), "float32")


def _check(path: Path) -> None:
    """Raises PipelineError where a file is missing or, by the record beside them, damaged: ncnn would crash."""
    weights = path.with_suffix(".bin")
    if not weights.is_file():
        raise PipelineError(f"{weights}: no such file; it belongs to {path.name}, copy both")
    check_record(path)


def _load(path: Path, instances: int) -> Any:
    net = ncnn.Net()
    for option, value in _OPTIONS.items():
        setattr(net.opt, option, value)
    # ncnn's own number leaves out the small cores of a board, which would hold back the large ones.
    net.opt.num_threads = max(1, min(net.opt.num_threads, cores()) // instances)
    if (
        net.load_param(str(path)) != 0
        or net.load_model(str(path.with_suffix(".bin"))) != 0
        or len(net.output_names()) != 1
    ):
        raise PipelineError(
            f"{path}: ncnn cannot load it with its .bin, damaged or of another network; convert it again"
        )
    return net
