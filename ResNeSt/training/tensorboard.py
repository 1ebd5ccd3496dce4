"""The log for TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ResNeSt.common.errors import MissingRuntimeError

CURVES = ("loss", "rate", "top1", "top5", "images_per_second")


class Board:
    """Event files in `<folder>/tensorboard`, a point per curve and epoch; a context manager.

    Rows of an earlier run are `history`; what its files hold beyond them is hidden. Raises MissingRuntimeError without
    TensorBoard.
    """

    def __init__(self, folder: Path, history: list[dict[str, Any]]) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise MissingRuntimeError("tensorboard is not installed here: pip install tensorboard==2.21.0") from None
        self._writer = SummaryWriter(folder / "tensorboard", purge_step=len(history) + 1 if history else None)

    def __enter__(self) -> Board:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def add(self, row: dict[str, Any]) -> None:
        """Adds a row of the log."""
        for curve in CURVES:
            self._writer.add_scalar(curve, row[curve], row["epoch"])
        self._writer.flush()
