"""Scores a client's outputs: joins them to the labels by file name, never by position, and counts top-1 and top-5.

Of equal logits the lower class index ranks higher. An image counts once or is named as a problem: what is missing,
damaged or listed twice never shrinks or shifts the data set silently.
"""

from __future__ import annotations

import dataclasses
import os
import re
import signal
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np
from tqdm import tqdm

from ResNeSt.errors import PipelineError
from ResNeSt.files import PathLike, read_json
from ResNeSt.labels import read_labels
from ResNeSt.parallel import cores

# What can be wrong with the results of a data set, in words for a report.
KINDS = {
    "missing": "labelled images without a result",
    "extra": "results without a label",
    "duplicate": "further results of an image, of which the first listed counts",
    "unreadable": "results that cannot be read",
    "wrong-size": "results with another number of values than most",
    "not-finite": "results with NaN or infinity in them",
}

Problems = Dict[str, List[str]]

# Below this many files a process costs more time to start than it saves.
_FILES_PER_PROCESS = 2000
OUTPUT_NAME = re.compile(r"(.+)_[0-9]+\.\w+")  # contract: ais_bench, output file
_OLD_SUMMARY = "sumary.json"  # until November 2022 it lay among the outputs, spelled like this


class OutputError(PipelineError):
    """An output file that cannot be read; `kind` is one of KINDS."""

    kind = "unreadable"


class NotFiniteError(OutputError):
    """Logits with NaN or infinity in them, which no ranking can be made of."""

    kind = "not-finite"


@dataclasses.dataclass(frozen=True)
class Score:
    """Images right at first guess, right within five, and scored at all; scores of shards add up."""

    top1: int = 0
    top5: int = 0
    total: int = 0

    def __add__(self, other: Score) -> Score:
        return Score(self.top1 + other.top1, self.top5 + other.top5, self.total + other.total)

    @property
    def top1_acc(self) -> float:
        """Top-1 accuracy as a fraction; NaN where nothing was scored."""
        return self.top1 / self.total if self.total else float("nan")

    @property
    def top5_acc(self) -> float:
        """Top-5 accuracy as a fraction; NaN where nothing was scored."""
        return self.top5 / self.total if self.total else float("nan")


class Prediction(NamedTuple):
    """The label of an image and the (up to) five classes predicted for it, best first."""

    label: int
    classes: Tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Result:
    """The score of a data set, and what it stands on.

    `score.total` counts the labelled results that could be read, `labelled` the images in the label file, `classes` the
    values of one output. `predictions` are by image name; `problems` holds a line for each, under every one of KINDS.
    """

    score: Score
    labelled: int
    classes: int
    predictions: Dict[str, Prediction]
    problems: Problems


def top_k_predictions(logits: np.ndarray, k: int = 5) -> np.ndarray:
    """int64 [N, min(k, C)]: the classes of the greatest of float logits [N, C], best first.

    Raises NotFiniteError where a logit is NaN or infinite.
    """
    if not np.isfinite(logits).all():
        raise NotFiniteError(f"NaN or infinity in logits of shape {list(logits.shape)}; check the model")
    k = min(k, logits.shape[1])
    return np.array([_best(row, k) for row in logits], np.int64).reshape(len(logits), k)


