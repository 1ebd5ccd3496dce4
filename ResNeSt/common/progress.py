"""What a long-running function tells while it works; without a listener it keeps silent.

With --quiet nothing is told but what a user should know: a line that begins with NOTE.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import sys
from collections.abc import Iterator
from typing import Callable

from tqdm import tqdm

Say = Callable[[str], None]
NOTE = "note: "
_QUIET = "RESNEST_QUIET"  # in the environment, since the commands that a command starts are as quiet


def silent(line: str) -> None:
    """Nobody listens: functions that another program calls print nothing unless told to."""


def be_quiet() -> None:
    """From now on this process and those that it starts say nothing but results, notes and errors."""
    os.environ[_QUIET] = "1"


def is_quiet() -> bool:
    """Whether this process, or one that started it, was told --quiet."""
    return os.environ.get(_QUIET) == "1"


def remark(text: str) -> None:
    """For a command line: a note, which --quiet lets through."""
    aloud(f"{NOTE}{text}")


@contextlib.contextmanager
def unheard() -> Iterator[None]:
    """With --quiet nothing of what a library prints to stdout inside is seen, from Python or below it."""
    if not is_quiet() or sys.stdout is None:
        yield
        return
    sys.stdout.flush()
    stdout, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        ctypes.CDLL(None).fflush(None)  # what C has buffered
        os.dup2(stdout, 1)
        os.close(stdout)
        os.close(nowhere)


def hidden() -> bool | None:
    """Whether tqdm is to draw no bar: None lets it see for itself whether stderr is a terminal."""
    return True if sys.stderr is None or is_quiet() else None


def aloud(line: str) -> None:
    """For a command line: to stdout at once, above whatever bar stands on the terminal; with --quiet a note to stderr.

    What a command was asked for is printed instead: that is said with --quiet, too.
    """
    if is_quiet():
        if line.startswith(NOTE):
            print(line, file=sys.stderr, flush=True)
        return
    if sys.stdout is None:
        return
    tqdm.write(line)
    sys.stdout.flush()
