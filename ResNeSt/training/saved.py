"""What an earlier run left in last.pth, and whether this run may go on with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import PathLike, whole
from ResNeSt.common.made_of import differing
from ResNeSt.formats.content import kind
from ResNeSt.training.pictures import Examined

# What the parts of an identity that are told by their bytes are called.
CONTENTS = {
    "train": "other pictures to learn from",
    "val": "other pictures to be judged by",
    "weights": "other weights to start from",
}


class Saved(NamedTuple):
    """A run after its last epoch: `identity` is all that decides what it learns but for the pictures, `pictures` what
    each process found of those of train and val, `history` its log.
    """

    identity: dict[str, Any]
    pictures: dict[str, list[Examined]]
    history: list[dict[str, Any]]
    model: dict[str, Any]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]

    def write(self, path: PathLike) -> None:
        """Writes it, whole or not at all."""
        plain = {split: [tuple(share) for share in shares] for split, shares in self.pictures.items()}
        write_tensors({**self._asdict(), "pictures": plain}, path)


def read_saved(path: Path) -> Saved | None:
    """What `path` holds, None where there is no file; raises PipelineError where it is damaged or of no training."""
    if not path.exists():
        return None
    try:
        kind(path)  # torch does not look at its checksums
    except PipelineError as error:
        raise PipelineError(f"{error}, or name another --output") from None
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
        pictures = {split: [Examined(*share) for share in held["pictures"][split]] for split in ("train", "val")}
        return Saved(**{**held, "pictures": pictures, "identity": dict(held["identity"])})
    except Exception as error:  # torch raises nearly anything on damaged files
        raise PipelineError(
            f"{path}: not a checkpoint of a training run of this version ({type(error).__name__}); name another "
            "--output"
        ) from None


def write_tensors(value: Mapping[str, Any], path: PathLike) -> None:
    """Writes a checkpoint, whole or not at all; raises OSError where the disk is full."""
    with whole(path) as temporary, open(temporary, "wb") as file:
        try:
            torch.save(value, file)
        except RuntimeError as error:  # torch's own complaint, about a position, while it hears of the file's
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def refuse_another(path: Path, theirs: Mapping[str, Any], mine: Mapping[str, Any]) -> None:
    """Raises PipelineError, which says what differs and what to do, where a run is not the one that left `path`."""
    keys = differing(theirs, mine)
    if keys and not {*keys} - {"epochs", "warmup"}:
        raise PipelineError(
            f"{path}: is of a run with --epochs {theirs.get('epochs')} --warmup-epochs {theirs.get('warmup')}, whose "
            f"rate falls to 0 with the last epoch; for --epochs {mine['epochs']} --warmup-epochs {mine['warmup']} name "
            f"another --output, and --weights {path} to start from what it has learnt"
        )
    if keys:
        others = (CONTENTS.get(key) or f"another {key} ({theirs.get(key)}, not {mine.get(key)})" for key in keys)
        raise PipelineError(
            f"{path}: is of a run with {', and '.join(others)}; repeat what it was begun with to go on, or name "
            "another --output"
        )
