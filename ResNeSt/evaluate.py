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
from typing import Any, ContextManager, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from tqdm import tqdm

from ResNeSt.batches import Batch, add_model_flags, image_format, logits_of, open_for_images
from ResNeSt.engines import Engine
from ResNeSt.errors import PipelineError, run
from ResNeSt.files import sha256, stem, write_json
from ResNeSt.journal import Journal
from ResNeSt.labels import read_labels
from ResNeSt.model_files import model_files
from ResNeSt.parallel import Stopwatch, cores, in_parallel
from ResNeSt.preprocess import find_images
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
    engine = open_for_images(options)
    made = image_format(engine, options.model, options.arch)
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
    add_model_flags(parser)
    parser.add_argument("--images", required=True, metavar="DIR", help="flat, or with a sub-folder per class")
    parser.add_argument("--labels", required=True, metavar="FILE", help="a line 'NAME CLASS' for every image")
    parser.add_argument("--predictions", metavar="FILE", help="write a line of JSON per image; such a run can go on")
    parser.add_argument("--json", metavar="FILE", help="write the figures and all problems here as well")
    add_allow_flags(parser, KINDS)
    return parser


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
    inferred = logits_of(engine, made, images, workers, watches.decoding, watches.inference)
    # One batch may wait to be ranked while the next one runs.
    for _, outcomes in in_parallel(watches.ranking.timed(_rank), inferred, workers=1, ahead=1):
        yield outcomes


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
    names_and_times = hashlib.sha256()
    for image in images:
        found = os.stat(image)
        names_and_times.update(os.fsencode(f"{os.path.basename(image)}\0{found.st_size} {found.st_mtime_ns}\0"))
    return {
        "model": {file.name: sha256(file) for file in model_files(options.model)},
        "engine": options.engine,
        "batch": batch,
        "tensors": str(made),
        "images": len(images),
        "files": names_and_times.hexdigest(),
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
