"""Where the time of a model goes: its operators by the time that they take, as the runtime counts it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ResNeSt.bench.rows import write_csv
from ResNeSt.common.errors import PipelineError
from ResNeSt.common.tables import table

LONGEST = 10  # rows of the printed table
WIDEST = 48  # characters of a name in it
MOST_RUNS = 100  # a longer loop makes files of gigabytes and the same table


class Call(NamedTuple):
    """One call of an operator, or `calls` of them: what it is, the unit or kernel that it ran on, all milliseconds."""

    name: str
    type: str
    runs_on: str
    ms: float
    calls: int = 1


@dataclasses.dataclass(frozen=True)
class Operator:
    """All calls of one operator: the mean of one in ms, and its share of the time of all operators in percent."""

    name: str
    type: str
    runs_on: str
    calls: int
    ms: float
    percent: float


@dataclasses.dataclass(frozen=True)
class Profile:
    """The operators of a model at one batch size, those that take longest first; `path` is the CSV that holds them."""

    batch: int
    operators: tuple[Operator, ...]
    path: Path


def csv_of(folder: Path, batch: int) -> Path:
    """Where the profile of a batch size is written."""
    return folder / f"profile_bs{batch}.csv"


def write(folder: Path, batch: int, calls: Iterable[Call]) -> Profile:
    """Adds the calls up, and writes a row for every operator, whole or not at all."""
    profile = Profile(batch, _operators(calls), csv_of(folder, batch))
    write_csv(profile.path, [dataclasses.asdict(operator) for operator in profile.operators])
    return profile


def _operators(calls: Iterable[Call]) -> tuple[Operator, ...]:
    sums: dict[tuple[str, str, str], tuple[int, float]] = {}
    for call in calls:
        key = (call.name, call.type, call.runs_on)
        count, ms = sums.get(key, (0, 0.0))
        sums[key] = (count + call.calls, ms + call.ms)
    total = sum(ms for _, ms in sums.values())
    if not total > 0:
        raise PipelineError("the profile holds no operator that took time; run it again with a larger --loop")
    found = [Operator(*key, count, ms / count, 100 * ms / total) for key, (count, ms) in sums.items()]
    return tuple(sorted(found, key=lambda operator: -operator.percent))


def printed(profile: Profile) -> str:
    """The operators that take longest, as a table for a terminal with their sum below."""
    shown = profile.operators[:LONGEST]
    lines = [
        [_short(each.name), each.type, each.runs_on, str(each.calls), f"{each.ms:.3f}", f"{each.percent:.1f}"]
        for each in shown
    ]
    share = f"{sum(each.percent for each in shown):.1f}"
    lines.append([f"these {len(shown)} of {len(profile.operators)}", "", "", "", "", share])
    head = [f"operator, batch {profile.batch}", "type", "runs on", "calls", "ms a call", "% of all"]
    return f"{table(head, lines)}\nall of them: {profile.path}"


def _short(name: str) -> str:
    return name if len(name) <= WIDEST else f"…{name[1 - WIDEST :]}"


def on_cpu(model: Path, batch: int, loop: int) -> list[Call]:
    """The calls of a loop on zeros, by OpenVINO's own counters, without those of a first run."""
    from ResNeSt.engines import openvino
    from ResNeSt.engines.engine import Opening

    engine = openvino.open_model(model, Opening(batch), counts=True)
    zeros = np.zeros(engine.input.shape, engine.input.dtype)
    engine.run(zeros)
    first = {each.name: each.seconds for each in engine.counters()}
    for _ in range(loop):
        engine.run(zeros)
    return [
        Call(
            each.name,
            each.type,
            each.kernel,
            of_loop(1000 * each.seconds, 1000 * first.get(each.name, 0.0), loop),
            loop,
        )
        for each in engine.counters()
    ]


def of_loop(mean: float, first: float, loop: int) -> float:
    """The time of `loop` runs, of the mean over these and a first one, and that one's."""
    return max(0.0, (loop + 1) * mean - first)
