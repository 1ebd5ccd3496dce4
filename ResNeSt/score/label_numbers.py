"""Whether labels count from the same class as the model, and whether it tells any apart, told from its answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

from ResNeSt.common.files import PathLike
from ResNeSt.labels.file import remark_on_numbers
from ResNeSt.score.score import Result

# Images that have to speak for another first class; fewer do so by chance.
FEWEST = 3
# Images of several classes whose first guess is one class by mistake; of fewer it may be by chance.
FEWEST_ALIKE = 10


def remarks(labels: PathLike, given: Collection[int], classes: int, differences: Mapping[int, int]) -> list[str]:
    """A line where the labels `given` in the file `labels` seem to count from another class than the model does.

    `differences` counts the images by the class predicted for them less the one of their label. A quarter of them has
    to be right with all labels one less, or one more, and twice as many as now.
    """
    total, right = sum(differences.values()), differences.get(0, 0)
    for step, possible, words in (
        (-1, min(given) > 0, "less {} would be right: they seem to count from 1, and classes count from 0"),
        (
            1,
            max(given) < classes - 1,
            "more {} would be right: the model seems to have one class before theirs",
        ),
    ):
        shifted = differences.get(step, 0)
        if possible and shifted >= max(FEWEST, 2 * right, total / 4):
            return [
                f"{labels}: {right} of {total} images are right at first guess; were every label one "
                + words.format(shifted)
            ]
    return [] if right >= FEWEST and right > differences.get(-1, 0) else remark_on_numbers(labels, given, classes)


def one_answer(pairs: Mapping[tuple[int, int], int]) -> list[str]:
    """A line where images of several classes all have the same first guess; `pairs` are by label and that guess."""
    labels, found = {label for label, _ in pairs}, {guess for _, guess in pairs}
    images = sum(pairs.values())
    if len(found) != 1 or len(labels) < 2 or images < FEWEST_ALIKE:
        return []
    return [
        f"the first guess is class {found.pop()} for each of the {images} images, which are of {len(labels)} classes "
        "(of equal values the lowest class counts); check the model, and that its images are prepared as it wants them"
    ]


def remarks_on(result: Result, labels: PathLike) -> list[str]:
    """The same of scored results, after what their own `remarks` say."""
    pairs = [(prediction.label, prediction.classes[0]) for prediction in result.predictions.values()]
    given = [label for label, _ in pairs]
    differences = Counter(first - label for label, first in pairs)
    numbers = remarks(labels, given, result.classes, differences) if given else []
    return [*result.remarks, *numbers, *one_answer(result.pairs)]
