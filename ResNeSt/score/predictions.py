"""Files of predicted classes: `evaluate --predictions`, `predict --format json` and `predict --format csv`.

Told apart by their content: lines of JSON of which the first is what the run was of, a list of objects, a CSV with a
head.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from typing import Any, Callable, NamedTuple

from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import PathLike, open_plain, read_json
from ResNeSt.labels.class_names import ClassList, classes_in

UNFINISHED = ".unfinished"
CSV_HEAD = ["image", "rank", "class", "probability", "synset", "name"]


class Predicted(NamedTuple):
    """The classes predicted for an image, best first, and how probable the first is, or which problem it has and why.

    `problem` is one of ResNeSt.score.score's KINDS.
    """

    image: str
    classes: tuple[int, ...]
    confidence: float | None = None
    problem: str = ""
    reason: str = ""


def reader_of(path: PathLike) -> Callable[[PathLike], list[Predicted]] | None:
    """What reads a file, which raises PipelineError where it is damaged; None for one that holds no predictions.

    Raises PipelineError for what a run that was stopped has left.
    """
    if not os.path.isfile(path):
        return None
    with open_plain(path) as file:
        first = file.readline().decode("utf-8-sig", "replace").strip()
    if first == ",".join(CSV_HEAD):
        return _read_csv
    if os.path.splitext(path)[1].lower() == ".csv":
        raise PipelineError(
            f"{path}: begins {first[:80]!a}, expected {','.join(CSV_HEAD)}, as `predict --format csv` writes it; an "
            "office program may have saved it in another form"
        )
    if first.startswith("["):
        entries = read_json(path)
        return _read_list if entries and all(isinstance(each, dict) and "image" in each for each in entries) else None
    try:
        head = json.loads(first)
    except (ValueError, RecursionError):
        return None
    if not isinstance(head, dict) or not {"model", "images", "pictures"} <= head.keys():
        return None
    if os.fspath(path).endswith(UNFINISHED):
        raise PipelineError(f"{path}: is of a run that was stopped; repeat it, and it goes on where it stopped")
    return _read_lines


def classes_told(path: PathLike) -> ClassList | None:
    """The classes of the model that a file of predictions is of, where it tells them, as evaluate's does.

    Raises PipelineError where it tells something else.
    """
    with open_plain(path) as file:
        first = file.readline()
    try:
        head = json.loads(first)
    except (ValueError, RecursionError):
        return None
    return classes_in(head, f"the model of {path}") if isinstance(head, dict) and "classes" in head else None


def _read_lines(path: PathLike) -> list[Predicted]:
    with open_plain(path) as file:
        head, *lines = file.read().split(b"\n")
    predicted = list(_parsed(path, enumerate(lines[:-1], start=2), lambda line: _of_line(json.loads(line))))
    if lines[-1:] != [b""] or len(predicted) != json.loads(head)["images"]:
        raise PipelineError(f"{path}: holds {len(predicted)} of {json.loads(head)['images']} images; copy it again")
    return predicted


def _of_line(record: Any) -> Predicted:
    problem = {"": "", "not-finite": "not-finite"}.get(record["problem"], "unreadable")
    return Predicted(str(record["image"]), _classes(record["classes"], problem), None, problem, str(record["reason"]))


def _read_list(path: PathLike) -> list[Predicted]:
    return list(_parsed(path, enumerate(read_json(path), start=1), _of_answer))


def _of_answer(record: Any) -> Predicted:
    if "error" in record:
        return Predicted(str(record["image"]), (), None, "unreadable", str(record["error"]))
    guesses = record["predictions"]
    classes = _classes([guess["class"] for guess in guesses])
    return Predicted(str(record["image"]), classes, float(guesses[0]["probability"]))


def _read_csv(path: PathLike) -> list[Predicted]:
    """Rows of an image follow each other, by their rank from 1."""
    with open(path, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        rows = [row for row in csv.reader(file) if row][1:]
    images: list[list[list[str]]] = []
    for row in rows:
        if len(row) > 1 and row[1] != "1" and images and images[-1][-1][0] == row[0]:
            images[-1].append(row)
        else:
            images.append([row])
    predicted = list(_parsed(path, enumerate(images, start=1), _of_rows))
    if not predicted or len({len(each.classes) for each in predicted}) > 1:
        raise PipelineError(
            f"{path}: not whole, it holds {len(predicted)} images"
            + (f", {predicted[-1].image} with {len(predicted[-1].classes)} classes" if predicted else "")
            + "; make the file again with predict"
        )
    return predicted


def _of_rows(rows: Any) -> Predicted:
    if [row[1] for row in rows] != [str(rank) for rank in range(1, len(rows) + 1)] or {len(row) for row in rows} != {6}:
        raise ValueError(f"{','.join(rows[0])[:60]!r} begins ranks that are not 1, 2, ...")
    return Predicted(rows[0][0], _classes([int(row[2]) for row in rows]), float(rows[0][3]))


def _parsed(
    path: PathLike, entries: Iterator[tuple[int, Any]], parse: Callable[[Any], Predicted]
) -> Iterator[Predicted]:
    for number, entry in entries:
        try:
            yield parse(entry)
        except (KeyError, IndexError, TypeError, ValueError, RecursionError) as error:
            raise PipelineError(
                f"{path}: entry {number} is no prediction ({str(error)[:120]}); make the file again with evaluate or "
                "predict"
            ) from None


def _classes(given: Any, problem: str = "") -> tuple[int, ...]:
    if not isinstance(given, list) or not all(type(label) is int and 0 <= label < 10**9 for label in given):
        raise ValueError(f"classes {str(given)[:60]}")
    if bool(given) == bool(problem) or len(set(given)) < len(given):
        raise ValueError(f"classes {given[:6]} of an image {'with' if problem else 'without'} a problem")
    return tuple(given)
