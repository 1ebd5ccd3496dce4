"""From the scores of several stages on the same images to what a page says of them."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from ResNeSt.files import PathLike
from ResNeSt.report.data import Answer, Classes, ClassScore, Confusion, Flip, Speed, StageScore
from ResNeSt.scoring import OUTPUT_NAME, Result, list_outputs, read_output, softmax

SHOWN_FLIPS = 24
SHOWN_CLASSES = 10


class Judged(NamedTuple):
    """A stage that ran: its score, the summaries that list its outputs, images/s of the network alone."""

    name: str
    batch: int
    result: Result
    summaries: Sequence[PathLike]
    images_per_second: float
    difference: Optional[float] = None

    @property
    def title(self) -> str:
        """The stage and its batch size."""
        return f"{self.name}, batch {self.batch}"

    def top1(self, image: str) -> int:
        """The class that the stage gives an image."""
        return self.result.predictions[image].classes[0]


def of_stages(stages: Sequence[Judged]) -> Dict[str, Any]:
    """The fields of a Report that follow from what the stages answered; the first one is the reference."""
    if not stages:
        return {}
    groups = _flips(stages)
    return {
        "stages": [_score(stage, stages[0]) for stage in stages],
        "same_top1": [[_same(one, other) for other in stages] for one in stages],
        "flip_count": len({image for image, _, _ in groups}),
        "flips": _answers(stages, groups),
        "classes": _classes(stages[-1]),
    }


def speed(batch: int, images_per_second: float, times: np.ndarray) -> Speed:
    """Of the latencies of a batch, in ms."""
    percentiles = np.percentile(times, np.arange(101)).tolist()
    return Speed(batch, images_per_second, float(np.mean(times)), percentiles)


def _common(one: Judged, other: Judged) -> List[str]:
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
        difference=stage.difference,
    )


Group = Tuple[str, int, int]  # image, the reference's class, another class


def _flips(stages: Sequence[Judged]) -> Dict[Group, List[int]]:
    """The stages that gave each flipped image the same class, by their places among `stages`."""
    found: Dict[Group, List[int]] = {}
    for place, stage in enumerate(stages):
        for image in _common(stages[0], stage):
            if stage.top1(image) != stages[0].top1(image):
                found.setdefault((image, stages[0].top1(image), stage.top1(image)), []).append(place)
    return found


def _answers(stages: Sequence[Judged], groups: Dict[Group, List[int]]) -> List[Flip]:
    """As many flips as a page shows; those that cost accuracy first, then in the order of the images."""
    if not groups:
        return []
    truth = {image: prediction.label for image, prediction in stages[0].result.predictions.items()}
    shown = sorted(groups.items(), key=lambda item: item[0][1] != truth[item[0][0]])[:SHOWN_FLIPS]
    outputs = [_outputs(stage) for stage in stages]
    flips = []
    for (image, expected, found), places in shown:
        flips.append(
            Flip(
                image=image,
                label=truth[image],
                stages=places,
                expected=Answer(expected, _probability(outputs[0][image], expected)),
                found=Answer(found, _probability(outputs[places[0]][image], found)),
            )
        )
    return flips


def _outputs(stage: Judged) -> Dict[str, str]:
    """The output file of every image, the first one listed, which is the one that was scored."""
    paths = [path for summary in stage.summaries for path in list_outputs(summary)]
    named = [(OUTPUT_NAME.fullmatch(os.path.basename(path)), path) for path in paths]
    return {match[1]: path for match, path in reversed(named) if match}


def _probability(path: str, number: int) -> float:
    return float(softmax(read_output(path))[number])


def _classes(stage: Judged) -> Classes:
    """Worst first; of equal shares the class with more images, which says more."""
    pairs = Counter((prediction.label, prediction.classes[0]) for prediction in stage.result.predictions.values())
    images = Counter(prediction.label for prediction in stage.result.predictions.values())
    scores = [ClassScore(label, count, pairs[label, label]) for label, count in images.items()]
    wrong = [score for score in scores if score.right < score.images]
    worst = sorted(wrong, key=lambda score: (score.right / score.images, -score.images, score.label))
    confused = sorted(
        (Confusion(label, found, count, images[label]) for (label, found), count in pairs.items() if label != found),
        key=lambda pair: (-pair.count, -pair.count / pair.images, pair.label, pair.found),
    )
    return Classes(
        of=stage.title,
        count=len(images),
        fewest=min(images.values()),
        most=max(images.values()),
        worst=worst[:SHOWN_CLASSES],
        confused=confused[:SHOWN_CLASSES],
    )
