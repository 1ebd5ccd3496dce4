"""The plots of a page, as SVG to be put into it: text stays text, colours are the page's CSS variables.

One drawing therefore serves light and dark. No series is told by its colour alone: markers and dashes differ, too.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any, Callable, NamedTuple

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

WIDTH = 4.6  # inches of 72 units: as wide as a phone, so that text of 10 units can be read there
MARKERS = "os^Dv<>P"
LONGEST_NAME = 36

# matplotlib takes these for colours; the page reads its own variables in their place.
INK, MUTED, GRID = "#000001", "#000002", "#000003"
SERIES = tuple(f"#0000{number:02x}" for number in range(0x11, 0x17))
_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--line)",
    **{colour: f"var(--series-{place})" for place, colour in enumerate(SERIES, start=1)},
}

_STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a name may hold $
    "font.family": ["DejaVu Sans"],  # wider than what browsers put in its place, so nothing overlaps there
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": INK,
    "grid.color": GRID,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 2,
    "lines.markersize": 6,
}


class Share(NamedTuple):
    """A share in percent with its interval."""

    name: str
    value: float
    low: float
    high: float


class Bar(NamedTuple):
    """Images whose confidence lies between `low` and `high`: its mean, the share that is right, and how many."""

    low: float
    high: float
    confidence: float
    right: float
    images: int


class Marks(NamedTuple):
    """Values at places of a network, as a line or as marks alone."""

    name: str
    points: Sequence[tuple[int, float]]
    joined: bool
    hollow: bool


class Line(NamedTuple):
    """A value over batch sizes; `ours` is drawn whole, what others published dashed."""

    name: str
    points: Sequence[tuple[float, float]]
    ours: bool


def shares(name: str, rows: Sequence[Share], unit: str) -> str:
    """A dot with a whisker for every row, the first one on top."""

    def draw(axes: Any) -> None:
        places = range(len(rows))
        below = [row.value - row.low for row in rows]
        above = [row.high - row.value for row in rows]
        axes.errorbar(
            [row.value for row in rows], places, xerr=[below, above], fmt="o", color=SERIES[0], capsize=4, ecolor=MUTED
        )
        axes.set_yticks(places, [_short(row.name) for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlabel(unit)
        axes.grid(False, axis="y")

    return _svg(name, draw, 0.75 + 0.32 * len(rows))


def over_batch(name: str, lines: Sequence[Line], unit: str) -> str:
    """Both axes logarithmic; batch sizes are named where there are points."""

    def draw(axes: Any) -> None:
        for place, line in enumerate(lines):
            x, y = zip(*line.points)
            style = {"linestyle": "-" if line.ours else (0, (4, 2)), "linewidth": 2.5 if line.ours else 1.5}
            axes.plot(x, y, marker=MARKERS[place % 8], color=SERIES[place % 6], label=_short(line.name), **style)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        batches = sorted({batch for line in lines for batch, _ in line.points})
        axes.set_xticks(batches, [f"{batch:g}" for batch in batches])
        axes.set_xlabel("batch size")
        axes.set_ylabel(unit)
        axes.xaxis.set_minor_locator(NullLocator())
        _plain_numbers(axes.yaxis)
        _legend(axes)

    return _svg(name, draw, 3.4 + 0.2 * _legend_rows([line.name for line in lines]))


def distribution(name: str, series: dict[str, list[float]]) -> str:
    """Share of the runs that took at most so long; every series holds its percentiles from 0 to 100."""

    def draw(axes: Any) -> None:
        for place, (title, values) in enumerate(series.items()):
            style = {"marker": MARKERS[place % 8], "markevery": [50, 90, 99], "color": SERIES[place % 6]}
            axes.plot(values, range(len(values)), label=_short(title), **style)
        axes.set_xscale("log")
        _plain_numbers(axes.xaxis)
        axes.set_yticks([0, 50, 90, 99], ["0", "50", "90", "99"])
        axes.set_xlabel("latency of a batch, ms")
        axes.set_ylabel("% of the runs")
        _legend(axes)

    return _svg(name, draw, 3.2 + 0.2 * _legend_rows(list(series)))


def reliability(name: str, bins: Sequence[Bar]) -> str:
    """The share that is right over the confidence, in percent; the larger a point, the more images it stands for."""

    def draw(axes: Any) -> None:
        axes.plot([0, 100], [0, 100], color=MUTED, linestyle=(0, (4, 2)), linewidth=1.2)
        axes.plot(
            [100 * each.confidence for each in bins],
            [100 * each.right for each in bins],
            color=SERIES[0],
            linewidth=1.2,
        )
        most = max(each.images for each in bins)
        axes.scatter(
            [100 * each.confidence for each in bins],
            [100 * each.right for each in bins],
            [18 + 160 * each.images / most for each in bins],
            color=SERIES[0],
            zorder=3,
        )
        axes.set_xlim(-3, 106)
        axes.set_ylim(-3, 108)
        axes.set_xlabel("confidence, %")
        axes.set_ylabel("top-1, %")

    return _svg(name, draw, 3.4)


def thresholds(name: str, kept: Sequence[tuple[float, float]], right: Sequence[tuple[float, float]]) -> str:
    """Percent of the images that have at least a confidence, and of these the percent that is right."""

    def draw(axes: Any) -> None:
        for place, (title, points) in enumerate((("top-1 of those left", right), ("images left", kept))):
            x, y = zip(*points)
            style = {"linestyle": (0, (4, 2)) if place else "-", "marker": MARKERS[place], "markersize": 4}
            axes.plot([100 * each for each in x], y, color=SERIES[place], label=title, **style)
        axes.set_xlim(-3, 103)
        axes.set_xlabel("least confidence, %")
        axes.set_ylabel("%")
        _legend(axes)

    return _svg(name, draw, 3.4)


def along(name: str, series: Sequence[Marks]) -> str:
    """Percent at every layer of a network, logarithmic."""

    def draw(axes: Any) -> None:
        for place, each in enumerate(series):
            x, y = zip(*each.points)
            style = {"linestyle": "-", "linewidth": 1.2} if each.joined else {"linestyle": "none"}
            marks = {"marker": MARKERS[place], "markersize": 4, "markerfacecolor": "none" if each.hollow else None}
            axes.plot(x, y, color=SERIES[place], label=each.name, **style, **marks)
        axes.set_yscale("log")
        _plain_numbers(axes.yaxis)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("layer, from the first to the last")
        axes.set_ylabel("%")
        _legend(axes)

    return _svg(name, draw, 3.4 + 0.2 * _legend_rows([each.name for each in series]))


def bars(name: str, values: dict[str, float], unit: str) -> str:
    """A bar a row, the first one on top, with its value behind it."""

    def draw(axes: Any) -> None:
        drawn = axes.barh(range(len(values)), list(values.values()), color=SERIES[0], height=0.62)
        axes.bar_label(
            drawn, [f"{value:,.3g}" if value < 100 else f"{value:,.0f}" for value in values.values()], padding=4
        )
        axes.set_yticks(range(len(values)), list(map(_short, values)))
        axes.set_ylim(len(values) - 0.4, -0.6)
        axes.set_xlabel(unit)
        axes.margins(x=0.14)
        axes.grid(False, axis="y")

    return _svg(name, draw, 0.75 + 0.32 * len(values))


def _legend(axes: Any) -> None:
    """Below the axes, of the names that are drawn."""
    columns = _legend_columns(axes.get_legend_handles_labels()[1])
    axes.legend(loc="upper left", bbox_to_anchor=(-0.15, -0.2), ncols=columns, borderaxespad=0)


def _legend_columns(names: Sequence[str]) -> int:
    longest = max(len(_short(name)) for name in names)
    return max(1, min(3, int(72 * WIDTH / (36 + 5.5 * longest))))


def _legend_rows(names: Sequence[str]) -> int:
    return -(-len(names) // _legend_columns(names))


def _short(name: str) -> str:
    """Beside an axis a long name would leave no room for it."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def _plain_numbers(axis: Any) -> None:
    """A few ticks of a logarithmic axis: 1, 2, 5, 10, ... where it is long, else at even distances."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)) if high > 8 * low else MaxNLocator(5))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))


def _svg(name: str, draw: Callable[[Any], None], height: float) -> str:
    """What `draw` puts on an axes; `name` keeps the ids of one page's drawings apart."""
    style: Any = {**_STYLE, "svg.hashsalt": name}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        draw(figure.subplots())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return _for_page(buffer.getvalue(), name)


def _for_page(svg: str, name: str) -> str:
    """Without what only a file of its own needs, ids made the page's only ones, colours made variables."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
    return re.sub(r"<[^>]+>", lambda tag: _tag_for_page(tag[0], name), svg)  # what a text says stays as it is


def _tag_for_page(tag: str, name: str) -> str:
    tag = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", tag)
    return re.sub(r"#0000[01][0-9a-f]", lambda match: _VARIABLES.get(match[0], match[0]), tag)
