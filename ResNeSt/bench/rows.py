"""The rows of the table: what each says, the table for a terminal, bench.csv and bench.json."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ResNeSt.common.files import PathLike, whole
from ResNeSt.common.tables import table

UNKNOWN = "unknown"
CSV, JSON = "bench.csv", "bench.json"


@dataclasses.dataclass(frozen=True)
class BenchRow:
    """One batch size and number of processes a device, or of instances in the one process.

    Accuracy in percent (None where it was not measured), images/s of all of them, latency of a batch in one of them in
    ms, and of how many runs that is. When that was (ISO 8601), and what ran: the model, the SHA-256 of each of its
    files, the SHA-256 of the ONNX file that it was made from, and what it was compiled for; "unknown" where no record
    beside it is of these very files.
    """

    batch: int
    processes: int
    instances: int
    top1: float | None
    top5: float | None
    images_per_second: float
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p99_9_ms: float
    runs: int
    date: str
    model: str
    sha256: dict[str, str]
    network: str
    precision: str
    dtype: str
    compiled_for: str


def fastest(rows: Sequence[BenchRow]) -> BenchRow:
    """The row with the most images/s."""
    return max(rows, key=lambda row: row.images_per_second)


def unlike(rows: Sequence[BenchRow]) -> list[str]:
    """What the models were compiled for, a line each, where that is not the same for all, or not known."""
    kinds = {(row.precision, row.dtype) for row in rows}
    if len(kinds) == 1 and (UNKNOWN, UNKNOWN) not in kinds:
        return []
    return list(dict.fromkeys(f"{row.model}: precision {row.precision}, dtype {row.dtype}" for row in rows))


def printed(rows: Sequence[BenchRow]) -> str:
    """The table for a terminal; * marks the fastest row. What there are several of has a column."""
    counts = [name for name in ("processes", "instances") if any(getattr(row, name) > 1 for row in rows)]
    head = ["batch", *counts, "top-1 %", "top-5 %", "images/s", "mean ms", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms"]
    best = fastest(rows)
    lines = [
        [
            f"{row.batch}{'*' if row is best else ' '}",
            *(str(getattr(row, name)) for name in counts),
            *("-" if value is None else f"{value:.2f}" for value in (row.top1, row.top5)),
            f"{row.images_per_second:.1f}",
            *(f"{value:.2f}" for value in (row.mean_ms, row.p50_ms, row.p90_ms, row.p99_ms, row.p99_9_ms)),
        ]
        for row in rows
    ]
    return table(head, lines)


def figures(rows: Sequence[BenchRow]) -> list[dict[str, Any]]:
    """The rows as bench.json has them, the fastest one marked."""
    return [{**dataclasses.asdict(row), "best": row is fastest(rows)} for row in rows]


def write(folder: Path, rows: Sequence[BenchRow], where: Mapping[str, Any], recipes: Mapping[str, Any]) -> None:
    """Writes bench.csv: the rows, `where` they were measured, and the recipes."""
    machine = {**where, "versions": _in_words(where["versions"])}
    flat = [{**row, "sha256": _in_words(row["sha256"])} for row in figures(rows)]
    write_csv(folder / CSV, [{**row, **recipes, **machine, "date": row["date"]} for row in flat])


def _in_words(pairs: Mapping[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in pairs.items())


def write_csv(path: PathLike, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes rows with the same keys, at least one, whole or not at all."""
    with whole(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
