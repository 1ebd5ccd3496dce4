"""PyTorch on an NVIDIA GPU: the network compiled for one batch size, channels last, in fp32, bf16 or fp16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from ResNeSt.common.errors import PipelineError, library_text
from ResNeSt.engines.engine import Opening, as_logits, in_pieces
from ResNeSt.engines.torch import TorchEngine

# PyTorch counts what it compiles of one function, of all engines of a process together; its own limit of 8 is soon met.
MOST_ENGINES = 256


class TorchGpuEngine(TorchEngine):
    """A checkpoint's network, compiled by torch.compile and launched once a batch (a CUDA graph).

    It is compiled for `asked.batch`, which takes up to a minute: more images run in batches of that size, fewer are
    filled up to it.
    """

    def __init__(self, path: Path, asked: Opening, dtype: torch.dtype) -> None:
        self._card = _card(path, asked.device)
        super().__init__(path, asked)
        # fp32 is fp32: without TF32, whose products have 10 bits.
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.benchmark = True
        self._path, self._dtype = path, dtype
        network = self._model.to(self._card, dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._compiled: Any = _compiled(network)
        self.title += f", {torch.cuda.get_device_name(self._card)}, {str(dtype).removeprefix('torch.')}, compiled"
        try:
            self.run(np.zeros(self.input.shape, np.float32))
        except Exception as error:  # the compilers behind it raise nearly anything
            raise PipelineError(
                f"{path}: PyTorch cannot compile it ({library_text(error)[:300]}); it does not run uncompiled instead; "
                f"one process compiles {MOST_ENGINES} engines at most"
            ) from None

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Logits, float32 (N, classes)."""
        return as_logits(self._path, in_pieces(self._run, batch, self.input.shape[0]), len(batch))

    def _run(self, images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            there = torch.from_numpy(images).to(self._card).to(self._dtype, memory_format=torch.channels_last)
            logits: np.ndarray = self._compiled(there).float().cpu().numpy()
        return logits


def _compiled(network: torch.nn.Module) -> Any:
    """The network compiled at its first run, or that run fails: left to itself PyTorch runs on, uncompiled, in silence.

    `fullgraph` makes an error of both its reasons to: a limit that is met, and code that it does not understand.
    """
    limits = torch._dynamo.config
    limits.recompile_limit = max(limits.recompile_limit, MOST_ENGINES)
    limits.accumulated_recompile_limit = max(limits.accumulated_recompile_limit, MOST_ENGINES)
    return torch.compile(network, mode="reduce-overhead", dynamic=False, fullgraph=True)


def open_fp32(path: Path, asked: Opening) -> TorchGpuEngine:
    """In float32, without TF32. Raises PipelineError without a GPU, or where it cannot be compiled."""
    return TorchGpuEngine(path, asked, torch.float32)


def open_bf16(path: Path, asked: Opening) -> TorchGpuEngine:
    """In bfloat16, weights too. Raises as `open_fp32` does."""
    return TorchGpuEngine(path, asked, torch.bfloat16)


def open_fp16(path: Path, asked: Opening) -> TorchGpuEngine:
    """In float16, weights too. Raises as `open_fp32` does."""
    return TorchGpuEngine(path, asked, torch.float16)


def _card(path: Path, device: int) -> torch.device:
    """Raises PipelineError where this PyTorch finds no such GPU."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device >= count:
        raise PipelineError(
            f"{path}: PyTorch {torch.__version__} finds {count} GPUs here, asked for is number {device}; it does not "
            "run on the CPU instead: nvidia-smi tells what is there, and a +cpu build of PyTorch finds none"
        )
    return torch.device("cuda", device)
