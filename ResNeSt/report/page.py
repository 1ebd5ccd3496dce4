"""The page: one HTML file, readable without a network, without a script, on a phone and in the dark.

Whatever comes from outside (names of files, models and classes) is escaped, and the page's own policy lets a browser
load nothing.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ResNeSt.common.files import read_json
from ResNeSt.report import plots
from ResNeSt.report.data import Classes, FlippedImage, Guessed, Report, Speed, StageScore, wilson

_STYLE = Path(__file__).with_name("page.css")
_PUBLISHED = Path(__file__).with_name("published_speed.json")
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def page(report: Report, pictures: Mapping[str, str]) -> str:
    """The page of `report`; `pictures` are thumbnails, data URIs by image name."""
    parts = [_header(report)]
    if report.stages:
        parts.append(_accuracy(report))
    if len(report.stages) > 1:
        parts += [_agreement(report), _flips(report, pictures)]
    if report.classes:
        parts.append(_classes(report.classes, report))
    if report.speeds:
        parts.append(_speed(report))
    if report.steps:
        parts.append(_steps(report))
    parts.append(_about(report))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(report.model)}: report</title>\n"
        f"<style>\n{_STYLE.read_text(encoding='utf-8')}</style>\n</head>\n<body>\n"
        f"{parts[0]}\n<main>\n" + "\n".join(parts[1:]) + "\n</main>\n</body>\n</html>\n"
    )


def _header(report: Report) -> str:
    about = report.about
    where = " · ".join(html.escape(about[key]) for key in ("chip", "precision", "date") if key in about)
    size = f", {report.size} &times; {report.size} pixels" if report.size else ""
    return (
        f"<header>\n<h1>{html.escape(report.model)}{size}</h1>\n<p>{where}</p>\n"
        f'<div class="grid tiles">{"".join(_tiles(report))}</div>\n</header>'
    )


def _tiles(report: Report) -> list[str]:
    tiles = []
    if report.stages:
        last = report.stages[-1]
        low, high = wilson(last.top1, last.total)
        shown = f"{100 * low:.2f} to {100 * high:.2f} % with 95 % confidence"
        tiles.append(_tile(_percent(last.top1, last.total), f"top-1: {last.top1:,} of {last.total:,}", shown))
    if len(report.stages) > 1:
        worst = min(report.stages[1:], key=lambda stage: stage.same_top1)
        of = f"images with the top-1 of {report.stages[0].title}"
        tiles.append(_tile(f"{worst.same_top1:,} of {worst.total:,}", of, f"the fewest: {worst.title}"))
    if report.speeds:
        best = max(report.speeds, key=lambda speed: speed.images_per_second)
        shown = f"{best.title}, {best.mean_ms:,.2f} ms each"
        tiles.append(_tile(f"{best.images_per_second:,.0f} images/s", "the network alone", shown))
    if report.steps:
        seconds = sum(step.seconds for step in report.steps)
        peak = max(step.peak_bytes for step in report.steps) / 1e6
        tiles.append(_tile(f"{seconds:.1f} s", f"{len(report.steps)} processes", f"the largest held {peak:,.0f} MB"))
    return tiles


def _tile(value: str, *lines: str) -> str:
    return (
        f'<div class="card tile"><b>{value}</b>'
        + "".join(f"<span>{html.escape(line)}</span>" for line in lines)
        + "</div>"
    )


def _accuracy(report: Report) -> str:
    stages = report.stages
    drawn = [
        _figure(f"{name} with 95 % intervals", plots.shares(name, [_share(stage, key) for stage in stages], "%"))
        for name, key in (("top-1", "top1"), ("top-5", "top5"))
    ]
    head = ["stage", "batch", "top-1 %", "95 % interval", "top-5 %", "95 % interval", "images", "images/s"]
    rows = [
        [
            stage.name,
            str(stage.batch),
            _hundred(stage.top1, stage.total),
            _interval(stage.top1, stage.total),
            _hundred(stage.top5, stage.total),
            _interval(stage.top5, stage.total),
            f"{stage.total:,}",
            f"{stage.images_per_second:,.1f}",
        ]
        for stage in stages
    ]
    return _section(
        "Accuracy",
        "Every stage on the same images. The intervals (Wilson's) are for images drawn like these; since all stages "
        "saw the same ones, the next section tells stages apart more sharply."
        f"{_published_accuracy(report)}{_calibrated(report)}",
        _grid(*drawn),
        _table("Scores", head, rows),
    )


def _published_accuracy(report: Report) -> str:
    accuracy = report.published
    if accuracy is None:
        return ""
    top5 = "" if accuracy.top5 is None else f", top-5 {accuracy.top5:.2f} %"
    return f" Published for this network and recipe: top-1 {accuracy.top1:.2f} %{top5} ({accuracy.source})."


def _calibrated(report: Report) -> str:
    return f" {report.about['calibration']}." if "calibration" in report.about else ""


def _share(stage: StageScore, key: str) -> plots.Share:
    right = getattr(stage, key)
    low, high = wilson(right, stage.total)
    return plots.Share(stage.title, 100 * right / stage.total, 100 * low, 100 * high)


def _agreement(report: Report) -> str:
    reference = report.stages[0].title
    head = ["stage", f"top-1 as {reference}", "another", "right before, wrong now", "wrong before, right now"]
    rows = [
        [stage.title, f"{stage.same_top1:,} of {stage.total:,}", *_counts(stage.flipped, stage.lost, stage.gained)]
        for stage in report.stages
    ]
    measured = [stage.difference for stage in report.stages]
    if any(value is not None for value in measured):
        head.append("largest difference of a logit")
        rows = [[*row, "-" if value is None else f"{value:.1e}"] for row, value in zip(rows, measured)]
    return _section(
        "Agreement",
        "Image by image. Differences of logits are relative to the largest one.",
        _table(f"Every stage beside {reference}", head, rows),
        _matrix(report),
    )


def _counts(*values: int) -> list[str]:
    return [f"{value:,}" for value in values]


def _matrix(report: Report) -> str:
    """Marked where two stages answer differently."""
    titles = [stage.title for stage in report.stages]
    rows = []
    for stage, counts in zip(report.stages, report.same_top1):
        cells = [stage.total - same for same in counts]
        body = "".join(f'<td class="off">{cell:,}</td>' if cell else "<td>0</td>" for cell in cells)
        rows.append(f'<tr><th scope="row">{html.escape(stage.title)}</th>{body}</tr>')
    return _scroller("Images to which two stages give another top-1", ["", *titles], rows)


def _flips(report: Report, pictures: Mapping[str, str]) -> str:
    reference = report.stages[0].title
    if not report.flips:
        return _section("Flipped images", f"None: every stage gives each image the top-1 of {reference}.")
    shown = len({flip.image for flip in report.flips})
    all_of_them = "" if shown == report.flip_count else f" Shown are {shown}."
    return _section(
        "Flipped images",
        f"{report.flip_count:,} of {report.stages[0].total:,} images changed their top-1 on the way from {reference}; "
        f"those that cost accuracy come first.{all_of_them} Beside each answer stands its probability (softmax).",
        '<div class="grid flips">' + "".join(_flip(flip, report, pictures) for flip in report.flips) + "</div>",
    )


def _flip(flip: FlippedImage, report: Report, pictures: Mapping[str, str]) -> str:
    name = html.escape(flip.image)
    picture = '<span class="none">no picture here</span>'
    if flip.image in pictures:
        picture = f'<img src="{html.escape(pictures[flip.image])}" alt="{name}" width="96" height="96" loading="lazy">'
    judged = _titles([report.stages[place] for place in flip.stages])
    answers = [(report.stages[0].title, flip.expected), (judged, flip.found)]
    lines = "".join(
        f"<dt>{html.escape(who)}</dt><dd>{_answer(answer, flip.label, report)}</dd>" for who, answer in answers
    )
    label = html.escape(_class(flip.label, report))
    return f'<div class="card flip">{picture}<div><b>{name}</b><br>label {label}<dl>{lines}</dl></div></div>'


def _titles(stages: Sequence[StageScore]) -> str:
    """`compiled, batch 1, 4, 8`: batch sizes of one stage are listed together."""
    batches: dict[str, list[str]] = {}
    for stage in stages:
        batches.setdefault(stage.name, []).append(str(stage.batch))
    return "; ".join(f"{name}, batch {', '.join(sizes)}" for name, sizes in batches.items())


def _answer(answer: Guessed, label: int, report: Report) -> str:
    shown = f"{html.escape(_class(answer.number, report))}, {100 * answer.probability:.1f} %"
    return f'<span class="right">{shown}, right</span>' if answer.number == label else shown


def _class(number: int, report: Report) -> str:
    names = report.class_names
    return f"{number} {names[number]}" if names and number < len(names) else str(number)


def _classes(classes: Classes, report: Report) -> str:
    each = f"{classes.fewest:,}" if classes.fewest == classes.most else f"{classes.fewest:,} to {classes.most:,}"
    if not classes.worst:
        return _section("Classes", f"{classes.of} has no image wrong; {classes.count:,} classes of {each} images.")
    worst = [
        [
            _class(score.label, report),
            f"{score.right:,} of {score.images:,}",
            _hundred(score.right, score.images),
            _interval(score.right, score.images),
        ]
        for score in classes.worst
    ]
    confused = [
        [_class(pair.label, report), _class(pair.found, report), f"{pair.count:,} of {pair.images:,}"]
        for pair in classes.confused
    ]
    return _section(
        "Classes",
        f"Of {classes.of}: {classes.count:,} classes of {each} images each. Few images make wide intervals.",
        _grid(
            _table("Worst classes", ["class", "right", "top-1 %", "95 % interval"], worst),
            _table("Most confused pairs", ["class", "taken for", "images of the class"], confused),
        ),
    )


def _speed(report: Report) -> str:
    published = _published(report.model)
    rates = [*_our_lines(report.speeds, True), *(plots.Line(_name(row), _rates(row), False) for row in published)]
    latencies = [
        *_our_lines(report.speeds, False),
        *(plots.Line(_name(row), _latencies(row), False) for row in published),
    ]
    return _section(
        "Speed",
        f"{report.loop or 'Some'} runs of each batch size on one input; copies and files are left out, as ais_bench "
        f"counts. {_comparable(report, published)}",
        _grid(
            _figure("Throughput over batch size", plots.over_batch("throughput", rates, "images/s")),
            _figure("Mean latency over batch size", plots.over_batch("latency", latencies, "ms a batch")),
        ),
        _speed_table(report.speeds, published),
        _grid(
            _figure(
                "Distribution of the latencies",
                plots.distribution("runs", {speed.title: speed.percentiles_ms for speed in report.speeds}),
            ),
            _latency_table(report.speeds),
        ),
    )


def _ours(speeds: Sequence[Speed]) -> dict[str, list[Speed]]:
    """The lines of this run, one for each number of processes or instances."""
    lines: dict[str, list[Speed]] = {}
    for speed in speeds:
        lines.setdefault(f"this run{speed.side_by_side}", []).append(speed)
    return lines


def _our_lines(speeds: Sequence[Speed], rate: bool) -> list[plots.Line]:
    return [
        plots.Line(name, sorted((each.batch, each.images_per_second if rate else each.mean_ms) for each in line), True)
        for name, line in _ours(speeds).items()
    ]


def _published(model: str) -> list[dict[str, Any]]:
    """The rows published for this very network, else those of ResNeSt-50."""
    rows: list[dict[str, Any]] = read_json(_PUBLISHED)
    return [row for row in rows if row["model"] == model] or [row for row in rows if row["model"] == "resnest50"]


def _comparable(report: Report, published: Sequence[dict[str, Any]]) -> str:
    model, size = published[0]["model"], published[0]["size"]
    if (report.model, report.size) == (model, size):
        return f"The published figures are of the same network at {size} pixels, on other machines."
    what = "another size" if report.model == model else "another network"
    return f"The published figures are of {model} at {size} pixels, {what}, so for orientation alone."


def _name(row: dict[str, Any]) -> str:
    return " ".join(filter(None, [row["device"], row["precision"]]))


def _rates(row: dict[str, Any]) -> list[tuple[float, float]]:
    """Images/s by batch size, from the latency where that was published."""
    if "images_per_second" in row:
        return [(int(batch), rate) for batch, rate in row["images_per_second"].items()]
    return [(int(batch), 1000 * int(batch) / ms) for batch, ms in row["latency_ms"].items()]


def _latencies(row: dict[str, Any]) -> list[tuple[float, float]]:
    return [(batch, 1000 * batch / rate) for batch, rate in _rates(row)]


def _speed_table(speeds: Sequence[Speed], published: Sequence[dict[str, Any]]) -> str:
    """A row for this run and for each published one, a column a batch size."""
    lines = {
        name: {each.batch: (each.images_per_second, each.mean_ms) for each in line}
        for name, line in _ours(speeds).items()
    }
    lines.update({_name(row): {int(at): (rate, 1000 * at / rate) for at, rate in _rates(row)} for row in published})
    batches = sorted({batch for line in lines.values() for batch in line})
    rows = [
        [name, *("{:,.0f} ({:,.2f})".format(*line[batch]) if batch in line else "-" for batch in batches)]
        for name, line in lines.items()
    ]
    sources: dict[str, list[str]] = {row["source"]: [] for row in published}
    for row in published:
        sources[row["source"]].append(_name(row))
    notes = "".join(f"<li>{html.escape(', '.join(names) + ': ' + source)}</li>" for source, names in sources.items())
    head = ["images/s (ms a batch)", *(f"batch {batch}" for batch in batches)]
    return _table("Beside published figures", head, rows, f"<ul>{notes}</ul>")


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
    return _table("Latency of a batch, ms", ["batch", "mean", *shown], rows)


def _steps(report: Report) -> str:
    seconds = {step.name: step.seconds for step in report.steps}
    memory = {step.name: step.peak_bytes / 1e6 for step in report.steps}
    return _section(
        "Time and memory",
        "Whole processes with their start. Memory is the largest resident set of a step's process or of one that it "
        "started; what was up to date took no time.",
        _grid(
            _figure("Time per step", plots.bars("seconds", seconds, "s")),
            _figure("Peak memory per step", plots.bars("memory", memory, "MB")),
        ),
    )


def _about(report: Report) -> str:
    lines = "".join(f"<dt>{html.escape(key)}</dt><dd>{html.escape(value)}</dd>" for key, value in report.about.items())
    return _section("Where and with what", "", f'<dl class="card">{lines}</dl>')


def _section(title: str, text: str, *parts: str) -> str:
    paragraph = f"<p>{html.escape(text)}</p>\n" if text else ""
    return f"<section>\n<h2>{title}</h2>\n{paragraph}" + "\n".join(parts) + "\n</section>"


def _grid(*parts: str) -> str:
    return '<div class="grid wide">' + "".join(parts) + "</div>"


def _figure(caption: str, svg: str) -> str:
    """The tables hold the same figures, so a reader who does not see the drawing misses nothing."""
    caption = html.escape(caption)
    drawing = svg.replace("<svg ", f'<svg role="img" aria-label="{caption}" ', 1)
    return f'<figure class="card"><figcaption>{caption}</figcaption>{drawing}</figure>'


def _table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]], notes: str = "") -> str:
    lines = []
    for first, *cells in rows:
        body = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
        lines.append(f'<tr><th scope="row">{html.escape(first)}</th>{body}</tr>')
    return _scroller(caption, head, lines, notes)


def _scroller(caption: str, head: Sequence[str], rows: Sequence[str], notes: str = "") -> str:
    """A table that scrolls inside its card where the screen is narrow."""
    caption = html.escape(caption)
    cells = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in head)
    return (
        f'<div class="card wide"><h3>{caption}</h3>'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{caption}">'
        f'<table aria-label="{caption}"><thead><tr>{cells}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
        f"{notes}</div>"
    )


def _hundred(right: int, total: int) -> str:
    return f"{100 * right / total:.2f}"


def _percent(right: int, total: int) -> str:
    return f"{_hundred(right, total)} %"


def _interval(right: int, total: int) -> str:
    low, high = wilson(right, total)
    return f"{100 * low:.2f} to {100 * high:.2f}"
