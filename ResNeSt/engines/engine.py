"""What an engine is: it describes its input and turns a batch into logits."""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections.abc import Sequence
from typing import Callable, Protocol

import numpy as np

from ResNeSt.common.arguments import LARGEST_BATCH, MOST_INSTANCES
from ResNeSt.common.errors import ArgumentError, PipelineError
from ResNeSt.common.files import PathLike
from ResNeSt.tensors.format import dtype_of

ANY_SIZE = range(1, LARGEST_BATCH + 1)  # of a model that leaves its batch size free


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """One input of a model: name, shape with the batch axis first, NumPy dtype name."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        """Bytes of one whole batch."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize

    @property
    def kind(self) -> str:
        """What --dtype calls tensors for it (tensors.format.LAYOUTS); the NumPy name where that has none."""
        return dtype_of(self.shape[1:], self.dtype) or self.dtype


@dataclasses.dataclass(frozen=True)
class Opening:
    """How a model is opened.

    `batch` is the batch size of a file that leaves it free; the others keep theirs. `arch` names the network of a
    checkpoint whose file name does not, `ema` chooses in one that holds its weights' moving average, too
    (ResNeSt.models.checkpoint). `device` numbers an NPU or a GPU. `instances` are to run side by side: one alone
    answers a batch soonest, None are as many as the runtime finds best for throughput, and no more than `images`, where
    it is known how many there will be, make batches: an instance without a batch would keep its cores from the others.
    """

    batch: int = 1
    arch: str | None = None
    device: int = 0
    ema: bool | None = None
    instances: int | None = 1
    images: int | None = None

    def busy(self, size: int) -> int:
        """How many instances can have a batch of `size` images to run."""
        return MOST_INSTANCES if self.images is None else max(1, math.ceil(self.images / size))


class Engine(Protocol):
    """A loaded model.

    `title` names runtime and version, `input` says what `run` takes at the batch size that the engine was opened for.
    `sizes` are all batch sizes that it takes, ascending: that one alone, those of a dynamic batch, or ANY_SIZE. `info`
    is what the file says of itself (ResNeSt.models.model_info; empty for a file of another program). `probabilities` is
    whether the network ends in Softmax or Sigmoid: what `run` calls logits are probabilities then. `instances` says how
    many of it are to run side by side, each on its share of the cores. `run` is called from the thread that opened the
    engine.
    """

    title: str
    input: TensorSpec
    info: dict[str, str]
    probabilities: bool
    instances: int

    @property
    def sizes(self) -> Sequence[int]:
        """The batch sizes that `run` takes, ascending."""
        ...

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Logits, float32 (N, classes), of a batch of `input`'s dtype and shape, N being any of `sizes`."""
        ...

    def another(self) -> Engine:
        """An instance of the same model for the thread that calls this; weights are shared where the runtime can."""
        ...


def as_logits(path: PathLike, output: np.ndarray, batch: int) -> np.ndarray:
    """What a model put out, as float32 (N, classes); raises PipelineError where it is of another shape."""
    if output.ndim != 2 or len(output) != batch:
        raise PipelineError(
            f"{path}: gives {list(output.shape)} for {batch} images, expected [{batch}, classes]; export it again with "
            "its batch axis kept (a Reshape in it may set it) and a Flatten at the end"
        )
    return np.asarray(output, dtype=np.float32)


def fitting(sizes: Sequence[int], count: int) -> int:
    """The smallest of `sizes`, which ascend, that holds `count` images, else the largest."""
    return sizes[min(bisect.bisect_left(sizes, count), len(sizes) - 1)]


def check_named(model: PathLike, sizes: Sequence[int], batch: int | None) -> None:
    """Raises ArgumentError where `batch` (--dymBatch) is named for a model of one size, or is none of several.

    So does ais_bench (contract: ais_bench, dynamic batch).
    """
    if len(sizes) == 1 and batch is not None:
        raise ArgumentError(f"{model}: is for a batch of {sizes[0]} alone; leave --dymBatch {batch} out")
    if len(sizes) > 1 and batch not in sizes:
        known = "any" if sizes is ANY_SIZE else ", ".join(map(str, sizes))
        raise ArgumentError(f"{model}: takes several batch sizes ({known}); choose one with --dymBatch N")


def run_images(engine: Engine, images: np.ndarray) -> np.ndarray:
    """Logits, float32 (N, classes), of any number of images, in batches of the engine's.

    The last runs in the smallest of the engine's sizes that holds it, filled up to that.
    """
    size = engine.input.shape[0]
    batches = [images[start : start + size] for start in range(0, len(images), size)]
    filled = [fill(batch, fitting(engine.sizes, len(batch))) for batch in batches]
    return np.concatenate([engine.run(batch) for batch in filled])[: len(images)]


def in_pieces(run: Callable[[np.ndarray], np.ndarray], images: np.ndarray, size: int) -> np.ndarray:
    """What `run`, which takes `size` images and no other number, gives for any number of them."""
    pieces = [fill(images[start : start + size], size) for start in range(0, len(images), size)]
    return np.concatenate([run(piece) for piece in pieces])[: len(images)]


def fill(images: np.ndarray, size: int) -> np.ndarray:
    """(N, ...) -> (size, ...) by repeating the last image."""
    missing = size - len(images)
    return np.concatenate([images, np.repeat(images[-1:], missing, axis=0)]) if missing else images
