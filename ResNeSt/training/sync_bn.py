"""Batch norm over the images of all processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, distributed, nn

from ResNeSt.models.resnest import ResNeSt
from ResNeSt.training.distributed import Processes


class _SumOfAll(torch.autograd.Function):
    """Sum of all processes' tensors; every process gets the sum of the gradients, since its tensor is in all sums."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        distributed.all_reduce(total)
        return total


_sum_of_all: Callable[[Tensor], Tensor] = _SumOfAll.apply


class SyncBatchNorm(nn.BatchNorm2d):
    """nn.SyncBatchNorm for processors, which PyTorch's refuses; every process has as many images in a step.

    Input and output are (N, C, H, W); mean and variance are taken in float32.
    """

    processes: Processes

    def forward(self, x: Tensor) -> Tensor:
        """Normalises by all processes' statistics in training, by the running ones otherwise."""
        if not self.training:
            return super().forward(x)
        values = x.float()
        mean = self._mean_of_all(values)
        centred = values - mean
        variance = self._mean_of_all(centred * centred)
        self._track(mean.detach().flatten(), variance.detach().flatten(), x.numel() // x.shape[1])
        scale = self.weight * torch.rsqrt(variance.flatten() + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)

    def _mean_of_all(self, values: Tensor) -> Tensor:
        return _sum_of_all(values.mean(dim=(0, 2, 3), keepdim=True)) / self.processes.count

    def _track(self, mean: Tensor, variance: Tensor, here: int) -> None:
        """Moves the running statistics; they take the unbiased variance, as PyTorch's do."""
        count = here * self.processes.count
        with torch.no_grad():
            for running, batch_value in ((self.running_mean, mean), (self.running_var, variance * count / (count - 1))):
                if running is not None:
                    running.lerp_(batch_value, 0.1 if self.momentum is None else self.momentum)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked += 1


def synchronised(model: ResNeSt, processes: Processes) -> nn.Module:
    """`model` with every batch norm over all processes; names and values stay. One process alone has them already."""
    if processes.count == 1:
        return model
    if processes.device.type == "cuda":
        convert: Callable[[nn.Module], nn.Module] = nn.SyncBatchNorm.convert_sync_batchnorm
        return convert(model)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.__class__ = SyncBatchNorm
            vars(module)["processes"] = processes
    return model
