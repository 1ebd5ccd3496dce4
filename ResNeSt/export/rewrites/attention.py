"""A SplitAttention in two parts, the convolution that makes the splits and the sum that weighs them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from ResNeSt.models.resnest import ResNeSt, SplitAttention, sum_all

Splits = Sequence[Tensor]


class WeighedSum(nn.Module):
    """`radix` splits of (N, C, H, W) -> their weighed sum of the same shape; batch norms are folded away already."""

    def __init__(self, original: SplitAttention) -> None:
        super().__init__()
        self.fc1, self.relu, self.fc2, self.rsoftmax = original.fc1, original.relu, original.fc2, original.rsoftmax
        self.channels = original.channels

    def logits(self, total: Tensor) -> Tensor:
        """fc2's output, from the sum of the splits."""
        logits: Tensor = self.fc2(self.relu(self.fc1(total.mean(dim=(2, 3), keepdim=True))))
        return logits

    def forward(self, splits: Splits) -> Tensor:
        """The textbook form: a softmax over the splits."""
        weights = self.rsoftmax(self.logits(sum_all(splits))).split(self.channels, dim=1)
        return sum_all([weight * split for weight, split in zip(weights, splits)])


class RewrittenAttention(nn.Module):
    """A SplitAttention whose sum is `weigh`."""

    def __init__(self, original: SplitAttention, weigh: WeighedSum) -> None:
        super().__init__()
        self.conv, self.relu, self.weigh = original.conv, original.relu, weigh
        self.channels, self.radix = original.channels, original.radix

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        out: Tensor = self.weigh(self.relu(self.conv(x)).split(self.channels, dim=1))
        return out


def rewrite_attention(model: ResNeSt, wanted: Callable[[SplitAttention], bool], weigh: type[WeighedSum]) -> None:
    """Takes apart the attention of every block where it is `wanted`, with `weigh` for its sum."""
    for block in list(model.modules()):
        attention = getattr(block, "conv2", None)
        if isinstance(attention, SplitAttention) and wanted(attention):
            block.conv2 = RewrittenAttention(attention, weigh(attention))
