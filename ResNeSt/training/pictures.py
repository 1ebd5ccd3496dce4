"""All pictures are read once before the first epoch: a broken one is found before hours are spent, and what a run
learnt from is known by its bytes, wherever it lies. A run that goes on reads none that is as it was left.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import sha256
from ResNeSt.common.made_of import state_of
from ResNeSt.common.parallel import in_parallel
from ResNeSt.common.progress import Say, silent
from ResNeSt.images.decode import BrokenImageError, decode
from ResNeSt.training.data import Samples
from ResNeSt.training.distributed import Processes

NAMED = 3  # broken pictures that an error names


class Examined(NamedTuple):
    """Two SHA-256 over pictures, with their paths below the folder and their classes: of sizes and times, of bytes."""

    states: str
    contents: str


def examine(
    samples: Samples, before: list[Examined], processes: Processes, workers: int, say: Say = silent
) -> list[Examined]:
    """What each process found of its share of the pictures; a share that is as it was `before` is not read again.

    Raises PipelineError, in all processes, that counts and names the pictures that cannot be decoded.
    """
    mine = range(processes.rank, len(samples.images), processes.count)
    states = _digest(samples, mine, (_state(samples.images[index]) for index in mine))
    broken: list[str] = []
    if len(before) == processes.count and before[processes.rank].states == states:
        found = before[processes.rank]
    else:
        say(f"{samples.folder}: reading all {len(samples.images)} pictures, so that none is found broken later")
        started = time.perf_counter()
        found = Examined(states, _digest(samples, mine, _read(samples, mine, broken, processes, workers)))
        say(f"{samples.folder}: read in {time.perf_counter() - started:.1f} s")
    shares = processes.all_of((found, broken))
    problems = [problem for _, some in shares for problem in some]
    if problems:
        more = f"; and {len(problems) - NAMED} more" if len(problems) > NAMED else ""
        raise PipelineError(
            f"{samples.folder}: {len(problems)} of {len(samples.images)} pictures cannot be learnt from or be judged "
            f"by: {'; '.join(problems[:NAMED])}{more}; fetch them again, or take them away"
        )
    return [Examined(*examined) for examined, _ in shares]


def _state(path: str) -> str:
    with contextlib.suppress(OSError):  # reading it names it
        return str(state_of(path)[1:])
    return ""


def _read(
    samples: Samples, mine: Iterable[int], broken: list[str], processes: Processes, workers: int
) -> Iterable[str]:
    """SHA-256 of each picture; what keeps one from being decoded goes to `broken`."""

    def work(index: int) -> tuple[str, str | None]:
        path = samples.images[index]
        try:
            decode(path)
        except BrokenImageError as error:
            return "", str(error)
        return sha256(path), None

    title = f"checking {Path(samples.folder).name}"
    with tqdm(total=len(samples.images), unit="img", desc=title, disable=processes.bars_off, leave=False) as bar:
        for _, (digest, problem) in in_parallel(work, mine, workers):
            bar.update(processes.count)
            if problem:
                broken.append(problem)
            yield digest


def _digest(samples: Samples, indices: Iterable[int], values: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for index, value in zip(indices, values):
        name = os.path.relpath(samples.images[index], samples.folder)
        digest.update(os.fsencode(f"{name}\0{samples.labels[index]}\0{value}\0"))
    return digest.hexdigest()
