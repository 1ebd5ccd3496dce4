"""The page: one HTML file, readable without a network, without a script, on a phone and in the dark.

Whatever comes from outside (names of files, models and classes) is escaped, and the page's own policy lets a browser
load nothing.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ResNeSt.report import plots
from ResNeSt.report.collect import BINS
from ResNeSt.report.data import (
    Classes,
    Confidence,
    FlippedImage,
    Guessed,
    Kept,
    Matrix,
    Report,
    StageScore,
)
from ResNeSt.report.layer_section import layer_section
from ResNeSt.report.markup import figure, grid, hundred, interval, percent, scroller, section, table
from ResNeSt.report.speed_section import speed_section

_STYLE = Path(__file__).with_name("page.css")
ROOMY_CLASSES = 20  # have room for larger cells in a matrix
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def page(report: Report, pictures: Mapping[str, str]) -> str:
    """The page of `report`; `pictures` are thumbnails, data URIs by image name."""
    parts = [_header(report)]
    if report.stages:
        parts.append(_accuracy(report))
    if len(report.stages) > 1:
        parts += [_agreement(report), _flips(report, pictures)]
    if report.layer_costs and report.layer_costs.layers:
        parts.append(layer_section(report.layer_costs))
    if report.classes:
        parts.append(_classes(report.classes, report))
    if report.confidence:
        parts.append(_confidence(report.confidence))
    if report.speeds:
        parts.append(speed_section(report))
    if report.steps:
        parts.append(_steps(report))
    parts.append(_about(report))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(report.model)}: report</title>\n"
        f"<style>\n{_STYLE.read_text(encoding='utf-8')}</style>\n</head>\n<body>\n"
        '<a class="skip" href="#figures">Skip to the figures</a>\n'
        f"{parts[0]}\n{_contents(parts[1:])}\n"
        '<main id="figures" tabindex="-1">\n' + "\n".join(parts[1:]) + "\n</main>\n</body>\n</html>\n"
    )


def _contents(sections: Sequence[str]) -> str:
    """Links to the sections: a keyboard gets anywhere by them."""
    found = [re.search(r'<section id="([^"]+)">\n<h2>([^<]+)', section) for section in sections]
    links = "".join(f'<a href="#{each[1]}">{each[2]}</a>' for each in found if each)
    return f'<nav aria-label="Contents">{links}</nav>'


def _header(report: Report) -> str:
    about = report.about
    where = " · ".join(html.escape(about[key]) for key in ("chip", "precision", "date") if key in about)
    size = f", {report.size} &times; {report.size} pixels" if report.size else ""
    failed = "".join(f'<p class="failed" role="alert">{html.escape(why)}</p>\n' for why in report.complaints)
    return (
        f"<header>\n<h1>{html.escape(report.model)}{size}</h1>\n<p>{where}</p>\n{failed}"
        f'<div class="grid tiles">{"".join(_tiles(report))}</div>\n</header>'
    )


def _tiles(report: Report) -> list[str]:
    tiles = []
    if report.stages:
        last = report.stages[-1]
        low, high = last.top1_interval
        shown = f"{100 * low:.2f} to {100 * high:.2f} % with 95 % confidence"
        tiles.append(_tile(percent(last.top1, last.total), f"top-1: {last.top1:,} of {last.total:,}", shown))
    if len(report.stages) > 1:
        worst = min(report.stages[1:], key=lambda stage: stage.same_top1)
        of = f"images with the top-1 of {report.stages[0].title}"
        alike = all((stage.same_top1, stage.total) == (worst.same_top1, worst.total) for stage in report.stages[1:])
        where = "at every other stage" if alike else f"the fewest: {worst.title}"
        tiles.append(_tile(f"{worst.same_top1:,} of {worst.total:,}", of, where))
    if report.speeds:
        best = max(report.speeds, key=lambda speed: speed.images_per_second)
        shown = f"{best.title}: {best.mean_ms:,.2f} ms a batch"
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
        figure(f"{name} with 95 % intervals", plots.shares(name, [_share(stage, key) for stage in stages], "%"))
        for name, key in (("top-1", "top1"), ("top-5", "top5"))
    ]
    head = ["stage", "batch", "top-1 %", "95 % interval", "top-5 %", "95 % interval", "images", "images/s"]
    rows = [
        [
            stage.name,
            str(stage.batch),
            hundred(stage.top1, stage.total),
            interval(stage.top1_interval),
            hundred(stage.top5, stage.total),
            interval(stage.top5_interval),
            f"{stage.total:,}",
            f"{stage.images_per_second:,.1f}",
        ]
        for stage in stages
    ]
    return section(
        "Accuracy",
        "Every stage on the same images. The intervals (Wilson's) are for images drawn like these; since all stages "
        "saw the same ones, the next section tells stages apart more sharply."
        f"{_published_accuracy(report)}{_calibrated(report)}",
        grid(*drawn),
        table("Scores", head, rows),
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
    low, high = getattr(stage, f"{key}_interval")
    return plots.Share(stage.title, 100 * right / stage.total, 100 * low, 100 * high)


def _agreement(report: Report) -> str:
    reference = report.stages[0].title
    name = report.stages[0].name
    head = ["stage", "same top-1", "changed top-1", f"only {name} right", f"only {name} wrong"]
    rows = [
        [stage.title, f"{stage.same_top1:,} of {stage.total:,}", *_counts(stage.flipped, stage.lost, stage.gained)]
        for stage in report.stages
    ]
    measured = [stage.difference for stage in report.stages]
    if any(value is not None for value in measured):
        head.append("largest difference of a logit")
        rows = [[*row, "-" if value is None else f"{value:.1e}"] for row, value in zip(rows, measured)]
    return section(
        "Agreement",
        "Image by image. Differences of logits are relative to the largest one.",
        table(f"Every stage beside {reference}", head, rows),
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
    return scroller("Images whose top-1 differs between two stages", ["", *titles], rows, kind="named")


def _flips(report: Report, pictures: Mapping[str, str]) -> str:
    reference = report.stages[0].title
    if not report.flips:
        return section("Flipped images", f"None: every stage gives each image the top-1 of {reference}.")
    shown = len({flip.image for flip in report.flips})
    all_of_them = "" if shown == report.flip_count else f" Shown are {shown}."
    return section(
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
    return f"{number} {names[number]}" if names and 0 <= number < len(names) else str(number)


def _classes(classes: Classes, report: Report) -> str:
    each = f"{classes.fewest:,}" if classes.fewest == classes.most else f"{classes.fewest:,} to {classes.most:,}"
    images = "image" if classes.most == 1 else "images"
    matrix = [_confusion(classes.matrix, report)] if classes.matrix else []
    if not classes.worst:
        text = f"{classes.of} has no image wrong; {classes.count:,} classes of {each} {images}."
        return section("Classes", text, *matrix)
    worst = [
        [
            _class(score.label, report),
            f"{score.right:,} of {score.images:,}",
            hundred(score.right, score.images),
            interval(score.interval),
        ]
        for score in classes.worst
    ]
    confused = [
        [_class(pair.label, report), _class(pair.found, report), f"{pair.count:,} of {pair.images:,}"]
        for pair in classes.confused
    ]
    return section(
        "Classes",
        f"Of {classes.of}: {classes.count:,} classes of {each} {images} each. Few images make wide intervals.",
        grid(
            table("Worst classes", ["class", "right", "top-1 %", "95 % interval"], worst),
            table("Most confused pairs", ["class", "taken for", "images of the class"], confused, second_names=True),
        ),
        *matrix,
    )


def _confusion(matrix: Matrix, report: Report) -> str:
    """A row a class, a column an answer; what is right is shaded one way, what is wrong another."""
    rows = []
    for label, counts in zip(matrix.labels, matrix.counts):
        cells = "".join(_confused(count, label == found) for found, count in zip(matrix.labels, counts))
        name = html.escape(_class(label, report))
        rows.append(f'<tr><th scope="row" title="{name}">{name}</th>{cells}</tr>')
    return scroller(
        "Confusion matrix: images of a class, by the class they were given",
        ["", *map(str, matrix.labels)],
        rows,
        kind="matrix dense" if len(matrix.labels) > ROOMY_CLASSES else "matrix",
    )


def _confused(count: int, right: bool) -> str:
    if not count:
        return '<td class="none">0</td>'
    return f'<td class="{"on" if right else "off"}">{count:,}</td>'


def _confidence(confidence: Confidence) -> str:
    bins = [
        plots.Bar(each.low, each.high, each.confidence, each.right / each.images, each.images)
        for each in confidence.bins
    ]
    rows = [
        [
            f"{each.confidence:.2f}",
            f"{each.images:,}",
            hundred(each.images, confidence.images),
            hundred(each.right, each.images),
        ]
        for each in _alike_left_out(confidence.kept)
    ]
    kept = [(each.confidence, 100 * each.images / confidence.images) for each in confidence.kept]
    right = [(each.confidence, 100 * each.right / each.images) for each in confidence.kept]
    return section(
        "Confidence",
        f"How far the probability (softmax) of the first class can be believed, of {confidence.of}. Expected "
        f"calibration error {100 * confidence.error:.2f} %, with images in {len(confidence.bins)} of {BINS} bins (Guo "
        "et al. 2017). Above the diagonal the network is right more often than it says; a larger point stands for "
        "more images.",
        grid(
            figure("Images right over confidence", plots.reliability("reliability", bins)),
            figure("What a least confidence leaves", plots.thresholds("kept", kept, right)),
        ),
        table("At a least confidence", ["at least", "images", "% of all", "top-1 % of them"], rows),
    )


def _alike_left_out(kept: Sequence[Kept]) -> list[Kept]:
    """Of thresholds that leave the same images the highest."""
    return [each for each, after in zip(kept, [*kept[1:], None]) if after is None or after.images != each.images]


def _steps(report: Report) -> str:
    seconds = {step.name: step.seconds for step in report.steps}
    memory = {step.name: step.peak_bytes / 1e6 for step in report.steps}
    return section(
        "Time and memory",
        "Whole processes with their start. Memory is the largest resident set of a step's process or of one that it "
        "started; what was up to date took no time.",
        grid(
            figure("Time per step", plots.bars("seconds", seconds, "s")),
            figure("Peak memory per step", plots.bars("memory", memory, "MB")),
        ),
    )


def _about(report: Report) -> str:
    lines = "".join(f"<dt>{html.escape(key)}</dt><dd>{html.escape(value)}</dd>" for key, value in report.about.items())
    return section("Where and with what", "", f'<dl class="card">{lines}</dl>')
