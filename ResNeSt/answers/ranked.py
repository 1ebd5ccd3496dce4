"""The most probable classes of each image, by number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ResNeSt.common.parallel import Stopwatch
from ResNeSt.engines.engine import Engine
from ResNeSt.engines.image_batches import ImageBatch, logits_of
from ResNeSt.score.ranking import are_probabilities, softmax, top_k_predictions
from ResNeSt.tensors.format import TensorFormat


class Ranked(NamedTuple):
    """The most probable of `classes` classes, best first, and how probable they are, or why there are none.

    `unturned` is whether the image was left as it lies against its EXIF orientation.
    """

    image: str
    classes: int
    labels: Sequence[int]
    probabilities: Sequence[float]
    reason: str = ""
    unturned: bool = False


def ranked(
    engine: Engine, tensor_format: TensorFormat, images: Sequence[str], workers: int, top: int
) -> Iterator[Ranked]:
    """The `top` most probable classes of `images`, in their order; `workers` threads decode."""
    for batch, logits in logits_of(engine, tensor_format, images, workers, Stopwatch(), Stopwatch()):
        yield from rank(batch, logits, engine.probabilities, top)


def rank(batch: ImageBatch, logits: np.ndarray, probabilities: bool, top: int) -> Iterator[Ranked]:
    """The same of one batch; `probabilities` is whether its float32 (N, classes) are not logits but these."""
    classes = logits.shape[1]
    for image, reason, unturned, row in zip(batch.images, batch.reasons, batch.unturned, logits):
        if reason is None and not np.isfinite(row).all():
            reason = f"{image}: the model gives NaN or infinity for it; check the model"
        if reason is not None:
            yield Ranked(image, classes, (), (), reason)
            continue
        answer = row if probabilities or are_probabilities(row[None]) else softmax(row)
        labels = top_k_predictions(answer[None], top)[0].tolist()
        yield Ranked(image, classes, labels, [float(answer[label]) for label in labels], unturned=unturned)
