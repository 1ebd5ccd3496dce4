"""From the scores of several stages on the same images to what a page says of them."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ResNeSt.common.files import PathLike, read_json
from ResNeSt.labels.class_names import imagenet_classes, names_in
from ResNeSt.models import cards
from ResNeSt.models.cards import Card, Published
from ResNeSt.report import data
from ResNeSt.report.data import (
    Bin,
    Classes,
    ClassScore,
    Confidence,
    Confusion,
    FlippedImage,
    Guessed,
    Kept,
    LayerCosts,
    Matrix,
    PublishedSpeed,
    Report,
    Speed,
    StageScore,
    Step,
    wilson,
)
from ResNeSt.score.outputs import OUTPUT_NAME, list_outputs, read_output
from ResNeSt.score.ranking import softmax
from ResNeSt.score.score import Result

SHOWN_FLIPS = 24
SHOWN_CLASSES = 10
MATRIX_CLASSES = 50  # more are no picture any more
BINS = 15  # Guo et al. 2017
THRESHOLDS = (*(step / 10 for step in range(10)), 0.95, 0.99)

_PUBLISHED = Path(__file__).with_name("published_speed.json")


class Judged(NamedTuple):
    """A stage that ran: its score, the summaries that list its outputs, images/s of the network alone."""

    name: str
    batch: int
    result: Result
    summaries: Sequence[PathLike]
    images_per_second: float
    difference: float | None = None

    @property
    def title(self) -> str:
        """The stage and its batch size."""
        return f"{self.name}, batch {self.batch}"

    def top1(self, image: str) -> int:
        """The class that the stage gives an image."""
        return self.result.predictions[image].classes[0]


class Subject(NamedTuple):
    """What a report is of: a network, its input size in pixels, its class names, and what was published of it."""

    model: str
    size: int | None
    class_names: Sequence[str] | None
    published: Published | None


def of_card(card: Card, weights: PathLike) -> Subject:
    """The network of a card, with its own recipe; a user's own is titled by its checkpoint, `pets/best.pth`."""
    name = card.name if card.name in cards.names() else "/".join(Path(weights).absolute().parts[-2:])
    return Subject(name, card.size, card.class_names or _imagenet(card.classes), card.own)


def of_info(info: Mapping[str, str], name: str, recipe: str | None) -> Subject:
    """The published network that a model file says it is (ResNeSt.models.model_info), else the one called `name`.

    What was published is for `recipe`, that of the tensors, or else the one that the file names; of a card of the
    user's own nothing was.
    """
    names = names_in(info)
    size = int(info["size"]) if "size" in info else None
    known, published = info.get("model") in cards.names(), None
    if names is None and known:
        wanted = recipe or info.get("recipe")
        published = next(
            (accuracy for accuracy in cards.card(info["model"]).published if accuracy.recipe == wanted), None
        )
    shown = _imagenet(int(info.get("classes", 0))) if names is None else names
    return Subject(info["model"] if known else name, size, shown, published)


def _imagenet(classes: int) -> list[str] | None:
    """1,000 classes without names of their own are ImageNet's."""
    return [class_name.name for class_name in imagenet_classes()] if classes == 1000 else None


def report(
    subject: Subject,
    about: dict[str, str],
    stages: Sequence[Judged],
    speeds: Sequence[Speed],
    steps: Sequence[Step],
    loop: int | None,
    images: PathLike | None,
    layer_costs: LayerCosts | None = None,
    complaints: Sequence[str] = (),
) -> Report:
    """The report of one run; the first of `stages` is the others' reference, `about` says where and with what it ran.

    `loop` is the runs of each of `speeds`, None where they differ, `steps` what every command spent, `images` the
    folder of the pictures, `layer_costs` those of the int8 network, `complaints` why the run failed.
    """
    return Report(
        model=subject.model,
        size=subject.size,
        about=about,
        loop=loop,
        images=None if images is None else str(images),
        class_names=None if subject.class_names is None else list(subject.class_names),
        published=subject.published,
        layer_costs=layer_costs,
        complaints=list(complaints),
        speeds=list(speeds),
        published_speeds=_published_speeds(subject),
        steps=list(steps),
        **_of_stages(stages),
    )


def _of_stages(stages: Sequence[Judged]) -> dict[str, Any]:
    """The fields that follow from what the stages answered."""
    if not stages:
        return {}
    groups = _flips(stages)
    return {
        "stages": [_score(stage, stages[0]) for stage in stages],
        "same_top1": [[_same(one, other) for other in stages] for one in stages],
        "flip_count": len({image for image, _, _ in groups}),
        "flips": _answers(stages, groups),
        "classes": _classes(stages[-1]),
        "confidence": _confidence(stages[-1]),
    }


def speed(batch: int, images_per_second: float, times: np.ndarray, processes: int = 1, instances: int = 1) -> Speed:
    """Of the latencies of a batch, in ms."""
    percentiles = np.percentile(times, np.arange(101)).tolist()
    return Speed(batch, images_per_second, float(np.mean(times)), percentiles, processes, instances)


def layer_costs(record: Mapping[str, Any]) -> LayerCosts | None:
    """What the record beside a model has of them; None where it has nothing, or nothing that can be read."""
    with contextlib.suppress(AttributeError, KeyError, TypeError):
        return data.layer_costs(record.get("layer_costs"))
    return None


def _common(one: Judged, other: Judged) -> list[str]:
    return [image for image in one.result.predictions if image in other.result.predictions]


def _same(one: Judged, other: Judged) -> int:
    return sum(one.top1(image) == other.top1(image) for image in _common(one, other))


