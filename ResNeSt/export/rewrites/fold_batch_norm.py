"""Batch norms, folded into the convolutions before them.

In eval mode a batch norm is a scale and a shift of every channel, and a convolution is linear:

    conv -> batch norm:   y = g (W x + b - m) / s + t,   s = sqrt(variance + eps)
    conv:                 y = (g/s W) x + (g/s (b - m) + t)
"""

from __future__ import annotations

from torch import nn
from torch.nn.utils import fuse_conv_bn_eval

from ResNeSt.models.resnest import ResNeSt

# A convolution and its batch norm, where they are attributes of one module.
PAIRS = (("conv1", "bn1"), ("conv", "bn0"), ("fc1", "bn1"), ("conv3", "bn3"))


def fold_batch_norm(model: ResNeSt) -> None:
    """Leaves no batch norm in `model`."""
    # The stem's last convolution and its batch norm are apart.
    model.conv1.append(model.bn1)
    model.bn1 = nn.Identity()  # type: ignore[assignment]
    for module in list(model.modules()):
        if isinstance(module, nn.Sequential):
            _fold_neighbours(module)
        for conv, norm in PAIRS:
            if isinstance(getattr(module, norm, None), nn.BatchNorm2d):
                _fold(module, conv, norm)


def _fold_neighbours(sequence: nn.Sequential) -> None:
    names = list(sequence._modules)
    for conv, norm in zip(names, names[1:]):
        if isinstance(getattr(sequence, norm), nn.BatchNorm2d):
            _fold(sequence, conv, norm)


def _fold(module: nn.Module, conv: str, norm: str) -> None:
    if isinstance(getattr(module, conv, None), nn.Conv2d):
        setattr(module, conv, fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm)))
        setattr(module, norm, nn.Identity())
