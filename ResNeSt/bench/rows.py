"""The rows of the table: what each says, the table for a terminal, bench.csv and bench.json."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ResNeSt.common.files import PathLike, whole, write_json
from ResNeSt.common.tables import table

UNKNOWN = "unknown"
CSV, JSON = "bench.csv", "bench.json"


@dataclasses.dataclass(frozen=True)
class BenchRow:
    """One batch size and number of processes a device.

    Accuracy in percent (None where it was not measured), images/s of all processes, latency of a batch of one process
    in ms. And what ran: the model, the SHA-256 of each of its files, the SHA-256 of the ONNX file that it was made
    from, and what it was compiled for; "unknown" where no record beside it is of these very files.
    """

    batch: int
    processes: int
    top1: float | None
    top5: float | None
    images_per_second: float
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
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
    """The table for a terminal; * marks the fastest row. Processes have a column where there are several."""
    several = any(row.processes > 1 for row in rows)
    head = ["batch", *(["processes"] if several else [])]
    head += ["top-1 %", "top-5 %", "images/s", "mean ms", "p50 ms", "p90 ms", "p99 ms"]
    best = fastest(rows)
    lines = [
        [
            f"{row.batch}{'*' if row is best else ' '}",
            *([str(row.processes)] if several else []),
            *("-" if value is None else f"{value:.2f}" for value in (row.top1, row.top5)),
            f"{row.images_per_second:.1f}",
            *(f"{value:.2f}" for value in (row.mean_ms, row.p50_ms, row.p90_ms, row.p99_ms)),
        ]
        for row in rows
    ]
    return table(head, lines)


def write(
    folder: Path,
    rows: Sequence[BenchRow],
    where: Mapping[str, Any],
    asked: Mapping[str, Any],
    recipes: Mapping[str, Any],
) -> None:
    """Writes bench.csv and bench.json: the rows, `where` they were measured, what was `asked`, and the recipes."""
    best = fastest(rows)
    figures = [{**dataclasses.asdict(row), "best": row is best} for row in rows]
    write_json(folder / JSON, {**where, **asked, **recipes, "rows": figures})
    machine = {**where, "versions": _in_words(where["versions"])}
    flat = [{**row, "sha256": _in_words(row["sha256"])} for row in figures]
    write_csv(folder / CSV, [{**row, **recipes, **machine} for row in flat])


def _in_words(pairs: Mapping[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in pairs.items())


def write_csv(path: PathLike, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes rows with the same keys, at least one, whole or not at all."""
    with whole(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
