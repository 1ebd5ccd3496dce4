"""Interleaved rounds and the table they end in."""

from __future__ import annotations

import csv
import os
import re
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path

from ResNeSt.files import whole
from ResNeSt.tables import table

RESULTS = Path(__file__).parent / "results"


def interleave(contenders: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Median images/s of each contender; each call of one is a round of it. One uncounted round comes first."""
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, measure in contenders.items():
            rate = measure()
            if number:
                rates[name].append(rate)
    return {name: statistics.median(found) for name, found in rates.items()}


def report(name: str, what: str, medians: Mapping[str, Mapping[str, float]]) -> None:
    """Prints a row per contender and a column per setting, and commits them to a CSV named after the machine."""
    settings = list(medians)
    rows = [[who, *(f"{medians[setting][who]:.1f}" for setting in settings)] for who in medians[settings[0]]]
    print(table([what, *settings], rows))
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}-{_machine()}.csv"
    with whole(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([[what, *settings], *rows])
    print(f"written to {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")


def _machine() -> str:
    """Processor and cores, as part of a file name."""
    fields = re.findall(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    processor = re.sub(r"[^A-Za-z0-9]+", "-", fields[0] if fields else "unknown").strip("-")
    return f"{processor}-{len(os.sched_getaffinity(0))}-cores"
