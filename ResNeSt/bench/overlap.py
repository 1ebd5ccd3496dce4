"""Pure loops side by side: only the runs that had all the others beside them count, whoever started late.

ais_bench starts a process a device and lets them wait for each other by looking once a second, so that their loops
begin up to a second apart: a hundred runs of a few ms are over by then, each alone on the card, and their sum is more
than the card gives. Both clients print when each loop began and ended (contract: ais_bench, several devices).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ResNeSt.common.ais_bench_paths import MOST_LOOPS

ENOUGH = 0.5  # of the longest loop has to have the others beside it
AIMED = 0.75  # where a loop is made longer for that
_SPAN = re.compile(r"\bi:(\d+)\s+device_\d+\s+throughput:\S+\s+start_time:(\d+(?:\.\d+)?)\s+end_time:(\d+(?:\.\d+)?)")


class Span(NamedTuple):
    """When a loop began and ended, in seconds since the epoch."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.end - self.start


def spans(log: Path, count: int) -> list[Span] | None:
    """Those of `count` loops, in their order, as the client printed them; None where it did not."""
    found = {
        int(index): Span(float(start), float(end))
        for index, start, end in _SPAN.findall(log.read_text(encoding="utf-8", errors="replace"))
    }
    return [found[index] for index in range(count)] if set(found) == set(range(count)) else None


def shared(loops: Sequence[Span]) -> float:
    """The share of the longest loop during which all ran."""
    common = min(loop.end for loop in loops) - max(loop.start for loop in loops)
    longest = max(loop.seconds for loop in loops)
    return max(0.0, common / longest) if longest > 0 else 0.0


def longer(loop: int, loops: Sequence[Span]) -> int:
    """How many runs it takes to have `AIMED` of them side by side, if the processes begin as far apart again."""
    apart = max(span.start for span in loops) - min(span.start for span in loops)
    run = min(span.seconds for span in loops) / loop
    return min(MOST_LOOPS, max(loop, math.ceil(apart / (1 - AIMED) / run))) if run > 0 else MOST_LOOPS


def side_by_side(times: Sequence[Sequence[float]], loops: Sequence[Span]) -> list[np.ndarray]:
    """Of the milliseconds of every run of each loop those of the runs that began and ended while all loops ran.

    What a loop did besides its runs is taken to lie evenly between them.
    """
    start, end = max(loop.start for loop in loops), min(loop.end for loop in loops)
    counted = []
    for each, loop in zip(times, loops):
        edges = loop.start + loop.seconds * np.concatenate([[0], np.cumsum(each)]) / np.sum(each)
        counted.append(np.asarray(each)[(edges[:-1] >= start) & (edges[1:] <= end)])
    return counted
