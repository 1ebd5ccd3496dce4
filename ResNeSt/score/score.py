"""Scores a client's outputs: joins them to the labels by file name, never by position, and counts top-k.

Of equal logits the lower class index ranks higher. An image counts once or is named as a problem: what is missing,
damaged or listed twice never shrinks or shifts the data set silently.
"""

from __future__ import annotations

import dataclasses
import functools
import numbers
import os
import signal
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import NamedTuple

from tqdm import tqdm

from ResNeSt.common.ais_bench_names import stem
from ResNeSt.common.cores import cores
from ResNeSt.common.errors import ArgumentError, PipelineError
from ResNeSt.common.files import PathLike
from ResNeSt.common.progress import hidden
from ResNeSt.labels.carried import read_truth
from ResNeSt.labels.class_names import ClassList, ClassName, classes_in, names_of
from ResNeSt.labels.file import keys_of, read_labels
from ResNeSt.score.accuracy_log import is_accuracy_log, read_answers
from ResNeSt.score.outputs import (
    OUTPUT_NAME,
    OutputError,
    bin_dtype,
    find_outputs,
    is_summary,
    list_outputs,
    model_info_of,
    read_output,
)
from ResNeSt.score.per_class import pairs_of
from ResNeSt.score.predictions import Predicted, classes_told, reader_of
from ResNeSt.score.ranking import are_probabilities, greatest_softmax, top_k_predictions

# What can be wrong with the results of a data set, in words for a report.
KINDS = {
    "missing": "labelled images without a result",
    "extra": "results without a label",
    "duplicate": "further results of an image, of which the first listed counts",
    "unreadable": "results that cannot be read",
    "wrong-size": "results with another number of values than most",
    "not-finite": "results with NaN or infinity in them",
}

Problems = dict[str, list[str]]
TOP = 5  # classes that are ranked of a result, unless more are asked for
TOP_K = (1, 5)  # the accuracies that are told, unless others are asked for

# Below this many files a process costs more time to start than it saves.
_FILES_PER_PROCESS = 2000


@dataclasses.dataclass(frozen=True)
class Score:
    """Images scored, and those right within the first k classes, by k; scores of shards add up.

    `right` has 1, 5 and whatever else was asked for.
    """

    right: Mapping[int, int] = dataclasses.field(default_factory=dict)
    total: int = 0

    def __add__(self, other: Score) -> Score:
        ranks = sorted({*self.right, *other.right})
        return Score(
            {rank: self.right.get(rank, 0) + other.right.get(rank, 0) for rank in ranks}, self.total + other.total
        )

    @property
    def top1(self) -> int:
        """Images right at first guess."""
        return self.right.get(1, 0)

    @property
    def top5(self) -> int:
        """Images right within five."""
        return self.right.get(5, 0)

    @property
    def top1_acc(self) -> float:
        """Top-1 accuracy as a fraction; NaN where nothing was scored."""
        return self.accuracy(1)

    @property
    def top5_acc(self) -> float:
        """Top-5 accuracy as a fraction; NaN where nothing was scored."""
        return self.accuracy(5)

    def accuracy(self, k: int) -> float:
        """Top-k accuracy as a fraction, of a k in `right`; NaN where nothing was scored."""
        return self.right[k] / self.total if self.total else float("nan")


class Prediction(NamedTuple):
    """The label of an image and the classes predicted for it, best first: five, or as many as were asked for.

    `confidence` is the probability of the first (softmax), where the outputs are known.
    """

    label: int
    classes: tuple[int, ...]
    confidence: float | None = None


@dataclasses.dataclass(frozen=True)
class Result:
    """The score of a data set, and what it stands on.

    `score.total` counts the labelled results that could be read, `labelled` the images in the label file, `classes` the
    values of one output. `predictions` are by image name; `problems` holds a line for each, under every one of KINDS.
    `ranks` is how many classes of an image were asked for, or fewer where fewer are known, as of an accuracy log; for
    a greater k top-k is not known. `probabilities` is whether the outputs were taken for that, not for logits. `info`
    is what the model's file says of itself, where it is still there. `remarks` is what a user must know of labels that
    are class folders.
    """

    score: Score
    labelled: int
    classes: int
    predictions: dict[str, Prediction]
    problems: Problems
    ranks: int = TOP
    probabilities: bool = False
    info: Mapping[str, str] = dataclasses.field(default_factory=dict)
    remarks: Sequence[str] = ()

    @property
    def pairs(self) -> Counter[tuple[int, int]]:
        """Images by their label and the class that was predicted for them (ResNeSt.score.per_class)."""
        return pairs_of(self.predictions.values())

    @property
    def class_names(self) -> list[ClassName]:
        """Of all classes, where the model's file or their number tells them; raises PipelineError where it cannot."""
        return names_of(self.info if self.info.get("classes") == str(self.classes) else {}, self.classes)


