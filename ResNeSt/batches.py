"""Image files -> logits, batch by batch: threads decode ahead of the thread that runs the model."""

from __future__ import annotations

import argparse
from typing import Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from ResNeSt.arguments import positive
from ResNeSt.cards import card
from ResNeSt.engines import NAMES, Engine, open_engine
from ResNeSt.errors import ArgumentError
from ResNeSt.files import PathLike
from ResNeSt.metadata import describe, tensor_format
from ResNeSt.parallel import Stopwatch, in_parallel
from ResNeSt.preprocess import BrokenImageError, tensor_maker
from ResNeSt.tensors import TensorFormat

FREE_BATCH = 16


class Batch(NamedTuple):
    """Images, why they could not be decoded (None for those that could), and the tensor that holds them, row by row."""

    images: Sequence[str]
    reasons: Sequence[Optional[str]]
    tensor: np.ndarray


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that say which model runs, how, and on what."""
    parser.add_argument(
        "--model",
        required=True,
        metavar="FILE",
        help="a .om, .xml, .onnx, or a checkpoint (.pth, .safetensors, .ckpt, .pdparams)",
    )
    parser.add_argument("--batch", type=positive, metavar="N", help=f"of a model that leaves it free [{FREE_BATCH}]")
    parser.add_argument("--engine", choices=NAMES, help="[by the model's suffix]")
    parser.add_argument("--arch", metavar="NAME", help="the network, where the file does not tell it")
    parser.add_argument("--device", type=int, default=0, metavar="N", help="of an NPU [%(default)s]")
    parser.add_argument("--workers", type=positive, metavar="N", help="threads that decode [one per core]")


def open_for_images(options: argparse.Namespace, batch: int = FREE_BATCH) -> Engine:
    """The engine that `add_model_flags` describe; `batch` is for a model that leaves it free and without --batch.

    Raises ArgumentError where the model has another batch size than --batch.
    """
    engine = open_engine(options.model, options.engine, options.batch or batch, options.arch, options.device)
    if options.batch and engine.input.shape[0] != options.batch:
        raise ArgumentError(
            f"{options.model}: its batch size is {engine.input.shape[0]}; leave --batch {options.batch} out"
        )
    return engine


def image_format(engine: Engine, path: PathLike, arch: Optional[str]) -> TensorFormat:
    """What images are turned into for the model at `path`, by the card `arch` or what the model says of itself.

    Raises PipelineError where neither tells.
    """
    named = card(arch) if arch else None
    info = describe(named, named.size, weights="") if named else engine.info
    return tensor_format(info, engine.input.shape, engine.input.dtype, path)


def logits_of(
    engine: Engine, made: TensorFormat, images: Sequence[str], workers: int, decoding: Stopwatch, inference: Stopwatch
) -> Iterator[Tuple[Batch, np.ndarray]]:
    """Batches of `images`, in their order, each with float32 logits (N, classes); `workers` threads decode."""
    infer = inference.timed(engine.run)
    for batch in _decoded(images, engine, made, workers, decoding):
        yield batch, infer(batch.tensor)


def _decoded(
    images: Sequence[str], engine: Engine, made: TensorFormat, workers: int, watch: Stopwatch
) -> Iterator[Batch]:
    size = engine.input.shape[0]
    make = tensor_maker(made)

    def rows() -> Iterator[Tuple[str, np.ndarray, int, int]]:
        for start in range(0, len(images), size):
            tensor = np.zeros(engine.input.shape, engine.input.dtype)
            together = images[start : start + size]
            for row, image in enumerate(together):
                yield image, tensor, row, len(together) - 1

    def work(item: Tuple[str, np.ndarray, int, int]) -> Optional[str]:
        image, tensor, row, _ = item
        try:
            make(image, tensor[row])
        except BrokenImageError as error:
            return str(error)
        return None

    group: List[str] = []
    reasons: List[Optional[str]] = []
    # Two batches ahead: one is being decoded while the model runs, and the next one is ready when it ends.
    for (image, tensor, row, last), reason in in_parallel(watch.timed(work), rows(), workers, ahead=2 * size):
        group.append(image)
        reasons.append(reason)
        if row == last:
            yield Batch(group, reasons, tensor)
            group, reasons = [], []
