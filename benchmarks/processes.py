"""Whole processes, timed and weighed from outside."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from ResNeSt.errors import PipelineError

PROJECT = Path(__file__).resolve().parent.parent


class Spent(NamedTuple):
    """Seconds of wall-clock time, and MB of the largest resident set of the process or one of its children."""

    seconds: float
    megabytes: float


# A process of its own that is small: the kernel counts what a process held before it became another program.
WATCH = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


def spend(*arguments: object) -> Spent:
    """Runs Python on `arguments`, a script of this project or `-m module`; raises PipelineError where it fails."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(PROJECT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, *map(str, arguments)]
    watch = [sys.executable, "-S", "-c", WATCH, *command]
    started = time.perf_counter()
    done = subprocess.run(watch, cwd=PROJECT, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise PipelineError(f"{' '.join(command[1:])}: ended with {done.returncode}")
    return Spent(seconds, int(done.stdout) * 1024 / 1e6)