def depth(top_k: Iterable[int]) -> int:
    """How many classes of an image have to be ranked for these top-k; raises ArgumentError for one that cannot be."""
    asked = list(top_k)
    if not asked or not all(isinstance(k, numbers.Integral) and not isinstance(k, bool) and k > 0 for k in asked):
        raise ArgumentError(f"top-k of {asked}, expected whole numbers above 0, such as 1, 5")
    return max(TOP, *asked)


def count(predictions: Iterable[Prediction], top_k: Iterable[int] = TOP_K) -> Score:
    """The score of predictions that are `depth` classes long, or have all classes."""
    ranks = Counter(
        classes.index(label) + 1 if label in classes else 0 for label, classes, _ in predictions
    )  # 0 where the label is not among them
    right = {k: sum(ranks[rank] for rank in ranks if 0 < rank <= k) for k in sorted({*TOP_K, *top_k})}
    return Score(right, sum(ranks.values()))


def score_summary(summary: PathLike, labels: PathLike) -> Result:
    """Scores what one summary JSON lists; see score_summaries."""
    return score_summaries([summary], labels)


def score_summaries(
    summaries: Sequence[PathLike],
    labels: PathLike,
    workers: int | None = None,
    classes: int | None = None,
    probabilities: bool = False,
    top_k: Sequence[int] = TOP_K,
) -> Result:
    """Scores the output files that the summary JSONs of one or several devices list, together, against a label file.

    In place of a summary a folder of outputs is scored, or a list of their paths (ResNeSt.score.outputs.find_outputs).
    Or one log of MLPerf's accuracy mode (ResNeSt.score.accuracy_log), whose sample n is line n of the label file, or
    one file of predictions (ResNeSt.score.predictions), whose images are joined by their names.
    In place of a label file a folder with a folder per class is taken, where the model's classes or the folders' names
    tell which is which. Uses up to `workers` processes [one per core]. `classes` are the model's [what it says itself,
    else as many as most results have values]. `probabilities` is whether the outputs are known to be that, of a network
    that ends in Softmax or Sigmoid; else they are taken for it where all sum to 1. `top_k` are the accuracies that are
    wanted.
    Raises PipelineError where a summary or the label file is damaged, where no result can be scored at all or most hold
    several rows, or where a label is no class of the model.
    """
    if not summaries:
        raise ArgumentError("no summary given; name at least one")
    depth(top_k)
    for path in summaries:
        score_alone = _score_predicted if reader_of(path) else _score_log if is_accuracy_log(path) else None
        if score_alone and len(summaries) > 1:
            raise ArgumentError(f"{path}: holds predicted classes, not outputs; score it by itself")
        if score_alone:
            return score_alone(path, labels, classes, top_k)
    written = [path for path in summaries if is_summary(path)]
    truth, notes = read_truth(labels, _classes_of(written) if os.path.isdir(labels) else None)
    problems: Problems = {kind: [] for kind in KINDS}
    listed = [file for summary in written for file in list_outputs(summary)]
    found = [file for path in summaries if path not in written for file in find_outputs(path)]
    names = {file: name for file in listed if (name := _name_by_client(file))}
    results = _join(listed + found, {**names, **_names_of(found, truth)}, truth, problems)
    listed += found
    if not results:
        raise PipelineError(
            f"{labels}: none of the {len(listed)} results belongs to a labelled image; the first result is "
            f"{listed[0]}, the first labelled image {next(iter(truth))}"
        )
    info = _info_of(written)
    known = classes or (int(info["classes"]) if info else None)
    dtype = bin_dtype(list(results.values()), [known] if known else (), max(truth.values()) + 1)
    outputs = _read_all(results, problems, dtype, depth(top_k), workers)
    size = _number_of_classes(outputs, known)
    _check_size(next(iter(results.values())), size, known, classes)
    check_labels(truth, size, labels)
    # All of them: logits of one image may sum to 1, too.
    as_they_are = probabilities or all(output.summed for output in outputs.values())
    predictions = _predictions(outputs, size, truth, problems, as_they_are)
    score = count(predictions.values(), top_k)
    return Result(score, len(truth), size, predictions, problems, depth(top_k), as_they_are, info, notes)


def _info_of(summaries: Iterable[PathLike]) -> dict[str, str]:
    """What the model of the first summary that tells it says of itself."""
    return next(filter(None, map(model_info_of, summaries)), {})


def _classes_of(summaries: Iterable[PathLike]) -> ClassList | None:
    info = _info_of(summaries)
    return classes_in(info, "the model") if info else None