def _score(stage: Judged, reference: Judged) -> StageScore:
    lost = gained = 0
    for image in _common(stage, reference):
        label = stage.result.predictions[image].label
        ours, theirs = stage.top1(image) == label, reference.top1(image) == label
        lost += theirs and not ours
        gained += ours and not theirs
    score = stage.result.score
    return StageScore(
        name=stage.name,
        batch=stage.batch,
        top1=score.top1,
        top5=score.top5,
        total=score.total,
        same_top1=_same(stage, reference),
        lost=lost,
        gained=gained,
        images_per_second=stage.images_per_second,
        top1_interval=wilson(score.top1, score.total),
        top5_interval=wilson(score.top5, score.total),
        difference=stage.difference,
    )


Group = tuple[str, int, int]  # image, the reference's class, another class


def _flips(stages: Sequence[Judged]) -> dict[Group, list[int]]:
    """The stages that gave each flipped image the same class, by their places among `stages`."""
    groups: dict[Group, list[int]] = {}
    for place, stage in enumerate(stages):
        for image in _common(stages[0], stage):
            if stage.top1(image) != stages[0].top1(image):
                groups.setdefault((image, stages[0].top1(image), stage.top1(image)), []).append(place)
    return groups


def _answers(stages: Sequence[Judged], groups: dict[Group, list[int]]) -> list[FlippedImage]:
    """As many flips as a page shows; those that cost accuracy first, then in the order of the images."""
    if not groups:
        return []
    truth = {image: prediction.label for image, prediction in stages[0].result.predictions.items()}
    shown = sorted(groups.items(), key=lambda item: item[0][1] != truth[item[0][0]])[:SHOWN_FLIPS]
    outputs = [_outputs(stage) for stage in stages]
    flips = []
    for (image, expected, actual), places in shown:
        first = places[0]
        flips.append(
            FlippedImage(
                image=image,
                label=truth[image],
                stages=places,
                expected=Guessed(expected, _probability(outputs[0][image], stages[0].result, expected)),
                found=Guessed(actual, _probability(outputs[first][image], stages[first].result, actual)),
            )
        )
    return flips


def _outputs(stage: Judged) -> dict[str, str]:
    """The output file of every image, the first one listed, which is the one that was scored."""
    paths = [path for summary in stage.summaries for path in list_outputs(summary)]
    named = [(OUTPUT_NAME.fullmatch(os.path.basename(path)), path) for path in paths]
    return {match[1]: path for match, path in reversed(named) if match}


def _probability(path: str, scored: Result, number: int) -> float:
    values = read_output(path)
    return float((values if scored.probabilities else softmax(values))[number])


def _classes(stage: Judged) -> Classes:
    """Worst first; of equal shares the class with more images, which says more."""
    pairs = Counter((prediction.label, prediction.classes[0]) for prediction in stage.result.predictions.values())
    images = Counter(prediction.label for prediction in stage.result.predictions.values())
    scores = [
        ClassScore(label, count, pairs[label, label], wilson(pairs[label, label], count))
        for label, count in images.items()
    ]
    wrong = [score for score in scores if score.right < score.images]
    worst = sorted(wrong, key=lambda score: (score.right / score.images, -score.images, score.label))
    confused = sorted(
        (
            Confusion(label, predicted, count, images[label])
            for (label, predicted), count in pairs.items()
            if label != predicted
        ),
        key=lambda pair: (-pair.count, -pair.count / pair.images, pair.label, pair.found),
    )
    return Classes(
        of=stage.title,
        count=len(images),
        fewest=min(images.values()),
        most=max(images.values()),
        worst=worst[:SHOWN_CLASSES],
        confused=confused[:SHOWN_CLASSES],
        matrix=_matrix(pairs),
    )


def _matrix(pairs: Counter[tuple[int, int]]) -> Matrix | None:
    labels = sorted({number for pair in pairs for number in pair})
    if len(labels) > MATRIX_CLASSES:
        return None
    return Matrix(labels, [[pairs[label, found] for found in labels] for label in labels])


def _confidence(stage: Judged) -> Confidence | None:
    """None where the outputs are not known, as of an accuracy log."""
    judged = [each for each in stage.result.predictions.values() if each.confidence is not None]
    if not judged:
        return None
    confidence = np.array([each.confidence for each in judged])
    right = np.array([each.classes[0] == each.label for each in judged])
    places = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    bins = [
        Bin(
            place / BINS,
            (place + 1) / BINS,
            int(inside.sum()),
            float(confidence[inside].mean()),
            int(right[inside].sum()),
        )
        for place in range(BINS)
        if (inside := places == place).any()
    ]
    error = sum(abs(each.right - each.images * each.confidence) for each in bins) / len(judged)
    kept = [
        Kept(threshold, int(above.sum()), int(right[above].sum()))
        for threshold in THRESHOLDS
        if (above := confidence >= threshold).any()
    ]
    return Confidence(stage.title, len(judged), error, bins, kept)


def _published_speeds(subject: Subject) -> list[PublishedSpeed]:
    """Of the same network at the same size alone; of another one they say nothing."""
    return [
        PublishedSpeed(" ".join(filter(None, [row["device"], row["precision"]])), row["source"], _rates(row))
        for row in read_json(_PUBLISHED)
        if (row["model"], row["size"]) == (subject.model, subject.size)
    ]


def _rates(row: dict[str, Any]) -> dict[str, float]:
    """Images/s by batch size, from the latency where that was published."""
    if "images_per_second" in row:
        return dict(row["images_per_second"])
    return {batch: 1000 * int(batch) / ms for batch, ms in row["latency_ms"].items()}
