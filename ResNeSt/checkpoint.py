"""Checkpoint files: fetching the official ones, reading any of them, loading them into a network.

A checkpoint is untrusted: it is read with `weights_only=True`, so that it can carry tensors and nothing that runs.
MindSpore's and Paddle's are read by ResNeSt.formats, with the same care.
"""

from __future__ import annotations

import argparse
import http.client
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from ResNeSt import formats
from ResNeSt.cards import Card
from ResNeSt.errors import PipelineError
from ResNeSt.files import PathLike, sha256

if TYPE_CHECKING:
    import torch

    from ResNeSt.models.resnest import ResNeSt

BLOCK = 1 << 20


def fetch(card: Card, folder: PathLike = ".") -> Path:
    """The official weight file of `card` in `folder`, downloaded unless it is there; checked against its hash.

    A broken download goes on where it stopped. Raises PipelineError where the file cannot be had or is not the one.
    """
    if card.url is None or card.sha256 is None:
        raise PipelineError(f"{card.name}: has no published weight file; give your own checkpoint")
    target = Path(folder) / card.url.rsplit("/", 1)[1]
    if target.exists():
        _check_hash(target, card.sha256, "move it away and run the command again")
        return target
    partial = target.with_name(target.name + ".part")
    _download(card.url, partial)
    try:
        _check_hash(partial, card.sha256, f"{card.url} sent it; removed, run the command again")
    except PipelineError:
        partial.unlink()
        raise
    return partial.replace(target)


def _download(url: str, partial: Path) -> None:
    start = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})  # noqa: S310 (from cards.json)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
            _append(response, partial, start if response.status == http.client.PARTIAL_CONTENT else 0)
    except urllib.error.HTTPError as error:
        # 416: the part we hold is already the whole file; the hash decides.
        if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise PipelineError(f"{url}: the server answers {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        raise PipelineError(
            f"{url}: download stopped ({error}); run the command again to go on, or fetch the file by hand and name it "
            "with --source"
        ) from None


def _append(response: http.client.HTTPResponse, partial: Path, start: int) -> None:
    length = response.length
    total = None if length is None else start + length
    with (
        open(partial, "r+b" if start else "wb") as file,
        tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=partial.stem, disable=None) as bar,
    ):
        file.seek(start)
        while block := response.read(BLOCK):
            file.write(block)
            bar.update(len(block))
    if total is not None and partial.stat().st_size < total:
        raise OSError(f"{partial.stat().st_size} of {total} bytes came")


def _check_hash(path: Path, expected: str, advice: str) -> None:
    found = sha256(path)
    if not found.startswith(expected):
        raise PipelineError(f"{path}: SHA-256 starts with {found[:8]}, the published file's with {expected}; {advice}")


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
    if Path(path).suffix not in formats.SUFFIXES:
        return _read_torch(path), "zeros"
    found = formats.read(path)
    # A copy in memory of its own: some arrays lie in the mapped file, some are transposed.
    return {name: torch.from_numpy(value.copy()) for name, value in found.state.items()}, found.pooling


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
