"""Runs a compiler or another tool that starts processes of its own, so that nothing of it outlives the caller."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Callable, NamedTuple

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # Ctrl-C, `timeout`, and a terminal that is closed


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
    """Runs `command` in `folder`, in a session of its own; what it started ends with it, or however the caller ends.

    What it prints goes to a file, at the end of `log` where one can look on: a pipe stays open as long as one of its
    processes lives, were it killed itself.
    """
    with open(log, "ab+") if log else tempfile.TemporaryFile(dir=folder) as printed, Signals() as signals:
        start = printed.seek(0, os.SEEK_END)
        with ended_with_us(signal.SIGKILL) as watch:
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
                watch(-process.pid)
                signals.end_the_wait()
                code = process.wait()
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        printed.seek(start)
        return Ended(code, printed.read().decode("utf-8", errors="replace"))


@contextlib.contextmanager
def ended_with_us(number: signal.Signals) -> Iterator[Callable[[int], None]]:
    """Gives what takes a process, or below 0 a group: it gets the signal where this one ends before the context does.

    By a process that waits for the end of a pipe, so that SIGKILL and a lack of memory, which let nothing be cleaned
    up, leave nothing running either. It is there before what it watches, so that this has no time without it.
    """
    command = ["sh", "-c", f"read -r target; read -r _; kill -{number:d} $target"]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(
        command, bufsize=0, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet, start_new_session=True
    ) as sentry:

        def watch(target: int) -> None:
            pipe: Any = sentry.stdin
            with contextlib.suppress(BrokenPipeError):  # somebody else has ended it
                pipe.write(b"%d\n" % target)

        try:
            yield watch
        finally:
            sentry.kill()


class Signals:
    """Signals that would end this process at once are kept until the tool runs, and let it clean up from then on.

    Those that are ignored, or handled by somebody else, stay so.
    """

    def __init__(self) -> None:
        self._received: int | None = None
        self._waiting = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            for number in _ENDING:
                before = signal.getsignal(number)
                if before in (signal.SIG_DFL, signal.default_int_handler):
                    self._before[number] = before
                    signal.signal(number, self._receive)
        return self

    def __exit__(self, *_error: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def end_the_wait(self) -> None:
        """From here on a signal is an exception, and so is one that came before."""
        self._waiting = True
        if self._received is not None:
            self._receive(self._received)

    def _receive(self, number: int, _frame: object = None) -> None:
        self._received = number
        if self._waiting and number == signal.SIGINT:
            raise KeyboardInterrupt
        if self._waiting:
            raise SystemExit(128 + number)
