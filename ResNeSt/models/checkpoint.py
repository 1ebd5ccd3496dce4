"""Checkpoint files: fetching the official ones, reading any of them, loading them into a network.

A checkpoint is untrusted: it is read with `weights_only=True`, so that it can carry tensors and nothing that runs.
MindSpore's and Paddle's are read by ResNeSt.formats, with the same care.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import PathLike
from ResNeSt.formats import checkpoints

if TYPE_CHECKING:
    import torch

    from ResNeSt.models.resnest import ResNeSt


def read_state(path: PathLike) -> dict[str, torch.Tensor]:
    """The state dict of a checkpoint: plain, or under `state_dict` or `model`, with or without `module.` prefixes.

    .safetensors is read as well; a MindSpore .ckpt and a Paddle .pdparams give theirs under the official names
    (ResNeSt.formats). Raises PipelineError where the file is not a checkpoint or holds more than tensors and plain
    values.
    """
    return _read(path)[0]


def _read(path: PathLike) -> tuple[dict[str, torch.Tensor], str]:
    """The state dict, and how the network that it was trained with pools."""
    import torch

    if not Path(path).is_file():
        raise PipelineError(f"{path}: no such file; give the checkpoint, or 'auto' to fetch the official one")
    if Path(path).suffix not in checkpoints.SUFFIXES:
        return _read_torch(path), "zeros"
    foreign = checkpoints.read(path)
    # A copy in memory of its own: some arrays lie in the mapped file, some are transposed.
    return {name: torch.from_numpy(value.copy()) for name, value in foreign.state.items()}, foreign.pooling


def _read_torch(path: PathLike) -> dict[str, torch.Tensor]:
    import torch

    try:
        loaded = _unpacked(path)
    except Exception as error:  # torch raises nearly anything on damaged files
        raise PipelineError(f"{path}: not a readable checkpoint of weights alone ({_first_line(error)})") from None
    for wrapper in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), dict):
            loaded = loaded[wrapper]
    if not isinstance(loaded, dict) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise PipelineError(f"{path}: holds no state dict (a mapping from names to tensors)")
    return {name.removeprefix("module."): value for name, value in loaded.items()}


def _unpacked(path: PathLike) -> Any:
    if Path(path).suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    import torch

    # timm's trainer keeps its command line in the file, as a Namespace: an object that holds values and runs nothing.
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(path, map_location="cpu", weights_only=True)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".split("\n", 1)[0].rstrip(". ")


def load(model: ResNeSt, path: PathLike) -> None:
    """Loads a checkpoint into `model`, which from then on pools as the framework that the file comes from.

    Raises PipelineError naming every missing, extra or wrongly shaped entry.
    """
    from ResNeSt.models.pooling import set_pooling

    state, pooling = _read(path)
    load_state(model, state, path)
    set_pooling(model, pooling)


def load_state(model: ResNeSt, state: dict[str, torch.Tensor], path: PathLike) -> None:
    """Loads the state dict of the checkpoint at `path`; raises as `load` does."""
    expected = model.state_dict()
    problems = [
        *_named("missing", [name for name in expected if name not in state]),
        *_named("not of this model", [name for name in state if name not in expected]),
        *_named(
            "wrongly shaped",
            [
                f"{name} {list(value.shape)} instead of {list(expected[name].shape)}"
                for name, value in state.items()
                if name in expected and value.shape != expected[name].shape
            ],
        ),
    ]
    if problems:
        raise PipelineError(f"{path}: does not fit the model: {'; '.join(problems)}; is --model the right one?")
    model.load_state_dict(state)


def _named(what: str, entries: list[str]) -> list[str]:
    shown = ", ".join(entries[:3]) + (", …" if len(entries) > 3 else "")
    return [f"{len(entries)} entries {what} ({shown})"] if entries else []
