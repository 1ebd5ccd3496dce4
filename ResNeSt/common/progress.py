"""What a long-running function tells while it works; without a listener it keeps silent."""

from __future__ import annotations

import sys
from typing import Callable

from tqdm import tqdm

Say = Callable[[str], None]


def silent(line: str) -> None:
    """Nobody listens: functions that another program calls print nothing unless told to."""


def hidden() -> bool | None:
    """Whether tqdm is to draw no bar: None lets it see for itself whether stderr is a terminal."""
    return True if sys.stderr is None else None


def aloud(line: str) -> None:
    """For a command line: to stdout at once, above whatever bar stands on the terminal."""
    if sys.stdout is None:
        return
    tqdm.write(line)
    sys.stdout.flush()