def softmax(logits: np.ndarray) -> np.ndarray:
    """float64 (..., classes): probabilities of logits, along the last axis."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def _best(row: np.ndarray, k: int) -> np.ndarray:
    """Only what reaches the k-th greatest value is sorted, which takes a fifth of the time."""
    candidates = np.flatnonzero(row >= np.partition(row, -k)[-k])
    return candidates[np.argsort(-row[candidates], kind="stable")[:k]]


def count(predictions: Iterable[Prediction]) -> Score:
    """The score of predictions of up to five classes each."""
    top1 = top5 = total = 0
    for label, classes in predictions:
        top1 += classes[0] == label
        top5 += label in classes
        total += 1
    return Score(top1, top5, total)


def score_summary(summary: PathLike, labels: PathLike) -> Result:
    """Scores what one summary JSON lists; see score_summaries."""
    return score_summaries([summary], labels)


def score_summaries(summaries: Sequence[PathLike], labels: PathLike, workers: Optional[int] = None) -> Result:
    """Scores the output files that the summary JSONs of one or several devices list, together, against a label file.

    Uses up to `workers` processes [one per core]. Raises PipelineError where a summary or the label file is damaged,
    where no result can be scored at all, or where a label is no class of the model.
    """
    truth = read_labels(labels)
    problems: Problems = {kind: [] for kind in KINDS}
    listed = [path for summary in summaries for path in list_outputs(summary)]
    results = _join(listed, truth, problems)
    if not results:
        raise PipelineError(
            f"{labels}: none of the {len(listed)} results belongs to a labelled image; the first result is "
            f"{listed[0]}, the first labelled image {next(iter(truth))}"
        )
    outputs = _read_all(results, problems, workers)
    classes = _number_of_classes(outputs)
    check_labels(truth, classes, labels)
    predictions = _predictions(outputs, classes, truth, problems)
    return Result(count(predictions.values()), len(truth), classes, predictions, problems)


def list_outputs(path: PathLike) -> List[str]:
    """Paths of all output files that a summary JSON lists, in its order.

    The client writes paths as seen from the directory where it ran. The directory beside the summary goes first, so
    that a copied result is scored and not the one it was copied from; then the path as it stands.
    Raises PipelineError where the file is no summary or lists nothing.
    """
    recorded = [file for entry in _entries(path) for file in _outfiles(entry, path)]
    if not recorded:
        raise PipelineError(f"{path}: lists no output files; run the client without --pipeline, which leaves them out")
    folders = {folder: _find_folder(folder, Path(path)) for folder in set(map(os.path.dirname, recorded))}
    return [os.path.join(folders[os.path.dirname(file)], os.path.basename(file)) for file in recorded]


def _entries(path: PathLike) -> Iterable[Any]:
    summary = read_json(path)
    entries = summary.get("filesinfo") if isinstance(summary, dict) else None
    if not isinstance(entries, dict):
        raise PipelineError(f"{path}: not a summary of ais_bench: no object called filesinfo in it")
    return entries.values()


def _outfiles(entry: Any, path: PathLike) -> List[str]:
    files = entry.get("outfiles") if isinstance(entry, dict) else None
    # Unprintable characters: no path of the client's has them, and they would not survive a look-up or a report.
    if not isinstance(files, list) or not all(isinstance(file, str) and file.isprintable() for file in files):
        raise PipelineError(
            f"{path}: not a summary of ais_bench: an entry of filesinfo is {str(entry)[:80]!a}, expected an object "
            "whose outfiles are a list of paths"
        )
    return files


def _find_folder(recorded: str, summary: Path) -> str:
    beside = summary.parent if summary.name == _OLD_SUMMARY else summary.parent / os.path.basename(recorded)
    return os.fspath(beside) if os.path.isdir(beside) else recorded


def _join(listed: Iterable[str], truth: Dict[str, int], problems: Problems) -> Dict[str, str]:
    """The output file of every labelled image that has one."""
    results: Dict[str, str] = {}
    for path in listed:
        match = OUTPUT_NAME.fullmatch(os.path.basename(path))
        if match is None:
            problems["unreadable"].append(f"{path}: the name is not <image>_<output number>.bin, .npy or .txt")
        elif match[1] not in truth:
            problems["extra"].append(path)
        elif match[1] in results:
            problems["duplicate"].append(f"{path}: the first is {results[match[1]]}")
        else:
            results[match[1]] = path
    problems["missing"] += [image for image in truth if image not in results]
    return results


def read_output(path: PathLike) -> np.ndarray:
    """float32 [C]: the values of one output file: .bin (bare float32), .npy, or .txt (numbers apart by blanks).

    Raises OutputError that names the file where it cannot be read or is cut short, NotFiniteError (one, too) where it
    holds NaN or infinity.
    """
    read = _READERS.get(os.path.splitext(path)[1])
    if read is None:
        raise OutputError(f"{path}: expected a file that ends in .bin, .npy or .txt")
    try:
        values = read(path)
    except Exception as error:  # NumPy's readers raise nearly anything on damaged files
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
        raise OutputError(f"{path}: {reason}") from None
    if not values.size:
        raise OutputError(f"{path}: empty")
    if not np.isfinite(values).all():
        raise NotFiniteError(f"{path}: {np.sum(~np.isfinite(values))} of {values.size} values")
    return values


def _read_bin(path: PathLike) -> np.ndarray:
    content = Path(path).read_bytes()
    if len(content) % 4:
        raise ValueError(f"cut short, {len(content)} bytes are no whole number of float32 values")
    return np.frombuffer(content, dtype="<f4")


def _read_npy(path: PathLike) -> np.ndarray:
    with open(path, "rb") as file:
        values = np.lib.format.read_array(file, allow_pickle=False)
    if values.dtype.kind != "f":
        raise ValueError(f"holds {values.dtype}, expected floating-point numbers")
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, which is reported
        return values.astype(np.float32).ravel()


def _read_txt(path: PathLike) -> np.ndarray:
    with open(path, "rb") as file:
        text = file.read()
    if text and not text.endswith(b"\n"):
        raise ValueError("cut short, the last line does not end")
    # As fast as np.fromstring, which takes damaged text for numbers in NumPy 1.x.
    return np.array(text.split(), dtype=np.float32)


_READERS = {".bin": _read_bin, ".npy": _read_npy, ".txt": _read_txt}


class _Output(NamedTuple):
    path: str
    size: int
    classes: Tuple[int, ...]


class _Problem(NamedTuple):
    kind: str
    reason: str


def _read_all(results: Dict[str, str], problems: Problems, workers: Optional[int]) -> Dict[str, _Output]:
    outputs: Dict[str, _Output] = {}
    outcomes = tqdm(_predict_all(list(results.values()), workers), "score", len(results), unit="result", disable=None)
    for outcome, image in zip(outcomes, results):
        if isinstance(outcome, _Problem):
            problems[outcome.kind].append(outcome.reason)
        else:
            outputs[image] = outcome
    if not outputs:
        reason = (problems["unreadable"] + problems["not-finite"])[0]
        raise PipelineError(f"none of the {len(results)} results can be scored; {reason}")
    return outputs


def _predict_all(paths: List[str], workers: Optional[int]) -> Iterator[Union[_Output, _Problem]]:
    processes = min(workers or cores(), len(paths) // _FILES_PER_PROCESS)
    if processes < 2:
        yield from map(_predict, paths)
        return
    # Spawned, since a fork of a process with the threads of torch or OpenVINO may hang. Interrupts are the parent's.
    pool = ProcessPoolExecutor(processes, get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_IGN))
    try:
        with pool:
            yield from pool.map(_predict, paths, chunksize=256)
    except BrokenProcessPool:
        raise PipelineError("a process that read results died, perhaps for want of memory; run again") from None


def _predict(path: str) -> Union[_Output, _Problem]:
    try:
        logits = read_output(path)
    except OutputError as error:
        return _Problem(error.kind, str(error))
    return _Output(path, logits.size, tuple(top_k_predictions(logits[None])[0].tolist()))


def _number_of_classes(outputs: Dict[str, _Output]) -> int:
    """The size that most outputs have."""
    return Counter(output.size for output in outputs.values()).most_common(1)[0][0]


def check_labels(truth: Dict[str, int], classes: int, path: PathLike) -> None:
    """Raises PipelineError unless every label of the file at `path` is below `classes`."""
    image = max(truth, key=truth.__getitem__)
    if truth[image] >= classes:
        raise PipelineError(
            f"{path}: {image} has class {truth[image]}, the outputs have {classes} values, so classes 0 to "
            f"{classes - 1}; take the labels that belong to this model"
        )


def _predictions(
    outputs: Dict[str, _Output], classes: int, truth: Dict[str, int], problems: Problems
) -> Dict[str, Prediction]:
    predictions = {}
    for image, output in outputs.items():
        if output.size == classes:
            predictions[image] = Prediction(truth[image], output.classes)
        else:
            problems["wrong-size"].append(f"{output.path}: {output.size} values, most have {classes}")
    return predictions
