"""Runs a compiler or another tool that starts processes of its own, so that nothing of it outlives the caller."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, NoReturn

_ENDING = (signal.SIGTERM, signal.SIGHUP)  # `timeout`, and a terminal that is closed


class Ended(NamedTuple):
    """How a tool ended: its exit code, negative where a signal ended it, and all that it printed."""

    code: int
    output: str

    @property
    def signal(self) -> str | None:
        """The name of the signal that ended it, or of which a shell around it says so (128 and the number)."""
        number = -self.code if self.code < 0 else self.code - 128
        return next((known.name for known in signal.Signals if known == number), None)

    def __str__(self) -> str:
        return self.signal if self.signal else f"exit code {self.code}"


def run(
    command: Sequence[str],
    folder: str | os.PathLike[str],
    environment: Mapping[str, str],
    log: str | os.PathLike[str] | None = None,
) -> Ended:
    """Runs `command` in `folder`, in a session of its own; what it started ends with it, or when the caller is ended.

    What it prints goes to a file, at the end of `log` where one can look on: a pipe stays open as long as one of its
    processes lives, were it killed itself.
    """
    with open(log, "ab+") if log else tempfile.TemporaryFile(dir=folder) as printed, _cleaning_up():
        start = printed.seek(0, os.SEEK_END)
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        printed.seek(start)
        return Ended(code, printed.read().decode("utf-8", errors="replace"))


@contextlib.contextmanager
def _cleaning_up() -> Iterator[None]:
    """Signals that would end this process at once let it clean up first; those that are ignored stay so."""

    def leave(number: int, _frame: object) -> NoReturn:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _ENDING}
    for number, handler in before.items():
        if handler == signal.SIG_DFL:
            signal.signal(number, leave)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
