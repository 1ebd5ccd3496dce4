"""Image files -> logits, batch by batch: threads decode ahead of the thread that runs the model."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ResNeSt.common.arguments import Parser
from ResNeSt.common.errors import ArgumentError
from ResNeSt.common.files import PathLike
from ResNeSt.common.flags import take
from ResNeSt.common.parallel import Stopwatch, in_parallel
from ResNeSt.engines.engine import Engine, fitting
from ResNeSt.engines.instances import Instances
from ResNeSt.engines.opening import NAMES, open_engine
from ResNeSt.images.decode import BrokenImageError, tensor_maker
from ResNeSt.models import model_info
from ResNeSt.models.cards import card
from ResNeSt.tensors.format import TensorFormat

FREE_BATCH = 16


@dataclasses.dataclass(frozen=True)
class ModelChoice:
    """Which model runs on images, and how.

    `file` is a .om, .xml, .param, .onnx or checkpoint; `engine` the runtime (None: the suffix's own); `batch` the batch
    size of a model that takes several; `arch` the network, where the file does not tell it; `device` an NPU's number;
    `workers` the threads that decode (None: one per core); `instances` how many of the model run side by side (None: as
    many as its runtime finds best for throughput); `exif` whether images are turned as their EXIF orientation says;
    `ema` which weights of a checkpoint (None: as timm does).
    """

    file: PathLike
    batch: int | None = None
    engine: str | None = None
    arch: str | None = None
    device: int = 0
    workers: int | None = None
    instances: int | None = None
    exif: bool = False
    ema: bool | None = None


class ImageBatch(NamedTuple):
    """Images, why they could not be decoded (None for those that could), and the tensor that holds them, row by row.

    `unturned` says which were left as they lie against their EXIF orientation.
    """

    images: Sequence[str]
    reasons: Sequence[str | None]
    tensor: np.ndarray
    unturned: Sequence[bool]


def add_model_flags(parser: Parser, side_by_side: int | None = None, **model: Any) -> None:
    """The flags that make a ModelChoice; `side_by_side` are the instances by default, `model` is what --model takes."""
    take(parser, "model", required=True, **model)
    take(parser, "batch", note=f"{FREE_BATCH}, of a model that takes several")
    take(parser, "engine", choices=NAMES, note="by the model's suffix")
    take(parser, "arch", note="as the file tells")
    take(parser, "device", default=0)
    take(parser, "instances", default=side_by_side, note="" if side_by_side else "auto: by cores and network")
    take(parser, "workers")
    take(parser, "exif")
    take(parser, "threads")
    take(parser, "ema")


def model_choice(options: argparse.Namespace) -> ModelChoice:
    """What `add_model_flags` parsed."""
    return ModelChoice(
        file=options.model,
        batch=options.batch,
        engine=options.engine,
        arch=options.arch,
        device=options.device,
        workers=options.workers,
        instances=options.instances,
        exif=options.exif,
        ema=options.ema,
    )


def open_for_images(model: ModelChoice, free_batch: int = FREE_BATCH, images: int | None = None) -> Engine:
    """The engine of a choice, at the smallest of its batch sizes that holds `free_batch` unless the choice names one.

    `images` are to be run, where that is known.

    Raises ArgumentError where the model does not take the one that is named, and what `open_engine` raises.
    """
    batch = model.batch or free_batch
    engine = open_engine(model.file, model.engine, batch, model.arch, model.device, model.ema, model.instances, images)
    if model.batch and engine.input.shape[0] != model.batch:
        sizes = f"sizes are {', '.join(map(str, engine.sizes))}" if engine.sizes[1:] else f"size is {engine.sizes[0]}"
        raise ArgumentError(f"{model.file}: its batch {sizes}; leave --batch {model.batch} out")
    return engine


def image_format(engine: Engine, model: ModelChoice) -> TensorFormat:
    """What images are turned into for the model, by the card of its `arch` or what its file says of itself.

    Raises PipelineError where neither tells, ArgumentError where they are of other means or stds, or of classes that
    are called otherwise. Another recipe is the user's choice.
    """
    info = engine.info
    if model.arch:
        named = card(model.arch)
        info = model_info.describe(named, named.size, weights="")
        said = {key: value for key, value in info.items() if key in ("mean", "std", "class_names")}
        model_info.refuse_other(engine.info, said, model.file, named.name)
    tensor_format = model_info.tensor_format(info, engine.input.shape, engine.input.dtype, model.file)
    return dataclasses.replace(tensor_format, exif=model.exif)


def logits_of(
    engine: Engine,
    tensor_format: TensorFormat,
    images: Sequence[str],
    workers: int,
    decoding: Stopwatch,
    inference: Stopwatch,
) -> Iterator[tuple[ImageBatch, np.ndarray]]:
    """Batches of `images`, in their order, each with float32 logits (N, classes); `workers` threads decode.

    N is the images' number or more: rows behind them are of no image.
    """

    def infer(instance: Engine, batch: ImageBatch) -> np.ndarray:
        return inference.timed(instance.run)(batch.tensor)

    with Instances(engine) as side_by_side:
        yield from side_by_side.each(infer, _decoded(images, engine, tensor_format, workers, decoding))


def _decoded(
    images: Sequence[str], engine: Engine, tensor_format: TensorFormat, workers: int, watch: Stopwatch
) -> Iterator[ImageBatch]:
    size, *shape = engine.input.shape
    make = tensor_maker(tensor_format)

    def rows() -> Iterator[tuple[str, np.ndarray, int, int]]:
        for start in range(0, len(images), size):
            together = images[start : start + size]
            # The last, short batch takes no more room than it has to.
            tensor = np.zeros((fitting(engine.sizes, len(together)), *shape), engine.input.dtype)
            for row, image in enumerate(together):
                yield image, tensor, row, len(together) - 1

    def work(item: tuple[str, np.ndarray, int, int]) -> tuple[str | None, bool]:
        image, tensor, row, _ = item
        try:
            return None, make(image, tensor[row])
        except BrokenImageError as error:
            return str(error), False

    group: list[str] = []
    made: list[tuple[str | None, bool]] = []
    # Two batches ahead: one is being decoded while the model runs, and the next one is ready when it ends.
    for (image, tensor, row, last), one in in_parallel(watch.timed(work), rows(), workers, ahead=2 * size):
        group.append(image)
        made.append(one)
        if row == last:
            reasons, unturned = zip(*made)
            yield ImageBatch(group, reasons, tensor, unturned)
            group, made = [], []