def _score_log(log: PathLike, labels: PathLike, classes: int | None, top_k: Sequence[int]) -> Result:
    truth = read_labels(labels)
    problems: Problems = {kind: [] for kind in KINDS}
    answers = read_answers(log, problems)
    names = list(truth)
    problems["extra"] += [f"{log}: sample {number}" for number in answers if number >= len(names)]
    predictions = {
        names[number]: Prediction(truth[names[number]], (answers[number],))
        for number in sorted(answers)
        if number < len(names)
    }
    problems["missing"] += [name for name in names if name not in predictions]
    if not predictions:
        reason = next(iter(problems["unreadable"] + problems["extra"]))
        raise PipelineError(f"{log}: no answer in it can be scored; {reason}")
    known = _classes_of_answers(log, max(answers.values()), truth, classes)
    check_labels(truth, known, labels)
    return Result(count(predictions.values(), top_k), len(truth), known, predictions, problems, ranks=1)


def _score_predicted(path: PathLike, labels: PathLike, classes: int | None, top_k: Sequence[int]) -> Result:
    wanted = depth(top_k)
    of_model = classes_told(path)
    truth, notes = read_truth(labels, of_model)
    problems: Problems = {kind: [] for kind in KINDS}
    read = reader_of(path)
    by_image: dict[str, Predicted] = {}
    for each in read(path) if read else []:
        if by_image.setdefault(each.image, each) is not each:
            problems["duplicate"].append(f"{path}: {each.image}")
    images = list(by_image)
    keys = _keys_of_predicted(images, truth)
    predictions: dict[str, Prediction] = {}
    for key, each in zip(keys, by_image.values()):
        if key not in truth:
            problems["extra"].append(f"{path}: {each.image}")
        elif each.problem:
            problems[each.problem].append(each.reason)
        else:
            predictions[key] = Prediction(truth[key], each.classes[:wanted], each.confidence)
    problems["missing"] += sorted(truth.keys() - set(keys))
    if not predictions:
        reason = next(iter(problems["unreadable"] + problems["extra"] + problems["missing"]))
        raise PipelineError(f"{path}: none of its {len(images)} images can be scored by {labels}; {reason}")
    told = [prediction.classes for prediction in predictions.values()]
    classes = classes or (len(of_model.names) if of_model else None)
    known = _classes_of_answers(path, max(map(max, told)), truth, classes)
    check_labels(truth, known, labels)
    ranks = min(map(len, told))
    score = count(predictions.values(), top_k)
    ranks = wanted if ranks >= min(known, wanted) else ranks
    info = of_model.info if of_model else {}
    return Result(score, len(truth), known, predictions, problems, ranks, info=info, remarks=notes)


def _classes_of_answers(path: PathLike, last: int, truth: Mapping[str, int], classes: int | None) -> int:
    """`classes` where they are given, else as few as answers up to class `last` and the labels allow.

    Raises PipelineError for an answer that is none of those that are given.
    """
    if classes is not None and last >= classes:
        raise PipelineError(
            f"{path}: an answer is class {last}, the model has {classes} classes, so 0 to {classes - 1}; the file is "
            "of another model, or say how many classes its model has (--classes)"
        )
    return classes or 1 + max(last, *truth.values())


def _keys_of_predicted(images: Sequence[str], truth: Mapping[str, int]) -> list[str]:
    """`keys_of` images whose folder is not told: evaluate writes paths within it, predict those that it was given.

    It is the folder by which most of them have a label, of those that all of them lie in.
    """
    folders = [""]
    if len(set(map(os.path.isabs, images))) == 1:
        folders = [os.path.commonpath([os.path.dirname(image) for image in images])]
        while above := os.path.dirname(folders[-1]):
            if above == folders[-1]:
                break
            folders.append(above)
        folders += [""] * bool(folders[-1])
    return max(
        (keys_of(images, folder, truth) for folder in folders), key=lambda keys: sum(key in truth for key in keys)
    )


def _name_by_client(path: str) -> str | None:
    """The image of an output that ais_bench has named, or a program like it."""
    match = OUTPUT_NAME.fullmatch(os.path.basename(path))
    return match[1] if match else None


def _names_of(paths: Sequence[str], truth: Collection[str]) -> dict[str, str]:
    """The image of each output of a folder or a list: as ais_bench names it, or called as the image itself.

    Names do not tell which (`a_1.npy` may be of `a` or of `a_1`); the way counts by which more are labelled images.
    """
    by_client = {path: name for path in paths if (name := _name_by_client(path))}
    by_image = {path: stem(path) for path in paths}
    labelled = [sum(name in truth for name in names.values()) for names in (by_client, by_image)]
    return by_client if labelled[0] >= labelled[1] else by_image


