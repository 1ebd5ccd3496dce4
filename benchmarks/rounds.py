"""Interleaved rounds and the table they end in."""

from __future__ import annotations

import csv
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ResNeSt.common.cores import cores
from ResNeSt.common.files import whole
from ResNeSt.common.tables import table

SECONDS = 1.0  # of one round of a contender that can be repeated at will
# Flags of /proc/cpuinfo that decide the speed of a network, best first.
WIDEST = ("amx_int8", "avx512_bf16", "avx512_vnni", "avx512f", "avx2")


def interleave(contenders: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Median of what each contender returns; each call of one is a round of it. One uncounted round comes first."""
    figures: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, measure in contenders.items():
            figure = measure()
            if number:
                figures[name].append(figure)
    return {name: statistics.median(values) for name, values in figures.items()}


def repeated(work: Callable[[], object], items: float, seconds: float = SECONDS) -> Callable[[], float]:
    """A contender: `work` again and again for `seconds`; items/s where one call does `items`."""

    def measure() -> float:
        started, runs = time.perf_counter(), 0
        while time.perf_counter() - started < seconds:
            work()
            runs += 1
        return runs * items / (time.perf_counter() - started)

    return measure


def report(output: Path, name: str, head: Sequence[str], rows: Sequence[Sequence[str]], where: str = "") -> None:
    """Prints the table and writes it to a CSV file in `output`, named after `where` it was measured [the machine]."""
    print(table(head, rows))
    path = save(output, name, head, rows, where)
    print(f"written to {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}", flush=True)


def save(output: Path, name: str, head: Sequence[str], rows: Sequence[Sequence[str]], where: str = "") -> Path:
    """Writes the CSV file alone."""
    path = output / f"{name}-{where or machine()}.csv"
    with whole(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([head, *rows])
    return path


def machine() -> str:
    """Processor, cores and widest instruction set, as part of a file name."""
    about = Path("/proc/cpuinfo").read_text()
    fields = re.findall(r"^model name\s*:\s*(.+)$", about, re.MULTILINE)
    processor = re.sub(r"[^A-Za-z0-9]+", "-", fields[0] if fields else "unknown").strip("-")
    flags = set(about.split())
    return "-".join([processor, f"{cores()}-cores", *[flag for flag in WIDEST if flag in flags][:1]])
