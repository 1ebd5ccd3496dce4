"""Which classes a model takes for which: the confusion matrix and the figures of each class, as files.

Both count the images that have a label and an answer, by the class predicted first.
"""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import PathLike, whole, write_json
from ResNeSt.labels.class_names import ClassName

MATRIX_CLASSES, TABLE_CLASSES = 5_000, 1_000_000  # more fill memory and disk
HEAD = ("class", "name", "support", "predicted", "correct", "accuracy", "precision", "recall", "f1")

Pairs = Mapping[tuple[int, int], int]  # images by their label and the class predicted for them


class ClassFigures(NamedTuple):
    """Of the class `number`: images that have its label, that it is predicted for, and that have both."""

    number: int
    name: str
    support: int
    predicted: int
    correct: int

    @property
    def accuracy(self) -> float | None:
        """The share of its images that are right, which is its recall; None without an image."""
        return _share(self.correct, self.support)

    @property
    def precision(self) -> float | None:
        """The share that is right of those it is predicted for; None where it never is."""
        return _share(self.correct, self.predicted)

    @property
    def recall(self) -> float | None:
        """The same as `accuracy`."""
        return self.accuracy

    @property
    def f1(self) -> float | None:
        """The harmonic mean of precision and recall, by counts; None where it has no image and is never predicted."""
        return _share(2 * self.correct, self.support + self.predicted)


def _share(part: int, of: int) -> float | None:
    return part / of if of else None


def pairs_of(predictions: Iterable[tuple[int, Sequence[int], Any]]) -> Counter[tuple[int, int]]:
    """Of images with a label and the classes predicted for them, best first (ResNeSt.score.score.Prediction)."""
    return Counter((label, classes[0]) for label, classes, _ in predictions)


def class_figures(pairs: Pairs, names: Sequence[ClassName]) -> list[ClassFigures]:
    """Those of every class of a model, in the order of their numbers; `names` has as many."""
    support, predicted = Counter[int](), Counter[int]()
    for (label, found), images in pairs.items():
        support[label] += images
        predicted[found] += images
    return [
        ClassFigures(
            number, name.name or name.synset, support[number], predicted[number], pairs.get((number, number), 0)
        )
        for number, name in enumerate(names)
    ]


def write_per_class(path: PathLike, pairs: Pairs, names: Sequence[ClassName]) -> None:
    """Writes `class_figures`, whole or not at all: CSV with HEAD, or JSON where the name ends in `.json`.

    What is not defined is empty (null), not 0. Raises PipelineError for more than TABLE_CLASSES, and for
    an answer that is none of them.
    """
    _check(path, pairs, names, TABLE_CLASSES)
    rows = [[*each, each.accuracy, each.precision, each.recall, each.f1] for each in class_figures(pairs, names)]
    if _is_json(path):
        write_json(path, [dict(zip(HEAD, row)) for row in rows])
    else:
        _write_csv(path, [HEAD, *rows])


def write_confusion(path: PathLike, pairs: Pairs, names: Sequence[ClassName]) -> None:
    """Writes the confusion matrix, whole or not at all: a row for each label, a column for each class predicted.

    CSV, whose first row and column say the classes, by name or, without one or with one of several classes, by number;
    or JSON where the name ends in `.json`. Raises PipelineError for more than MATRIX_CLASSES, and for an
    answer that is none of them.
    """
    _check(path, pairs, names, MATRIX_CLASSES)
    titles, rows = _titles(names), np.zeros((len(names), len(names)), np.int64)
    for pair, images in pairs.items():
        rows[pair] = images
    if _is_json(path):
        write_json(path, {"classes": titles, "rows": "labels", "columns": "predicted", "matrix": rows.tolist()})
    else:
        _write_csv(
            path, [["label \\ predicted", *titles], *([title, *row] for title, row in zip(titles, rows.tolist()))]
        )


def _titles(names: Sequence[ClassName]) -> list[str]:
    """What heads each class: ImageNet has two called crane, `134 crane` and `517 crane`."""
    told = [name.name or name.synset for name in names]
    counts = Counter(told)
    return [
        str(number) if not title else title if counts[title] == 1 else f"{number} {title}"
        for number, title in enumerate(told)
    ]


def _check(path: PathLike, pairs: Pairs, names: Sequence[ClassName], most: int) -> None:
    if len(names) > most:
        raise PipelineError(
            f"{path}: not written, the answers are of {len(names):,} classes, expected {most:,} at most; where the "
            "model has fewer, say how many (--classes)"
        )
    if (last := max(map(max, pairs), default=0)) >= len(names):
        raise PipelineError(
            f"{path}: not written, an answer is class {last}, of {len(names)} classes, so classes 0 to "
            f"{len(names) - 1}; say how many the model has (--classes)"
        )


def _is_json(path: PathLike) -> bool:
    return os.path.splitext(path)[1].lower() == ".json"


def _write_csv(path: PathLike, rows: Iterable[Sequence[Any]]) -> None:
    with (
        whole(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        csv.writer(file, lineterminator="\n").writerows(rows)
