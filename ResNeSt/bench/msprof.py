"""CANN's profiler around a pure loop: `msprof --application="…" --output=DIR`, and what its CSV files say.

Folders, file names and columns are those of CANN's documents on msprof, 6.0 to 9.1 (contract ATC, msprof): the data of
a run lie in `DIR/PROF_*`, the operators in `mindstudio_profiler_output/op_summary_*.csv`, and before CANN 7.0 in
`device_*/summary/op_summary_*.csv`; beside them lie op_statistic_*.csv, by type of operator.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from ResNeSt.bench.profile import Call
from ResNeSt.common import cann
from ResNeSt.common.errors import MissingRuntimeError, PipelineError
from ResNeSt.infer import ais_bench
from ResNeSt.infer.client import make_output_folder, run_client

PROGRAM = "msprof"
_PLACES = ("mindstudio_profiler_output", "device_*/summary")
# Columns by release, the newer name first.
_NAME, _TYPE, _UNIT = ("Op Name",), ("OP Type", "Op Type"), ("Task Type", "Core Type")
_DURATION, _TOTAL, _COUNT = ("Task Duration(us)", "Task Duration"), ("Total Time(us)", "Total Time"), ("Count",)
_NONE = "N/A"  # where a row has no such value


def find() -> str:
    """Where msprof lies; raises MissingRuntimeError where it does not."""
    found = cann.find_program(PROGRAM)
    if found is None:
        raise MissingRuntimeError(
            f"--profile: {PROGRAM} is not on this machine; it comes with CANN's toolkit: source its set_env.sh, or "
            "leave --profile out"
        )
    return found


def application(command: Sequence[str]) -> str:
    """The client's command as msprof takes it: after the interpreter comes a file, and blanks part words for good.

    Raises PipelineError where a word holds one.
    """
    words = ais_bench.by_path(command)
    held = next((word for word in words if " " in word), None)
    if held is not None:
        raise PipelineError(f"--profile: {PROGRAM} takes no path with a blank, as in {held!r}; move or rename it")
    return " ".join(words)


def profile(program: str, model: Path, folder: Path, dirname: str, *flags: str, device: int) -> list[Call]:
    """The calls of a pure loop on an NPU; the profiler's own files stay in `<folder>/<dirname>/PROF_*`.

    Raises PipelineError where the client fails, or msprof leaves no file that tells the operators.
    """
    target = make_output_folder(folder / dirname)
    before = set(target.glob("PROF_*"))

    def under(command: list[str]) -> list[str]:
        return [program, f"--application={application(command)}", f"--output={target.absolute()}"]

    run_client(model, folder, dirname, *flags, devices=(device,), under=under)
    runs = sorted(set(target.glob("PROF_*")) - before)
    if not runs:
        raise PipelineError(f"{target}: {PROGRAM} left no PROF_* there; what it printed is in {folder / dirname}.log")
    return read(runs)


def read(runs: list[Path]) -> list[Call]:
    """The calls that the CSV files of `PROF_*` folders tell: by operator or, where that is not there, by its type."""
    for pattern, calls in (("op_summary*.csv", _of_summary), ("op_statistic*.csv", _of_statistic)):
        for place in _PLACES:
            if files := [path for run in runs for path in sorted(run.glob(f"{place}/{pattern}"))]:
                return [call for file in files for call in calls(file)]
    raise PipelineError(
        f"{runs[0]}: holds no op_summary_*.csv, as on a board that cannot export; on a host with CANN's toolkit run: "
        f"{PROGRAM} --export=on --output={runs[0]}"
    )


def _of_summary(path: Path) -> Iterator[Call]:
    for name, kind, unit, us in _rows(path, _NAME, _TYPE, _UNIT, _DURATION):
        if us != _NONE:
            yield Call(name, kind, unit, _number(us, path) / 1000)


def _of_statistic(path: Path) -> Iterator[Call]:
    for kind, unit, us, count in _rows(path, _TYPE, _UNIT, _TOTAL, _COUNT):
        yield Call(kind, kind, unit, _number(us, path) / 1000, int(_number(count, path)))


def _rows(path: Path, *columns: tuple[str, ...]) -> Iterator[list[str]]:
    """Of every row the fields of these columns, each by any of its names; raises PipelineError where one is missing."""
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        lines = csv.reader(file)
        head = [cell.strip() for cell in next(lines, [])]
        places = [_place(head, names, path) for names in columns]
        for line in lines:
            if len(line) > max(places):
                yield [line[place].strip() for place in places]


def _place(head: list[str], names: tuple[str, ...], path: Path) -> int:
    for name in names:
        if name in head:
            return head.index(name)
    raise PipelineError(
        f"{path}: has no column {' or '.join(names)}, but {', '.join(head[:12])}; this release of CANN writes another "
        "table, look at it by hand"
    )


def _number(text: str, path: Path) -> float:
    """Microseconds or a count; raises PipelineError for anything else."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise PipelineError(f"{path}: holds {text!r} where a number is expected; run msprof again")
    return value
