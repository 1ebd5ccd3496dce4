"""The softmax of two, as a sigmoid (radix 2).

The attention is a softmax over two values a channel, which needs a 5-D view, two transposes and a Softmax:

    fc2 -> Reshape -> Transpose -> Softmax -> Reshape -> Split -> [p, q];  out = p x0 + q x1

    p = e^a / (e^a + e^b) = 1 / (1 + e^(b-a)) = sigmoid(a - b);  q = 1 - p

    out = p x0 + (1 - p) x1 = x1 + p (x0 - x1)

fc2 is linear, so a - b comes from one convolution with the difference of its halves (of each cardinal group's halves):

    a - b = (Wa - Wb) h + (ba - bb)

What remains is fc2 at half the size, one Sigmoid and three element-wise operators, all in four dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ResNeSt.export.rewrites.attention import Splits, WeighedSum, rewrite_attention
from ResNeSt.models.resnest import ResNeSt, SplitAttention


class SigmoidSum(WeighedSum):
    """Two splits, weighed in the form above."""

    def __init__(self, original: SplitAttention) -> None:
        super().__init__(original)
        self.fc2 = _difference(original.fc2)

    def forward(self, splits: Splits) -> Tensor:
        """Two of (N, C, H, W) -> one."""
        first, second = splits
        share = torch.sigmoid(self.logits(first + second))
        return second + share * (first - second)


def _difference(fc2: nn.Conv2d) -> nn.Conv2d:
    half = nn.Conv2d(fc2.in_channels, fc2.out_channels // 2, 1, groups=fc2.groups)
    state = {}
    for name, values in fc2.state_dict().items():
        # Rows are ordered group, split, channel.
        first, second = values.double().reshape(fc2.groups, 2, -1, *values.shape[1:]).unbind(1)
        state[name] = (first - second).flatten(0, 1).float()
    half.load_state_dict(state)
    return half


def sigmoid_attention(model: ResNeSt) -> None:
    """Rewrites every block of radix 2; leaves the others as they are."""
    rewrite_attention(model, lambda attention: attention.radix == 2, SigmoidSum)
