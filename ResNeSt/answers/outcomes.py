"""The first classes that a model predicts for each image, or what went wrong with it."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ResNeSt.common.parallel import Stopwatch, in_parallel
from ResNeSt.engines.engine import Engine
from ResNeSt.engines.image_batches import ImageBatch, logits_of
from ResNeSt.score.ranking import top_k_predictions
from ResNeSt.tensors.format import TensorFormat


class Outcome(NamedTuple):
    """The first classes predicted for an image, best first, or which of evaluate's KINDS went wrong and why.

    `unturned` is whether it was left as it lies against its EXIF orientation.
    """

    image: str
    classes: Sequence[int]
    problem: str = ""
    reason: str = ""
    unturned: bool = False


class Watches(NamedTuple):
    """The time that each stage worked."""

    decoding: Stopwatch
    inference: Stopwatch
    ranking: Stopwatch


def outcomes_of(
    engine: Engine, tensor_format: TensorFormat, ranks: int, images: Sequence[str], workers: int, watches: Watches
) -> Iterator[list[Outcome]]:
    """Outcomes of `images`, in their order, of `ranks` classes each, a list per batch; `workers` threads decode."""
    inferred = logits_of(engine, tensor_format, images, workers, watches.decoding, watches.inference)
    # One batch may wait to be ranked while the next one runs.
    rank = functools.partial(_rank, ranks=ranks)
    for _, outcomes in in_parallel(watches.ranking.timed(rank), inferred, workers=1, ahead=1):
        yield outcomes


def _rank(inferred: tuple[ImageBatch, np.ndarray], ranks: int) -> list[Outcome]:
    batch, logits = inferred
    outcomes = []
    for image, reason, unturned, row in zip(batch.images, batch.reasons, batch.unturned, logits):
        if reason is not None:
            outcomes.append(Outcome(image, (), "broken", reason))
        elif not np.isfinite(row).all():
            outcomes.append(Outcome(image, (), "not-finite", f"{image}: {np.sum(~np.isfinite(row))} values"))
        else:
            classes = top_k_predictions(row[None], ranks)[0].tolist()
            outcomes.append(Outcome(image, classes, unturned=unturned))
    return outcomes
