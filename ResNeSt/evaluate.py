"""A folder of images -> top-1 and top-5 in one go, with no files in between.

Threads decode, this thread runs the model, another ranks the logits; each takes from the one before it through a
bounded queue. The answers are those of the four stages, image by image, and memory does not grow with the folder.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import time
from typing import Any, ContextManager, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from tqdm import tqdm

from ResNeSt.cards import card
from ResNeSt.engines import NAMES, Engine, open_engine
from ResNeSt.errors import ArgumentError, PipelineError, run
from ResNeSt.files import sha256, stem, write_json
from ResNeSt.journal import Journal
from ResNeSt.labels import read_labels
from ResNeSt.metadata import describe, tensor_format
from ResNeSt.parallel import Stopwatch, cores, in_parallel
from ResNeSt.preprocess import BrokenImageError, find_images, tensor_maker
from ResNeSt.reports import add_allow_flags, figures, problem_lines, score_lines
from ResNeSt.scoring import Prediction, Problems, Score, check_labels, count, top_k_predictions
from ResNeSt.tensors import TensorFormat

# What can be wrong with an image, in words for a report; the first two are found before anything runs.
KINDS = {
    "missing": "labelled images without a file",
    "extra": "images without a label",
    "broken": "images that cannot be decoded",
    "not-finite": "images whose logits have NaN or infinity in them",
}
FREE_BATCH = 16


class Batch(NamedTuple):
    """Images, why they could not be decoded (None for those that could), and the tensor that holds them, row by row."""

    images: Sequence[str]
    reasons: Sequence[Optional[str]]
    tensor: np.ndarray


class Outcome(NamedTuple):
    """The five classes predicted for an image, best first, or which of KINDS went wrong and why."""

    image: str
    classes: Sequence[int]
    problem: str = ""
    reason: str = ""


class Watches(NamedTuple):
    """The time that each stage worked."""

    decoding: Stopwatch
    inference: Stopwatch
    ranking: Stopwatch


def main() -> int:
    """Runs the command line; 1 where an image has a problem that was not allowed."""
    options = _parser().parse_args()
    engine = open_engine(options.model, options.engine, options.batch or FREE_BATCH, options.arch, options.device)
    made = _tensor_format(engine, options)
    truth = read_labels(options.labels)
    images, problems = _join(find_images(options.images), truth, options)
    # The run of nothing is a warm-up, too.
    check_labels(truth, engine.run(np.zeros(engine.input.shape, engine.input.dtype)).shape[1], options.labels)
    print(f"{options.model}: {engine.title}, batch {engine.input.shape[0]}, {made}; {len(images)} images", flush=True)
    score = _run(engine, made, images, truth, problems, options)
    found = {kind: names for kind, names in problems.items() if names}
    print("\n".join(score_lines(score, len(truth)) + problem_lines(found, KINDS, options.allowed)))
    if options.json:
        sources = {"model": options.model, "images": options.images, "labels": options.labels, "tensors": str(made)}
        write_json(options.json, {**sources, **figures(score, len(truth), found, options.allowed)})
    return 1 if set(found) - set(options.allowed) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ResNeSt.evaluate", description=__doc__)
    parser.add_argument(
        "--model",
        required=True,
        metavar="FILE",
        help="a .om, .xml, .onnx, or a checkpoint (.pth, .safetensors, .ckpt, .pdparams)",
    )
    parser.add_argument("--images", required=True, metavar="DIR", help="flat, or with a sub-folder per class")
    parser.add_argument("--labels", required=True, metavar="FILE", help="a line 'NAME CLASS' for every image")
    parser.add_argument("--batch", type=int, metavar="N", help=f"of a model that leaves it free [{FREE_BATCH}]")
    parser.add_argument("--engine", choices=NAMES, help="[by the model's suffix]")
    parser.add_argument("--arch", metavar="NAME", help="the network, where the file does not tell it")
    parser.add_argument("--device", type=int, default=0, metavar="N", help="of an NPU [%(default)s]")
    parser.add_argument("--workers", type=int, metavar="N", help="threads that decode [one per core]")
    parser.add_argument("--predictions", metavar="FILE", help="write a line of JSON per image; such a run can go on")
    parser.add_argument("--json", metavar="FILE", help="write the figures and all problems here as well")
    add_allow_flags(parser, KINDS)
    return parser


def _tensor_format(engine: Engine, options: argparse.Namespace) -> TensorFormat:
    spec = engine.input
    if options.batch and spec.shape[0] != options.batch:
        raise ArgumentError(f"{options.model}: its batch size is {spec.shape[0]}; leave --batch {options.batch} out")
    named = card(options.arch) if options.arch else None
    info = describe(named, named.size, weights="") if named else engine.info
    return tensor_format(info, spec.shape, spec.dtype, options.model)


def _join(images: List[str], truth: Dict[str, int], options: argparse.Namespace) -> Tuple[List[str], Problems]:
    """The images that have a label, and what is missing or extra; raises PipelineError where that is not allowed."""
    problems: Problems = {kind: [] for kind in KINDS}
    labelled = [image for image in images if stem(image) in truth]
    problems["extra"] = [image for image in images if stem(image) not in truth]
    if len(labelled) < len(truth):
        problems["missing"] = sorted(truth.keys() - {stem(image) for image in labelled})
    for kind in ("missing", "extra"):
        if not labelled or (problems[kind] and kind not in options.allowed):
            raise PipelineError(
                f"{options.images}: {len(problems[kind])} {KINDS[kind]} (labels: {options.labels}), such as "
                f"{problems[kind][0]}; complete them, or leave these out with --allow-{kind}"
            )
    return labelled, problems


def _run(
    engine: Engine,
    made: TensorFormat,
    images: Sequence[str],
    truth: Dict[str, int],
    problems: Problems,
    options: argparse.Namespace,
) -> Score:
    """Evaluates what an earlier run has not; adds to `problems`, prints where the time went."""
    workers = options.workers or cores()
    watches = Watches(Stopwatch(), Stopwatch(), Stopwatch())
    score = Score()
    with _journal(options, made, images, engine.input.shape[0]) as journal:
        done = 0
        for record in journal or ():
            score += _tally([Outcome(**record)], truth, problems)
            done += 1
        started = time.perf_counter()
        bar = tqdm(total=len(images), initial=done, unit="img", desc="evaluate", disable=None)
        for outcomes in evaluate(engine, made, images[done:], workers, watches):
            score += _tally(outcomes, truth, problems)
            if journal:
                journal.write([outcome._asdict() for outcome in outcomes])
            bar.update(len(outcomes))
        bar.close()
        seconds = time.perf_counter() - started
        if journal:
            journal.finish()
    if done:
        print(f"{done} images were done by an earlier run")
    print(_speed_line(len(images) - done, seconds, watches, workers))
    return score


def evaluate(
    engine: Engine, made: TensorFormat, images: Sequence[str], workers: int, watches: Watches
) -> Iterator[List[Outcome]]:
    """Outcomes of `images`, in their order, a list per batch.

    `made` says what the images are turned into, `workers` how many threads decode.
    """
    batches = _decoded(images, engine, made, workers, watches.decoding)
    inferred = _inferred(engine, batches, watches.inference)
    # One batch may wait to be ranked while the next one runs.
    for _, outcomes in in_parallel(watches.ranking.timed(_rank), inferred, workers=1, ahead=1):
        yield outcomes


def _decoded(
    images: Sequence[str], engine: Engine, made: TensorFormat, workers: int, watch: Stopwatch
) -> Iterator[Batch]:
    size = engine.input.shape[0]
    make = tensor_maker(made)

    def rows() -> Iterator[Tuple[str, np.ndarray, int]]:
        for start in range(0, len(images), size):
            tensor = np.zeros(engine.input.shape, engine.input.dtype)
            for row, image in enumerate(images[start : start + size]):
                yield image, tensor, row

    def work(item: Tuple[str, np.ndarray, int]) -> Optional[str]:
        image, tensor, row = item
        try:
            make(image, tensor[row])
        except BrokenImageError as error:
            return str(error)
        return None

    group: List[str] = []
    reasons: List[Optional[str]] = []
    # Two batches ahead: one is being decoded while the model runs, and the next one is ready when it ends.
    for (image, tensor, row), reason in in_parallel(watch.timed(work), rows(), workers, ahead=2 * size):
        group.append(image)
        reasons.append(reason)
        if row == size - 1 or image is images[-1]:
            yield Batch(group, reasons, tensor)
            group, reasons = [], []


def _inferred(engine: Engine, batches: Iterable[Batch], watch: Stopwatch) -> Iterator[Tuple[Batch, np.ndarray]]:
    infer = watch.timed(engine.run)
    for batch in batches:
        yield batch, infer(batch.tensor)


def _rank(inferred: Tuple[Batch, np.ndarray]) -> List[Outcome]:
    batch, logits = inferred
    outcomes = []
    for image, reason, row in zip(batch.images, batch.reasons, logits):
        name = os.path.basename(image)
        if reason is not None:
            outcomes.append(Outcome(name, (), "broken", reason))
        elif not np.isfinite(row).all():
            outcomes.append(Outcome(name, (), "not-finite", f"{image}: {np.sum(~np.isfinite(row))} values"))
        else:
            outcomes.append(Outcome(name, top_k_predictions(row[None])[0].tolist()))
    return outcomes


def _tally(outcomes: Sequence[Outcome], truth: Dict[str, int], problems: Problems) -> Score:
    """The score of those that have one; the others go to `problems`."""
    for outcome in outcomes:
        if outcome.problem:
            problems[outcome.problem].append(outcome.reason)
    ranked = [outcome for outcome in outcomes if not outcome.problem]
    return count(Prediction(truth[stem(outcome.image)], tuple(outcome.classes)) for outcome in ranked)


def _journal(
    options: argparse.Namespace, made: TensorFormat, images: Sequence[str], batch: int
) -> ContextManager[Optional[Journal]]:
    if not options.predictions:
        return contextlib.nullcontext()
    return Journal(options.predictions, _head(options, made, images, batch), batch)


def _head(options: argparse.Namespace, made: TensorFormat, images: Sequence[str], batch: int) -> Dict[str, Any]:
    """All that the predictions depend on."""
    names = hashlib.sha256()
    for image in images:
        names.update(os.fsencode(os.path.basename(image)) + b"\0")
    files = [options.model, *([options.model[:-4] + ".bin"] if options.model.endswith(".xml") else [])]
    return {
        "model": {os.path.basename(file): sha256(file) for file in files},
        "engine": options.engine,
        "batch": batch,
        "tensors": str(made),
        "images": len(images),
        "names": names.hexdigest(),
    }


def _speed_line(images: int, seconds: float, watches: Watches, workers: int) -> str:
    waits = {
        name: 1 - watch.seconds / (seconds * threads)
        for (name, watch), threads in zip(watches._asdict().items(), (workers, 1, 1))
    }
    waited = ", ".join(f"{name} {100 * max(wait, 0):.0f} %" for name, wait in waits.items())
    bound = min(waits, key=lambda name: waits[name])
    return (
        f"{images} images in {seconds:.1f} s, {images / seconds:.1f} img/s; waited: {waited} of the time; {bound}-bound"
    )


if __name__ == "__main__":
    run(main)
