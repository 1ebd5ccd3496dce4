"""bench.json while it grows: whole after every row, with what each run of the client was made of.

A later search takes a run for its own where that is all the same (ResNeSt.common.made_of): the model's digests, the
options, tensors, chip, machine, cores and versions; and where what the client wrote lies there as it was left.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Callable, NamedTuple

from ResNeSt.bench import rows
from ResNeSt.bench.rows import BenchRow
from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import PathLike, read_json, write_json
from ResNeSt.common.made_of import differing, state_of
from ResNeSt.report import data
from ResNeSt.report.machine import now
from ResNeSt.score.outputs import list_outputs
from ResNeSt.tensors.folder import tensor_files

RUNS = "runs"
TIME = "date"  # of what says where something was measured the one thing that does not make it another machine


class Run(NamedTuple):
    """A run of the client that is done: when, what it spent, and whether an earlier program did it."""

    date: str
    steps: list[data.Step]
    kept: bool = False


class Ledger:
    """What is written to bench.json: `where` and how it is measured, the rows so far, and the runs that they are of.

    `earlier` are the runs of an older bench.json that may be taken.
    """

    def __init__(
        self, folder: Path, where: Mapping[str, Any], how: Mapping[str, Any], earlier: Mapping[str, Any]
    ) -> None:
        self._folder = folder
        self._head = {**where, **how}
        self._machine = {key: value for key, value in where.items() if key != TIME}
        self._runs = dict(earlier)
        self._used: set[str] = set()
        self._rows: dict[int, Sequence[BenchRow]] = {}

    def run(
        self, name: str, summaries: Sequence[Path], made_of: Mapping[str, Any], client: Callable[[], list[data.Step]]
    ) -> Run:
        """Calls `client`, which leaves `summaries` and returns its steps, unless an earlier run was the same."""
        files = [*summaries, self._folder / f"{name}.log"]
        made_of = {**made_of, "where": self._machine}
        self._used.add(name)
        if (kept := _kept(self._runs.get(name), made_of, files)) is not None:
            return kept
        self._runs.pop(name, None)
        run = Run(now(), client())
        steps = [dataclasses.asdict(step) for step in run.steps]
        self._runs[name] = {"date": run.date, "made_of": made_of, "left": _states(files), "steps": steps}
        return run

    def write(self, batch: int, found: Sequence[BenchRow]) -> None:
        """Writes bench.json with these rows of a batch size, as far as there are any."""
        self._rows[batch] = found
        self._write(self._runs, finished=False)

    def finish(self) -> None:
        """Writes bench.json for the last time, with no runs but those that the rows are of."""
        self._write({name: run for name, run in self._runs.items() if name in self._used}, finished=True)

    def _write(self, runs: Mapping[str, Any], finished: bool) -> None:
        figures = rows.figures([row for found in self._rows.values() for row in found])
        told = {**self._head, "finished": finished, "rows": figures, RUNS: runs}
        write_json(self._folder / rows.JSON, told)


def earlier_runs(folder: Path) -> dict[str, Any]:
    """The runs that bench.json of `folder` tells; none where it is not there, damaged or of another program."""
    with contextlib.suppress(OSError, PipelineError):
        told = read_json(folder / rows.JSON)
        found = told.get(RUNS) if isinstance(told, dict) else None
        return found if isinstance(found, dict) else {}
    return {}


def tensors_state(tensors: PathLike) -> str:
    """A digest over the state of every tensor's file, which many share where they are packed."""
    files = dict.fromkeys(tensor.shard or tensor.path for tensor in tensor_files(tensors))
    return _digest([state_of(file) for file in files])


def _kept(told: Any, made_of: Mapping[str, Any], files: Sequence[Path]) -> Run | None:
    with contextlib.suppress(OSError, PipelineError, AttributeError, KeyError, TypeError):  # gone, or damaged
        if not differing(told["made_of"], made_of) and told["left"] == _states(files):
            return Run(str(told["date"]), [data.Step(**step) for step in told["steps"]], kept=True)
    return None


def _states(files: Sequence[Path]) -> str:
    """A digest over the state of summaries and logs, and of the outputs that the summaries list, as far as they do."""
    found: list[PathLike] = list(files)
    for file in files:
        with contextlib.suppress(PipelineError):
            found += list_outputs(file) if file.suffix == ".json" else []
    return _digest([state_of(path) if os.path.exists(path) else None for path in found])


def _digest(states: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(states).encode()).hexdigest()
