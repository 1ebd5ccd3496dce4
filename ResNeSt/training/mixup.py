"""Mixup: each image is blended with another one of its batch, and the loss with the other one's (arXiv 1710.09412)."""

from __future__ import annotations

from random import Random

from torch import Tensor
from torch.nn import functional

from ResNeSt.training.settings import Settings


def share_of_first(settings: Settings, step: int) -> float:
    """How much of each image stays, drawn for step `step` from Beta(mixup, mixup); 1 without mixup."""
    if settings.mixup == 0:
        return 1.0
    return Random(f"mixup {settings.seed} {step}").betavariate(settings.mixup, settings.mixup)


def mixed(images: Tensor, share: float) -> Tensor:
    """Images (N, 3, H, W), each with the rest from its counterpart in the reversed batch, as the official trainer."""
    return images if share == 1 else share * images + (1 - share) * images.flip(0)


def loss_of(logits: Tensor, labels: Tensor, share: float, smoothing: float) -> Tensor:
    """Mean cross-entropy of logits (N, classes) of `mixed` images with int64 labels (N,), which are smoothed."""
    loss = functional.cross_entropy(logits, labels, label_smoothing=smoothing)
    if share == 1:
        return loss
    other = functional.cross_entropy(logits, labels.flip(0), label_smoothing=smoothing)
    return share * loss + (1 - share) * other
