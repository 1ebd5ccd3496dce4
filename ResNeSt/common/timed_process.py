"""Programs that this one starts: run to their end, timed and weighed from outside."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ResNeSt.common.tool import Signals, ended_with_us

PATIENCE = 5  # seconds that a process has to end


class Spent(NamedTuple):
    """How a process ended: exit code, seconds of wall-clock time, bytes of its or a child's largest resident set.

    The kernel counts what the caller held when it started the process, too; so a small caller weighs well.
    """

    code: int
    seconds: float
    peak_bytes: int


def spend(command: Sequence[str], **options: Any) -> Spent:
    """Runs `command`, which ends however the caller ends; `options` are those of subprocess.Popen."""
    with Signals() as signals, ended_with_us(signal.SIGTERM) as watch:  # which lets it end what it has started itself
        started = time.perf_counter()
        process = subprocess.Popen(command, **options)
        try:
            watch(process.pid)
            signals.end_the_wait()
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - started
        except BaseException:
            _end(process)
            raise
    process.returncode = os.waitstatus_to_exitcode(status)
    return Spent(process.returncode, seconds, usage.ru_maxrss * 1024)


def _end(process: subprocess.Popen[Any]) -> None:
    """Lets it end what it has started itself, and kills it where it does not end."""
    process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def with_this_project(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment, the caller's unless given, with this project importable in whatever folder a program starts."""
    project = str(Path(__file__).resolve().parents[2])
    known = environment.get("PYTHONPATH")
    return {**environment, "PYTHONPATH": os.pathsep.join([project, *([known] if known else [])])}
