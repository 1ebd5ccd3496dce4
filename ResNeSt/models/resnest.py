"""ResNeSt: split-attention networks (Zhang et al., arXiv 2004.08955), with the official parameter names.

The forward pass holds no shape arithmetic on the batch axis: every reshape keeps it as -1, so that an exported graph
runs at any batch size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ResNeSt.models.cards import Architecture, Card, card

EXPANSION = 4
REDUCTION = 4


class RadixSoftmax(nn.Module):
    """Softmax over the splits of each cardinal group: (N, k*r*c, 1, 1), group-major -> the same size, split-major.

    With one split there is nothing to choose between and the attention is a sigmoid.
    """

    def __init__(self, channels: int, cardinality: int, radix: int) -> None:
        super().__init__()
        self.radix = radix
        self.outputs = channels * radix
        self.grouped = (cardinality, radix, channels // cardinality)

    def forward(self, x: Tensor) -> Tensor:
        if self.radix == 1:
            return torch.sigmoid(x)
        return x.reshape(-1, *self.grouped).transpose(1, 2).softmax(dim=1).reshape(-1, self.outputs, 1, 1)


class SplitAttention(nn.Module):
    """Split-attention convolution (paper, figure 2): a grouped 3x3 convolution whose splits are weighed per channel.

    Input and output are (N, channels, H, W).
    """

    def __init__(self, channels: int, cardinality: int, radix: int) -> None:
        super().__init__()
        inner = max(channels * radix // REDUCTION, 32)
        self.channels = channels
        self.radix = radix
        self.conv = nn.Conv2d(channels, channels * radix, 3, padding=1, groups=cardinality * radix, bias=False)
        self.bn0 = nn.BatchNorm2d(channels * radix)
        self.relu = nn.ReLU()
        self.fc1 = nn.Conv2d(channels, inner, 1, groups=cardinality)
        self.bn1 = nn.BatchNorm2d(inner)
        self.fc2 = nn.Conv2d(inner, channels * radix, 1, groups=cardinality)
        self.rsoftmax = RadixSoftmax(channels, cardinality, radix)

    def forward(self, x: Tensor) -> Tensor:
        splits = self._split(self.relu(self.bn0(self.conv(x))))
        pooled = sum_all(splits).mean(dim=(2, 3), keepdim=True)
        attention = self.rsoftmax(self.fc2(self.relu(self.bn1(self.fc1(pooled)))))
        return sum_all([weight * split for weight, split in zip(self._split(attention), splits)])

    def _split(self, x: Tensor) -> Sequence[Tensor]:
        return torch.split(x, self.channels, dim=1) if self.radix > 1 else [x]


def sum_all(tensors: Sequence[Tensor]) -> Tensor:
    """Sum of tensors of one shape, without the leading zero that Python's `sum` adds to the graph."""
    total = tensors[0]
    for tensor in tensors[1:]:
        total = total + tensor
    return total


class Bottleneck(nn.Module):
    """1x1, split-attention 3x3, 1x1, with the stride in a 3x3 average pooling before or after the 3x3."""

    def __init__(
        self, inputs: int, planes: int, stride: int, downsample: nn.Module | None, arch: Architecture, pool: bool
    ) -> None:
        super().__init__()
        width = int(planes * arch.width / 64) * arch.cardinality
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.avd_layer = nn.AvgPool2d(3, stride, padding=1) if pool else None
        self.avd_first = arch.avd_first
        self.conv2 = SplitAttention(width, arch.cardinality, arch.radix)
        self.conv3 = nn.Conv2d(width, planes * EXPANSION, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes * EXPANSION)
        self.relu = nn.ReLU()
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.bn1(self.conv1(x)))
        if self.avd_layer is not None and self.avd_first:
            out = self.avd_layer(out)
        out = self.conv2(out)
        if self.avd_layer is not None and not self.avd_first:
            out = self.avd_layer(out)
        out = self.bn3(self.conv3(out))
        residual = x if self.downsample is None else self.downsample(x)
        out = self.relu(out + residual)
        return out


class ResNeSt(nn.Module):
    """Image classifier: float32 (N, 3, H, W), normalised RGB -> logits (N, num_classes)."""

    def __init__(self, arch: Architecture, num_classes: int) -> None:
        super().__init__()
        stem = arch.stem_width
        self.inputs = stem * 2
        self.conv1 = nn.Sequential(
            nn.Conv2d(3, stem, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(stem),
            nn.ReLU(),
            nn.Conv2d(stem, stem, 3, padding=1, bias=False),
            nn.BatchNorm2d(stem),
            nn.ReLU(),
            nn.Conv2d(stem, stem * 2, 3, padding=1, bias=False),
        )
        self.bn1 = nn.BatchNorm2d(stem * 2)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        strides = (1, 2, 2, 2)
        stages = [self._stage(*shape, arch) for shape in zip(arch.planes, arch.layers, strides)]
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.fc = nn.Linear(self.inputs, num_classes)

    def _stage(self, planes: int, blocks: int, stride: int, arch: Architecture) -> nn.Sequential:
        outputs = planes * EXPANSION
        downsample = None
        if stride != 1 or self.inputs != outputs:
            downsample = nn.Sequential(
                # ceil_mode and count_include_pad as in the official source; they matter at odd sizes only.
                nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False) if stride > 1 else nn.Identity(),
                nn.Conv2d(self.inputs, outputs, 1, bias=False),
                nn.BatchNorm2d(outputs),
            )
        first = Bottleneck(self.inputs, planes, stride, downsample, arch, pool=stride > 1)
        self.inputs = outputs
        rest = [Bottleneck(outputs, planes, 1, None, arch, pool=False) for _ in range(blocks - 1)]
        return nn.Sequential(first, *rest)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.fc(x.mean(dim=(2, 3)))
        return logits


def create_model(made_of: str | Card, num_classes: int | None = None) -> ResNeSt:
    """The network of a card, or of the card of that name, in training mode, with fresh weights.

    Classes are the card's unless given. Raises ArgumentError for an unknown name.
    """
    model_card = card(made_of) if isinstance(made_of, str) else made_of
    return ResNeSt(model_card.architecture, num_classes or model_card.classes)
