"""Learning rate: a linear warm-up, then half a cosine down to 0 (Loshchilov and Hutter, arXiv 1608.03983)."""

from __future__ import annotations

import math

from ResNeSt.training.settings import BASE_BATCH, Settings


def peak_rate(settings: Settings, devices: int) -> float:
    """The highest learning rate: `rate` for every 64 images of a step (Goyal et al., arXiv 1706.02677)."""
    return settings.rate * settings.batch * devices / BASE_BATCH


def rate_at(step: int, steps: int, settings: Settings, peak: float) -> float:
    """Learning rate of step `step`, counted from 0 over all epochs of `steps` steps each.

    A function of the step alone, so that a resumed run needs to know nothing else.
    """
    warmup, total = settings.warmup_epochs * steps, settings.epochs * steps
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))
