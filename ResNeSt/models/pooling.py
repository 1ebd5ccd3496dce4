"""How a network pools at the border: the one thing in which the frameworks' ResNeSts differ.

Stage 2 on, a block's 3x3 average pooling halves the picture, and the stem ends in a 3x3 maximum pooling with stride 2.

| pooling | average at the border | windows at even sizes | who |
| --- | --- | --- | --- |
| zeros | padding counts as zeros | begin one pixel outside | the official source, timm, MindSpore's model zoo |
| trimmed | padding is left out | begin one pixel outside | PaddleClas |
| same | padding is left out | end one pixel outside | MindCV (pad_mode "same") |
"""

from __future__ import annotations

import warnings

from torch import Tensor, nn
from torch.jit._trace import TracerWarning

from ResNeSt.models.resnest import Bottleneck, ResNeSt

POOLINGS = ("zeros", "trimmed", "same")


class SamePooling(nn.Module):
    """3x3 pooling with stride 2 and the padding called "same": (N, C, H, W) -> H and W halved, rounded up; H = W."""

    def __init__(self, even: nn.Module, odd: nn.Module) -> None:
        super().__init__()
        self.even, self.odd = even, odd

    def forward(self, x: Tensor) -> Tensor:
        with warnings.catch_warnings():
            # An exported graph has a fixed size, so the exporter may decide this once.
            warnings.simplefilter("ignore", TracerWarning)
            is_even = bool(x.shape[-1] % 2 == 0)
        pooled: Tensor = self.even(x) if is_even else self.odd(x)
        return pooled


def set_pooling(model: ResNeSt, pooling: str) -> None:
    """Makes a fresh `model`, which pools as the first of POOLINGS, pool as `pooling`."""
    if pooling == "same":
        # At even sizes all padding is at the end, which is what rounding up does.
        model.maxpool = SamePooling(nn.MaxPool2d(3, 2, ceil_mode=True), model.maxpool)  # type: ignore[assignment]
    for block in model.modules():
        if isinstance(block, Bottleneck) and block.avd_layer is not None and pooling != "zeros":
            block.avd_layer = _average(pooling)  # type: ignore[assignment]


def _average(pooling: str) -> nn.Module:
    trimmed = nn.AvgPool2d(3, 2, padding=1, count_include_pad=False)
    if pooling == "trimmed":
        return trimmed
    return SamePooling(nn.AvgPool2d(3, 2, ceil_mode=True, count_include_pad=False), trimmed)
