"""The tables' bars and lines, drawn from the CSV files of this machine."""

from __future__ import annotations

import csv
from typing import Any

from benchmarks.peers import available
from benchmarks.rounds import RESULTS, machine

OURS, PEER, BOUND = "#0b6e99", "#b0b7bf", "#e0a458"


def draw() -> None:
    """Writes speed-<machine>.png beside the CSV files, where matplotlib is installed and the files are there."""
    if not available("matplotlib", "matplotlib"):
        return
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, figsize=(13, 8), layout="constrained")
    _lines(axes[0][0], "inference-resnest50", "ResNeSt-50, images/s by batch size")
    _bars(axes[0][1], "preprocessing-224", "JPEG to tensor, images/s")
    _bars(axes[1][0], "end-to-end-resnest50", "JPEG to top-1, whole processes, images/s")
    _bars(axes[1][1], "scoring-50000", "50,000 results scored, seconds")
    path = RESULTS / f"speed-{machine()}.png"
    figure.savefig(path, dpi=110)
    print(f"drawn: {path.name}")


def _read(name: str) -> tuple[list[str], list[list[str]]]:
    path = RESULTS / f"{name}-{machine()}.csv"
    if not path.is_file():
        return [], []
    head, *rows = csv.reader(path.read_text(encoding="utf-8").splitlines())
    return head, rows


def _bars(axes: Any, name: str, title: str) -> None:
    _, rows = _read(name)
    rows.reverse()
    names, values = [row[0] for row in rows], [float(row[1]) for row in rows]
    colours = [OURS if who.startswith("this project") else BOUND if "alone" in who else PEER for who in names]
    axes.bar_label(axes.barh(names, values, color=colours), fmt="%.4g", padding=3)
    axes.set_title(title, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.12)


def _lines(axes: Any, name: str, title: str) -> None:
    head, rows = _read(name)
    batches = [column.removeprefix("batch ") for column in head[1:]]
    for who, *values in rows:
        rates = [float(value) for value in values]
        ours = who.startswith("this project,")
        axes.plot(batches, rates, color=OURS if ours else PEER, linewidth=2.5 if ours else 1.2, marker="o")
        axes.annotate(
            who, (len(batches) - 1, rates[-1]), xytext=(6, 0), textcoords="offset points", va="center", fontsize=8
        )
    axes.set_title(title, loc="left")
    axes.set_xlabel("batch size")
    axes.set_ylim(0)
    axes.margins(x=0.02)
    axes.spines[["top", "right"]].set_visible(False)
