"""Several processes of one pure loop at the same time, as ais_bench runs them for `--device 0,0`.

Each has its share of the cores and opens the model for itself; their loops start together. Names and the lines printed
follow ais_bench (contract: ais_bench, several devices).
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from ResNeSt.common.cores import shares
from ResNeSt.common.errors import ArgumentError, PipelineError
from ResNeSt.common.progress import Say, silent
from ResNeSt.infer.inference import Inference, Inferred, infer

_together: Any = None  # of a process: the barrier that all of them meet at


def infer_side_by_side(inference: Inference, count: int, say: Say = silent) -> list[Inferred]:
    """What each of `count` processes gave; results and summary lie in `<output>/<dirname>/device<number>_<index>`.

    Raises ArgumentError where there is anything but a pure loop to run, or there are fewer cores than processes; else
    as `infer` does.
    """
    if inference.tensors is not None:
        raise ArgumentError("several processes run the pure loop; with --tensors there is one, which takes all cores")
    dealt = shares(count)
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(count)
    with ProcessPoolExecutor(count, context, _meet_at, (barrier,)) as pool:
        started = [pool.submit(_one, _own(inference, index), dealt[index], index == 0) for index in range(count)]
        found = _results(inference, started)
    for index, inferred in enumerate(found):
        span = f"start_time:{inferred.started} end_time:{inferred.ended}"
        say(f"i:{index} device_{inference.device} throughput:{inferred.throughput} {span}")
    say(f"summary throughput:{sum(inferred.throughput for inferred in found)}")
    return found


def _own(inference: Inference, index: int) -> Inference:
    if inference.output is None:
        return inference
    if inference.dirname is None:
        raise ArgumentError("several processes need --output_dirname")
    folder = os.path.join(inference.output, inference.dirname)
    return dataclasses.replace(inference, output=folder, dirname=f"device{inference.device}_{index}")


def _results(inference: Inference, started: Sequence[Future[Inferred]]) -> list[Inferred]:
    """All of them; raises the error of the one that failed first, not of those that waited for it."""
    errors = [error for future in started if (error := future.exception()) is not None]
    for error in errors:
        if not isinstance(error, (threading.BrokenBarrierError, BrokenProcessPool)):
            raise error
    if errors:
        raise PipelineError(f"{inference.model}: a process of {len(started)} side by side was killed; is memory short?")
    return [future.result() for future in started]


def _meet_at(barrier: Any) -> None:
    global _together
    _together = barrier


def _one(inference: Inference, cores: Sequence[int], draws: bool) -> Inferred:
    """In a process of the pool: the loop on its own cores, begun with the others'; one of them draws its progress."""
    os.sched_setaffinity(0, cores)
    if not draws:
        sys.stderr = None
    try:
        return infer(inference, ready=_together.wait)
    except BaseException:
        _together.abort()
        raise
