"""An Ascend NPU, through ais_bench's Python API (contract: ais_bench)."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from ais_bench.infer.interface import InferSession

from ResNeSt.common.errors import PipelineError
from ResNeSt.common.progress import unheard
from ResNeSt.engines.engine import Opening, TensorSpec, as_logits, fitting
from ResNeSt.models import sidecar
from ResNeSt.models.files import check_record
from ResNeSt.models.onnx_file import FREE
from ResNeSt.tensors.format import LAYOUTS


class AscendEngine:
    """A `.om` on one device, at its own batch size, or at any of those that it was compiled for (--dynamic-batch)."""

    def __init__(self, path: Path, session: Any, sizes: Sequence[int], asked: Opening) -> None:
        self.title = f"ais_bench {_version()}"
        self.sizes = sizes
        self.input = _spec(path, session.get_inputs(), max(sizes), fitting(sizes, asked.batch))
        # The client takes a dynamic batch's size from the first side of what it is given.
        self._mode = "dymbatch" if session.get_inputs()[0].shape[0] == FREE else "static"
        self.info = sidecar.info_of(path)
        self.probabilities = sidecar.read(path).get("answers") == "probabilities"
        self.instances = asked.instances or 1
        self._path = path
        self._asked = asked
        self._session = session
        # Without it the device stays taken until the driver notices that the process is gone.
        atexit.register(_free, session)

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Logits, float32 (N, classes)."""
        try:
            (output,) = self._session.infer([batch], mode=self._mode)
        except Exception as error:  # the client raises nearly anything
            raise PipelineError(
                f"{self._path}: ais_bench cannot run {len(batch)} images at once ({error}); compile it again"
            ) from None
        return as_logits(self._path, np.asarray(output), len(batch))

    def another(self) -> AscendEngine:
        """The model loaded once more, in the calling thread, whose context it then is."""
        return open_model(self._path, self._asked)


def open_model(path: Path, asked: Opening) -> AscendEngine:
    """Loads `path` on the device; what the model is stands in the JSON that convert.sh leaves beside it."""
    check_record(path)
    try:
        with unheard():
            session = InferSession(asked.device, str(path))
    except Exception as error:  # the client raises nearly anything
        raise PipelineError(f"{path}: ais_bench cannot load it on device {asked.device} ({error})") from None
    if len(session.get_outputs()) != 1:
        names = ", ".join(f"{port.name} {list(port.shape)}" for port in session.get_outputs())
        raise PipelineError(f"{path}: its outputs are {names}, expected one of [N, classes]; compile it for that alone")
    return AscendEngine(path, session, _sizes(path, session, asked.batch), asked)


def _free(session: Any) -> None:
    with unheard():
        session.free_resource()


def _sizes(path: Path, session: Any, batch: int) -> Sequence[int]:
    """The batch sizes that a model takes, ascending: its own, or those that its record says.

    A dynamic one without a record tells its largest, and whether it takes `batch`.
    """
    own = session.get_inputs()[0].shape[0]
    if own != FREE:
        return (own,)
    if recorded := sidecar.sizes_of(path):
        return recorded
    try:
        largest = int(session.get_max_dym_batchsize())
    except Exception as error:
        raise PipelineError(
            f"{path}: takes several batch sizes, and the client does not tell which ({error}); copy {path.name}.json "
            "from where it was compiled"
        ) from None
    with contextlib.suppress(Exception):
        session.set_dynamic_batchsize(batch)
        return sorted({batch, largest})
    return (largest,)


def _spec(path: Path, inputs: Any, largest: int, batch: int) -> TensorSpec:
    """The input at `batch`, by its bytes at the `largest`: a client with AIPP may name the shape of either side of it.

    Raises PipelineError where that is not of images, or not as the record beside the model says.
    """
    told = sidecar.read(path).get("dtype")
    for dtype, layout in LAYOUTS.items() if len(inputs) == 1 else ():
        sides = inputs[0].shape[1:]
        for side in sides:
            spec = TensorSpec(inputs[0].name, (largest, *layout.shape(side)), layout.element)
            # Of NV12 ACL names the image, [N, H, W, 3] (aclmdlGetInputDims), or its own rows, [N, 3 H / 2, W, 1] (V2).
            named = sorted(sides) in (sorted((side, side, 3)), sorted((*layout.shape(side), 1)))
            if named and spec.nbytes == inputs[0].size and told in (None, dtype):
                return dataclasses.replace(spec, shape=(batch, *spec.shape[1:]))
    actual = ", ".join(f"{port.name} {list(port.shape)} of {port.size} bytes" for port in inputs)
    expected = f"its record says {told}" if told else "expected square images: float32 NCHW, uint8 NHWC or NV12"
    raise PipelineError(f"{path}: inputs are {actual}, {expected}; compile it again with convert.sh")


def _version() -> str:
    try:
        return metadata.version("ais_bench")
    except metadata.PackageNotFoundError:
        return "(version unknown)"