def _join(listed: Iterable[str], names: Mapping[str, str], truth: dict[str, int], problems: Problems) -> dict[str, str]:
    """The output file of every labelled image that has one; `names` are the images of those that tell it."""
    results: dict[str, str] = {}
    for path in listed:
        name = names.get(path)
        if name is None:
            problems["unreadable"].append(f"{path}: the name is not <image>_<output number>.bin, .npy, .npz or .txt")
        elif name not in truth:
            problems["extra"].append(path)
        elif name in results:
            problems["duplicate"].append(f"{path}: the first is {results[name]}")
        else:
            results[name] = path
    problems["missing"] += [image for image in truth if image not in results]
    return results


class _Output(NamedTuple):
    """`softmax` and `value` are of the first class; `summed` is whether the values themselves may be probabilities."""

    path: str
    size: int
    classes: tuple[int, ...]
    softmax: float
    value: float
    summed: bool


class _Problem(NamedTuple):
    kind: str
    reason: str


def _read_all(
    results: dict[str, str], problems: Problems, dtype: str, top: int, workers: int | None
) -> dict[str, _Output]:
    outputs: dict[str, _Output] = {}
    predicted = _predict_all(list(results.values()), dtype, top, workers)
    outcomes = tqdm(predicted, "score", len(results), unit="result", disable=hidden())
    for outcome, image in zip(outcomes, results):
        if isinstance(outcome, _Problem):
            problems[outcome.kind].append(outcome.reason)
        else:
            outputs[image] = outcome
    if not outputs:
        reason = (problems["unreadable"] + problems["not-finite"])[0]
        raise PipelineError(f"none of the {len(results)} results can be scored; {reason}")
    return outputs


def _predict_all(paths: list[str], dtype: str, top: int, workers: int | None) -> Iterator[_Output | _Problem]:
    predict = functools.partial(_predict, dtype=dtype, top=top)
    processes = min(workers or cores(), len(paths) // _FILES_PER_PROCESS)
    if processes < 2:
        yield from map(predict, paths)
        return
    # Spawned, since a fork of a process with the threads of torch or OpenVINO may hang. Interrupts are the parent's.
    pool = ProcessPoolExecutor(processes, get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_IGN))
    try:
        with pool:
            yield from pool.map(predict, paths, chunksize=256)
    except BrokenProcessPool:
        raise PipelineError("a process that read results died, perhaps for want of memory; run again") from None


def _predict(path: str, dtype: str, top: int) -> _Output | _Problem:
    try:
        logits = read_output(path, dtype)
    except OutputError as error:
        return _Problem(error.kind, str(error))
    classes = tuple(top_k_predictions(logits[None], top)[0].tolist())
    value = float(logits[classes[0]])
    summed = 0 < value < 1.01 and are_probabilities(logits[None])  # the greatest alone tells it of nearly all logits
    return _Output(path, logits.size, classes, greatest_softmax(logits, value), value, summed)


def _check_size(first: str, size: int, known: int | None, classes: int | None) -> None:
    """Raises PipelineError unless results of `size` values are of the `known` model, of as many as `classes` says."""
    if known is None or size == known:
        return
    if size % known == 0:
        told = f"the model has {known} classes; a tensor file holds one image (resnest_preprocess.py makes such)"
        told += ", and a result one row"
    elif classes:
        told = f"not {classes}, as --classes says"
    else:
        told = f"the model has {known} classes; they are of another model, run this one again"
    raise PipelineError(f"{first}: most results have {size} values, {told}")


def _number_of_classes(outputs: dict[str, _Output], known: int | None) -> int:
    """The number of classes that is `known` where some output has as many values, else that of most."""
    sizes = Counter(output.size for output in outputs.values())
    return known if known is not None and known in sizes else sizes.most_common(1)[0][0]


def check_labels(truth: dict[str, int], classes: int, path: PathLike) -> None:
    """Raises PipelineError unless every label of the file at `path` is below `classes`."""
    image = max(truth, key=truth.__getitem__)
    if truth[image] >= classes:
        from_one = truth[image] == classes and min(truth.values()) > 0
        advice = "they seem to count from 1, so take 1 from each" if from_one else "take this model's labels"
        raise PipelineError(
            f"{path}: {image} has class {truth[image]}, the outputs have {classes} values, so classes 0 to "
            f"{classes - 1}; {advice}"
        )


def _predictions(
    outputs: dict[str, _Output], classes: int, truth: dict[str, int], problems: Problems, as_they_are: bool
) -> dict[str, Prediction]:
    predictions = {}
    for image, output in outputs.items():
        if output.size == classes:
            confidence = output.value if as_they_are else output.softmax
            predictions[image] = Prediction(truth[image], output.classes, confidence)
        else:
            problems["wrong-size"].append(f"{output.path}: {output.size} values, most have {classes}")
    return predictions
