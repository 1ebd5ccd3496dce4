"""The network as it enters training: fresh or from a checkpoint, with the recipe's changes to it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import PathLike
from ResNeSt.models.cards import Card
from ResNeSt.models.checkpoint import load_state, read
from ResNeSt.models.resnest import Bottleneck, ResNeSt, create_model
from ResNeSt.training.distributed import Processes


class SharedDropout:
    """Dropout before the classifier, with the same zeros however many processes share a step.

    A hook and no module, since a module would change the names of the classifier's parameters. `begin` tells it the
    step; its zeros depend on the seed and the step alone, so a resumed run has those of an uninterrupted one.
    """

    def __init__(self, share: float, seed: int, processes: Processes) -> None:
        self._share = share
        self._seed = seed
        self._processes = processes
        self._draw = torch.Generator()

    def begin(self, step: int) -> None:
        """Sets what step `step`, counted from the start of training, drops."""
        self._draw.manual_seed((self._seed * 1_000_003 + step) % 2**63)

    def __call__(self, module: nn.Module, inputs: tuple[Tensor]) -> Tensor:
        """The classifier's input, (batch, features), with a share of it zero and the rest scaled up."""
        (features,) = inputs
        if not module.training or self._share == 0:
            return features
        batch, width = features.shape
        kept = torch.rand(batch * self._processes.count, width, generator=self._draw) >= self._share
        mine = kept[batch * self._processes.rank :][:batch].to(features.device)
        return features * mine / (1 - self._share)


class DropBlock:
    """Zeros in blocks of 3 x 3, and what is left scaled up (Ghiasi et al., arXiv 1810.12890).

    It is torchvision's drop_block2d with a generator of its own, so that what a step drops depends on the seed, the
    step and the process alone. It works after the batch norms of the last two stages, as in the official network.
    The share of zeros grows from 0 to `share`, as in the official Gluon trainer.
    """

    def __init__(self, share: float, seed: int, processes: Processes) -> None:
        self._most = self._share = share
        self._seed = seed
        self._processes = processes
        self._draw = torch.Generator(processes.device)

    def hook(self, model: nn.Module) -> None:
        """Lets it work on a ResNeSt in training."""
        stages: Any = (model.layer3, model.layer4)
        for block in itertools.chain(*stages):
            for norm in (block.bn1, block.conv2.bn0, block.bn3):
                norm.register_forward_hook(self)

    def begin(self, step: int, past: float) -> None:
        """Sets what step `step`, counted from the start of training, drops; `past` is the share of it that is over."""
        self._share = self._most * past
        self._draw.manual_seed((self._seed * 1_000_003 + step * self._processes.count + self._processes.rank) % 2**63)

    def __call__(self, module: nn.Module, _: object, output: Tensor) -> Tensor:
        """The output of a batch norm, (N, C, H, W), with its blocks."""
        return output * self._kept(output) if module.training else output

    def _kept(self, x: Tensor) -> Tensor:
        images, channels, height, width = x.shape
        side = 3 if min(height, width) >= 3 else 1
        high, wide = height - side + 1, width - side + 1
        share = min(1.0, self._share * height * width / (side**2 * high * wide))
        centres = x.new_empty((images, channels, high, wide)).bernoulli_(share, generator=self._draw)
        centres = functional.pad(centres, [side // 2] * 4)
        kept = 1 - functional.max_pool2d(centres, side, stride=1, padding=side // 2)
        return kept * (kept.numel() / kept.sum(dtype=torch.float32).clamp(min=1)).to(x.dtype)


def build(
    card: Card,
    weights: PathLike | None,
    seed: int,
    ema: bool | None = None,
    weights_names: Sequence[str] | None = None,
) -> tuple[ResNeSt, str]:
    """A network of `card` and a line that says where its weights come from.

    A checkpoint of another number of classes, of classes that are not known to be those that `card` names, or without
    a classifier, gives all but that; `weights_names` are what its classes are called, where that is known. `ema`
    chooses in one that holds its weights' moving average, too. Raises PipelineError where it does not fit, and for one
    of a framework that pools in another way.
    """
    torch.manual_seed(seed)
    model = create_model(card)
    _initialise(model)
    if weights is None:
        return model, "fresh weights"
    return model, _load(model, weights, ema, _same_classes(card.class_names, weights_names))


def _same_classes(names: Sequence[str] | None, others: Sequence[str] | None) -> bool:
    """Whether classes of these names, or of numbers alone, are taken for those of the others, in the same order."""
    return not names or list(names) in (list(others or ()), [str(number) for number in range(len(names))])


def _initialise(model: nn.Module) -> None:
    """He's initialisation (arXiv 1502.01852), and 0 for the last batch norm of each block, so that all blocks start as
    the identity (Goyal et al., arXiv 1706.02677).
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, Bottleneck):
            nn.init.zeros_(module.bn3.weight)


def _load(model: ResNeSt, path: PathLike, ema: bool | None, same_classes: bool) -> str:
    weights = read(path, ema)
    if weights.pooling != "zeros":
        raise PipelineError(
            f"{path}: its network pools in another way ({weights.pooling}) than a checkpoint of this project can say; "
            "start from an official checkpoint (--weights auto)"
        )
    entries = f" ({weights})" if str(weights) else ""
    classes = len(weights.state.get("fc.weight", ()))
    fits = classes == model.fc.out_features
    if (fits and same_classes) or ("fc.bias" in weights.state and not classes):
        load_state(model, weights.state, path)
        return f"weights of {path}{entries}"
    load_state(model, {**weights.state, **model.fc.state_dict(prefix="fc.")}, path)
    own = f"its own has {classes} classes, not {model.fc.out_features}" if classes else "it has none"
    if fits:
        own = "nothing says that its own has these classes in this order"
    return f"weights of {path}{entries}, but a fresh classifier: {own}"


def parameter_groups(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Parameters for an optimizer: weight decay on the weights of convolutions and the classifier alone, not on batch
    norm and biases, which are vectors.
    """
    matrices: list[Tensor] = []
    vectors: list[Tensor] = []
    for parameter in model.parameters():
        (vectors if parameter.ndim == 1 else matrices).append(parameter)
    return [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]
