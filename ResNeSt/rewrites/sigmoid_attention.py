"""The softmax of two, as a sigmoid.

With radix 2 and cardinality 1 the attention is a softmax over two values a channel, which needs a 5-D view, two
transposes and a Softmax:

    fc2 -> Reshape -> Transpose -> Softmax -> Reshape -> Split -> [p, q];  out = p x0 + q x1

    p = e^a / (e^a + e^b) = 1 / (1 + e^(b-a)) = sigmoid(a - b);  q = 1 - p

    out = p x0 + (1 - p) x1 = x1 + p (x0 - x1)

fc2 is linear, so a - b comes from one convolution with the difference of its two halves:

    a - b = (Wa - Wb) h + (ba - bb)

What remains is fc2 at half the size, one Sigmoid and three element-wise operators, all in four dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ResNeSt.models.resnest import ResNeSt, SplitAttention


class SigmoidAttention(nn.Module):
    """A SplitAttention of radix 2 and cardinality 1, in the form above."""

    def __init__(self, original: SplitAttention) -> None:
        super().__init__()
        self.channels = original.channels
        self.conv, self.bn0, self.relu = original.conv, original.bn0, original.relu
        self.fc1, self.bn1 = original.fc1, original.bn1
        self.fc2 = _difference(original.fc2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) to the same shape."""
        first, second = self.relu(self.bn0(self.conv(x))).split(self.channels, dim=1)
        pooled = (first + second).mean(dim=(2, 3), keepdim=True)
        share = torch.sigmoid(self.fc2(self.relu(self.bn1(self.fc1(pooled)))))
        return second + share * (first - second)


def _difference(fc2: nn.Conv2d) -> nn.Conv2d:
    half = nn.Conv2d(fc2.in_channels, fc2.out_channels // 2, 1)
    state = {}
    for name, values in fc2.state_dict().items():
        first, second = values.double().chunk(2)
        state[name] = (first - second).float()
    half.load_state_dict(state)
    return half


def sigmoid_attention(model: ResNeSt) -> None:
    """Rewrites every block of radix 2 and cardinality 1; leaves the others as they are."""
    for block in model.modules():
        attention = getattr(block, "conv2", None)
        if isinstance(attention, SplitAttention) and attention.radix == 2 and attention.conv.groups == 2:
            block.conv2 = SigmoidAttention(attention)
