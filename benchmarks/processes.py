"""Whole processes, timed and weighed from outside."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from ResNeSt.common.errors import PipelineError

PROJECT = Path(__file__).resolve().parent.parent


class Spent(NamedTuple):
    """Seconds of wall-clock time, and MB of the largest resident set of the process or one of its children."""

    seconds: float
    megabytes: float


# A small process in between: the kernel counts what a process held before it became another program.
WATCH = """
import os, sys
from ResNeSt.common.timed_process import spend
print(*spend(sys.argv[1:], stdout=os.open(os.devnull, os.O_WRONLY)))
"""


def spend(*arguments: object) -> Spent:
    """Runs Python on `arguments`, a script of this project or `-m module`; raises PipelineError where it fails."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(PROJECT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, *map(str, arguments)]
    watch = [sys.executable, "-S", "-c", WATCH, *command]
    done = subprocess.run(watch, cwd=PROJECT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    code, seconds, peak_bytes = map(float, done.stdout.split())
    if code:
        raise PipelineError(f"{' '.join(command[1:])}: ended with {code:.0f}")
    return Spent(seconds, peak_bytes / 1e6)
