"""The grouped 3x3 convolution that makes the splits, as a dense one for each (cardinality 1, radix 2 and up).

With cardinality 1 the 3x3 convolution has one group a split, fed by its own part of conv1's channels:

    conv1 -> [h0 h1] -> grouped 3x3 -> Split -> x0, x1

A grouped convolution is block-diagonal: its groups are convolutions that share nothing. ReLU and average pooling work a
channel at a time, so everything can be cut between the groups, conv1 included:

    conv1, first rows  -> h0 -> 3x3, first rows  -> x0
    conv1, second rows -> h1 -> 3x3, second rows -> x1

Every output is the same sum as before. No Split and no grouped convolution is left: OpenVINO does not run grouped
convolutions in int8, and GraphEngine's own examples decompose them for speed.

With more cardinal groups a split would be put together from several convolutions again, so those stay as they are.
"""

from __future__ import annotations

from typing import TypeGuard

from torch import Tensor, nn

from ResNeSt.export.rewrites.attention import RewrittenAttention, WeighedSum, rewrite_attention
from ResNeSt.models.resnest import Bottleneck, ResNeSt


class DenseBottleneck(nn.Module):
    """A Bottleneck, its batch norms folded and its attention rewritten, in the form above."""

    def __init__(self, original: Bottleneck, attention: RewrittenAttention) -> None:
        super().__init__()
        self.narrow = _cut(original.conv1, attention.radix)
        self.wide = _cut(attention.conv, attention.radix)
        self.weigh, self.relu, self.conv3 = attention.weigh, original.relu, original.conv3
        self.pool = original.avd_layer or nn.Identity()
        self.pool_first = original.avd_first
        self.downsample = original.downsample or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H / stride, W / stride)."""
        parts = [self.relu(narrow(x)) for narrow in self.narrow]
        if self.pool_first:
            parts = [self.pool(part) for part in parts]
        out: Tensor = self.weigh([self.relu(wide(part)) for wide, part in zip(self.wide, parts)])
        if not self.pool_first:
            out = self.pool(out)
        out = self.relu(self.conv3(out) + self.downsample(x))
        return out


def _cut(conv: nn.Conv2d, parts: int) -> nn.ModuleList:
    """A convolution of one group or of `parts` groups, as `parts` dense ones that each make a part of its output."""
    pieces = nn.ModuleList()
    state = {name: values.chunk(parts) for name, values in conv.state_dict().items()}
    for part in range(parts):
        outputs, inputs = state["weight"][part].shape[:2]
        piece = nn.Conv2d(inputs, outputs, conv.kernel_size, conv.stride, conv.padding)  # type: ignore[arg-type]
        piece.load_state_dict({name: values[part] for name, values in state.items()})
        pieces.append(piece)
    return pieces


def dense_splits(model: ResNeSt) -> None:
    """Rewrites every block of radix 2 and up and cardinality 1; leaves the others as they are."""
    rewrite_attention(model, lambda attention: attention.radix > 2 and attention.fc2.groups == 1, WeighedSum)
    for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
        for index, block in enumerate(stage):
            if isinstance(block, Bottleneck) and _has_a_group_a_split(block.conv2):
                stage[index] = DenseBottleneck(block, block.conv2)


def _has_a_group_a_split(attention: nn.Module) -> TypeGuard[RewrittenAttention]:
    return isinstance(attention, RewrittenAttention) and attention.conv.groups == attention.radix
