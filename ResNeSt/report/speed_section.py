"""The part of a page on speed: this run's batch sizes, beside what was published of the same network."""

from __future__ import annotations

import html
from collections.abc import Sequence

from ResNeSt.report import plots
from ResNeSt.report.data import PublishedSpeed, Report, Speed
from ResNeSt.report.markup import figure, grid, section, table


def speed_section(report: Report) -> str:
    """The section, of a report with speeds."""
    published = report.published_speeds
    return section(
        "Speed",
        f"{report.loop or 'Some'} runs of each batch size on one input; copies and files are left out, as ais_bench "
        f"counts.{_comparable(report)}",
        _speed_pictures(report.speeds, published),
        _speed_table(report.speeds, published),
        grid(
            figure(
                "Distribution of the latencies",
                plots.distribution("runs", {speed.title: speed.percentiles_ms for speed in report.speeds}),
            ),
            _latency_table(report.speeds),
        ),
    )


def _speed_pictures(speeds: Sequence[Speed], published: Sequence[PublishedSpeed]) -> str:
    """Over the batch size; where this run has one alone a bar each, since a line needs two points."""
    if len({speed.batch for speed in speeds}) == 1:
        return _bars(speeds[0].batch, speeds, published)
    rates_by_batch = [*_our_lines(speeds, True), *(plots.Line(each.device, _rates(each), False) for each in published)]
    means_by_batch = [
        *_our_lines(speeds, False),
        *(plots.Line(each.device, _latencies(each), False) for each in published),
    ]
    return grid(
        figure("Throughput over batch size", plots.over_batch("throughput", rates_by_batch, "images/s")),
        figure("Mean latency over batch size", plots.over_batch("latency", means_by_batch, "ms a batch")),
    )


def _bars(batch: int, speeds: Sequence[Speed], published: Sequence[PublishedSpeed]) -> str:
    rates = {_name(speed, speeds): speed.images_per_second for speed in speeds}
    means = {_name(speed, speeds): speed.mean_ms for speed in speeds}
    for each in published:
        for at, rate in _rates(each):
            if at == batch:
                rates[each.device], means[each.device] = rate, 1000 * at / rate
    return grid(
        figure(f"Throughput at batch {batch}", plots.bars("throughput", rates, "images/s")),
        figure(f"Mean latency at batch {batch}", plots.bars("latency", means, "ms a batch")),
    )


def _ours(speeds: Sequence[Speed]) -> dict[str, list[Speed]]:
    """The lines of this run, one for each number of processes or instances."""
    lines: dict[str, list[Speed]] = {}
    for speed in speeds:
        lines.setdefault(_name(speed, speeds), []).append(speed)
    return lines


def _name(speed: Speed, speeds: Sequence[Speed]) -> str:
    alone = ", one alone" if any(each.side_by_side for each in speeds) else ""
    return f"this run{speed.side_by_side or alone}"


def _our_lines(speeds: Sequence[Speed], rate: bool) -> list[plots.Line]:
    return [
        plots.Line(name, sorted((each.batch, each.images_per_second if rate else each.mean_ms) for each in line), True)
        for name, line in _ours(speeds).items()
    ]


def _comparable(report: Report) -> str:
    if not report.published_speeds:
        return ""
    return f" The published figures are of the same network at {report.size} pixels, on other machines."


def _rates(published: PublishedSpeed) -> list[tuple[float, float]]:
    return [(int(batch), rate) for batch, rate in published.images_per_second.items()]


def _latencies(published: PublishedSpeed) -> list[tuple[float, float]]:
    return [(batch, 1000 * batch / rate) for batch, rate in _rates(published)]


def _speed_table(speeds: Sequence[Speed], published: Sequence[PublishedSpeed]) -> str:
    """A row for this run and for each published one, a column a batch size."""
    lines = {
        name: {each.batch: (each.images_per_second, each.mean_ms) for each in line}
        for name, line in _ours(speeds).items()
    }
    lines.update({each.device: {int(at): (rate, 1000 * at / rate) for at, rate in _rates(each)} for each in published})
    batches = sorted({batch for line in lines.values() for batch in line})
    rows = [
        [name, *("{:,.0f} ({:,.2f})".format(*line[batch]) if batch in line else "-" for batch in batches)]
        for name, line in lines.items()
    ]
    sources: dict[str, list[str]] = {each.source: [] for each in published}
    for each in published:
        sources[each.source].append(each.device)
    notes = "".join(f"<li>{html.escape(', '.join(names) + ': ' + source)}</li>" for source, names in sources.items())
    head = ["images/s (ms a batch)", *(f"batch {batch}" for batch in batches)]
    caption = "Beside published figures" if published else "By batch size"
    return table(caption, head, rows, f"<ul>{notes}</ul>" if notes else "")


def _latency_table(speeds: Sequence[Speed]) -> str:
    shown = {"least": 0, "median": 50, "90 %": 90, "99 %": 99, "most": 100}
    rows = [
        [
            speed.title.removeprefix("batch "),
            f"{speed.mean_ms:,.2f}",
            *(f"{speed.percentiles_ms[place]:,.2f}" for place in shown.values()),
        ]
        for speed in speeds
    ]
    return table("Latency of a batch, ms", ["batch", "mean", *shown], rows)
