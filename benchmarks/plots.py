"""The tables as bars, drawn from the CSV files of this machine."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from benchmarks.peers import available
from benchmarks.rounds import machine

OURS, PEER, BOUND = "#0b6e99", "#b0b7bf", "#e0a458"


def draw(results: Path) -> None:
    """Writes speed-<machine>.png beside the CSV files, where matplotlib is installed and all parts were measured."""
    drawn = ("inference-resnest50", "preprocessing-224", "end-to-end-resnest50")
    if not all((results / f"{name}-{machine()}.csv").is_file() for name in drawn):
        return
    if not available("matplotlib", "matplotlib"):
        return
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(3, 1, figsize=(10, 10), layout="constrained", height_ratios=(9, 12, 3))
    _bars(axes[0], results, "inference-resnest50", "ResNeSt-50, images/s at the best batch size")
    _bars(axes[1], results, "preprocessing-224", "JPEG to tensor, images/s")
    _bars(axes[2], results, "end-to-end-resnest50", "JPEG to top-1, whole processes, images/s")
    path = results / f"speed-{machine()}.png"
    figure.savefig(path, dpi=110)
    print(f"drawn: {path}")


def _bars(axes: Any, results: Path, name: str, title: str) -> None:
    """A bar for the best figure of every row; of some tables only the first column is one."""
    path = results / f"{name}-{machine()}.csv"
    head, *rows = csv.reader(path.read_text(encoding="utf-8").splitlines())
    rows.reverse()
    settings = slice(1, None if head[-1].startswith("batch") else 2)
    names, values = [row[0] for row in rows], [max(map(float, row[settings])) for row in rows]
    colours = [OURS if who.startswith("this project") else BOUND if "alone" in who else PEER for who in names]
    axes.bar_label(axes.barh(names, values, color=colours), fmt="%.4g", padding=3, fontsize=9)
    axes.set_title(title, loc="left", fontsize=11)
    axes.tick_params(labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.1)
