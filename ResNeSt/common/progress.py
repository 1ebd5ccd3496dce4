"""What a long-running function tells while it works; without a listener it keeps silent."""

from __future__ import annotations

import sys
from typing import Callable

from tqdm import tqdm

Say = Callable[[str], None]


def silent(line: str) -> None:
    """Nobody listens: functions that another program calls print nothing unless told to."""


def aloud(line: str) -> None:
    """For a command line: to stdout at once, above whatever bar stands on the terminal."""
    tqdm.write(line)
    sys.stdout.flush()
