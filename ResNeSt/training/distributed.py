"""The processes that train together, as torchrun starts them, or the one alone."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, TypeVar

import torch
from torch import Tensor, distributed, nn

from ResNeSt.common.arguments import variable
from ResNeSt.common.errors import ArgumentError, MissingRuntimeError, PipelineError
from ResNeSt.common.progress import hidden

Item = TypeVar("Item")


@dataclasses.dataclass(frozen=True)
class Processes:
    """This process's number and device, and how many there are; `rank` 0 alone prints and writes."""

    rank: int
    count: int
    device: torch.device

    @property
    def bars_off(self) -> bool | None:
        """Whether this process shows no progress bar, for tqdm: None is on a terminal only."""
        return True if self.rank else hidden()

    def first(self, work: Callable[[], Item]) -> Item:
        """What `work` returns, done by process 0 before the others, which find what it left on the disk."""
        if self.rank > 0:
            distributed.barrier()
        done = work()
        if self.rank == 0 and self.count > 1:
            distributed.barrier()
        return done

    def all_of(self, mine: Item) -> list[Item]:
        """What every process gives here, in the order of their numbers."""
        if self.count == 1:
            return [mine]
        given: list[Any] = [None] * self.count
        distributed.all_gather_object(given, mine)
        return given

    def total(self, values: Tensor) -> Tensor:
        """Sum of all processes' tensors of this shape."""
        if self.count > 1:
            distributed.all_reduce(values)
        return values

    def share_buffers(self, model: nn.Module) -> None:
        """Gives all processes the running statistics of process 0, so that they evaluate, and save, one network."""
        if self.count > 1:
            for buffer in model.buffers():
                distributed.broadcast(buffer, 0)

    def wrap(self, model: nn.Module) -> nn.Module:
        """`model` such that its gradients are the mean over all processes."""
        return nn.parallel.DistributedDataParallel(model) if self.count > 1 else model


@contextlib.contextmanager
def told_to_torchrun() -> Iterator[None]:
    """Hands an error that ends this process to torchrun, whose last lines then say what it was, and not where to look.

    (torch.distributed.elastic's own `record` would hand it a traceback.)
    """
    try:
        yield
    except (PipelineError, OSError) as error:
        if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
            told = {"message": f"error: {error}", "timestamp": int(time.time())}
            Path(path).write_text(json.dumps(told), encoding="utf-8")
        raise


@contextlib.contextmanager
def joined(device: str) -> Iterator[Processes]:
    """Joins the processes that torchrun has told this one of; `device` is cpu or cuda, each process takes one GPU.

    Raises MissingRuntimeError where there is no GPU for this process, ArgumentError where it is none of the processes.
    """
    rank, count, local = (variable(name, least, least) for name, least in _VARIABLES)
    if rank >= count or (count > 1 and "RANK" not in os.environ):
        raise ArgumentError(
            f"RANK={os.environ.get('RANK')} and WORLD_SIZE={count} in the environment, expected a RANK below it; start "
            "with torchrun, or unset both"
        )
    if device == "cuda" and torch.cuda.device_count() <= local:
        raise MissingRuntimeError(
            f"--chip cuda: PyTorch finds {torch.cuda.device_count()} GPUs here, this run takes {local + 1}; "
            "use --chip cpu or fewer processes"
        )
    own = torch.device(device, local) if device == "cuda" else torch.device(device)
    if count == 1:
        yield Processes(rank, count, own)
        return
    if own.type == "cuda":
        torch.cuda.set_device(own)
    distributed.init_process_group("nccl" if own.type == "cuda" else "gloo")
    try:
        yield Processes(rank, count, own)
    finally:
        distributed.destroy_process_group()


_VARIABLES = (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0))
