"""Images of a folder or an archive -> top-1 and top-5 in one go, with no files in between.

Threads decode, this thread runs the model, another ranks the logits; each takes from the one before it through a
bounded queue. The answers are those of the four stages, image by image, and memory does not grow with the folder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import os
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Callable

import numpy as np
from tqdm import tqdm

from ResNeSt.answers.jobs import Outcomes, Setting, chunk_of, described, setting_of
from ResNeSt.answers.outcomes import Outcome, Watches, outcomes_of
from ResNeSt.cluster.flag import add_ray_flag, machines_of
from ResNeSt.common.arguments import Parser, write_result
from ResNeSt.common.cores import cores
from ResNeSt.common.errors import PipelineError, run
from ResNeSt.common.files import PathLike
from ResNeSt.common.flags import take
from ResNeSt.common.journal import Journal
from ResNeSt.common.machines import Machines
from ResNeSt.common.made_of import Unchanged, state_of
from ResNeSt.common.parallel import Stopwatch
from ResNeSt.common.paths import refuse_clashes
from ResNeSt.common.progress import Say, aloud, hidden, remark, silent
from ResNeSt.engines.engine import Engine
from ResNeSt.engines.image_batches import (
    FREE_BATCH,
    ModelChoice,
    add_model_flags,
    image_format,
    model_choice,
    open_for_images,
)
from ResNeSt.engines.instances import in_words
from ResNeSt.images.archives import archives_of
from ResNeSt.images.decode import orientation_notes
from ResNeSt.images.listing import list_images, relative
from ResNeSt.images.native import decoder
from ResNeSt.labels.carried import truth_of
from ResNeSt.labels.class_names import ClassList, ClassName, class_list, names_of
from ResNeSt.labels.file import keys_of, read_labels
from ResNeSt.labels.sources import check_folders, tree_of_model
from ResNeSt.models.cards import card
from ResNeSt.models.files import model_files
from ResNeSt.models.model_info import recipe_note
from ResNeSt.score.label_numbers import one_answer, remarks
from ResNeSt.score.per_class import pairs_of
from ResNeSt.score.printed import (
    add_allow_flags,
    add_score_flags,
    figures,
    problem_lines,
    score_lines,
    write_tables,
)
from ResNeSt.score.score import TOP, TOP_K, Prediction, Problems, Score, check_labels, count, depth
from ResNeSt.tensors.format import TensorFormat

# What can be wrong with an image, in words for a report; the first two are found before anything runs.
KINDS = {
    "missing": "labelled images without a file",
    "extra": "images without a label",
    "broken": "images that cannot be decoded",
    "not-finite": "images whose logits have NaN or infinity in them",
}


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """What a folder of images scored.

    `score` counts the labelled images that have an answer, `labelled` those in the labels file; `problems` holds a line
    for each that went wrong, by KINDS. `pairs` counts the images by their label and the class predicted for them
    (ResNeSt.score.per_class), `class_names` has all classes; `numbering` says by what class folders were
    taken for classes, where they were. `kept` images were answered by an earlier run, the others
    took `seconds`.
    `model` is the file, `sha256` its digest and those of the files beside it that hold its weights, `engine` names the
    runtime, `tensors` says what the images were turned into, `decoder` by whom, `remarks` where the labels seem to
    count from another class than the model, all answers are one class, the recipe is not the model's own, or pictures
    carry an EXIF orientation.
    """

    model: str
    sha256: dict[str, str]
    engine: str
    batch: int
    tensors: TensorFormat
    score: Score
    labelled: int
    problems: Problems
    images: int
    kept: int
    seconds: float
    remarks: Sequence[str] = ()
    decoder: str = ""
    pairs: Mapping[tuple[int, int], int] = dataclasses.field(default_factory=dict)
    class_names: Sequence[ClassName] = ()
    numbering: str = ""


def evaluate(
    model: ModelChoice,
    images: PathLike,
    labels: PathLike | None = None,
    predictions: PathLike | None = None,
    allowed: Collection[str] = (),
    say: Say = silent,
    machines: Machines | None = None,
    top_k: Sequence[int] = TOP_K,
) -> Evaluated:
    """Scores the images of a folder, flat or with a sub-folder per class, or of archives, against a labels file.

    Without `labels` the archives' own count (ResNeSt.labels.carried), or else the class folders that the images lie in,
    by the names of the model's classes (ResNeSt.labels.numbering); with `labels` all have to say the same.
    `predictions` takes a line of JSON per image, and lets a run that died go on where it stopped. `allowed` are the
    KINDS "missing" and "extra" that do not end the run before it begins. `say` hears what is run and where its time
    went. `machines` do the work (ResNeSt.cluster.ray_tasks), in place of this process's threads. `top_k` are the
    accuracies that are wanted. Raises PipelineError where images and labels do not fit, or a file is damaged, and what
    opening a model raises.
    """
    ranks = depth(top_k)
    named = [] if labels is None else [labels]
    refuse_clashes([model.file, images, *archives_of(images), *named], [predictions] if predictions else [])
    if labels is not None:
        read_labels(labels)  # before the images are looked for, which may take long
    found = list_images(images, say)
    truth = truth_of(labels, found, images)
    labels = images if labels is None else labels
    chosen, by_path, problems = _join(found, images, labels, truth, allowed) if truth else (found, {}, _no_problems())
    engine, setting = _opened(model, len(chosen), named, machines)
    tensor_format = image_format(engine, model)
    # The run of nothing is a warm-up, too.
    classes = engine.run(np.zeros(engine.input.shape, engine.input.dtype)).shape[1]
    known = _classes_of(model, engine, classes)
    tree = None if truth else tree_of_model(found, images, known)
    if tree:
        truth = by_path = dict(zip((relative(image, images) for image in found), tree.labels))
    else:
        check_labels(truth, classes, labels)
        check_folders(labels, truth, chosen, images, known)
    batch = engine.input.shape[0]
    made = f"{tensor_format}, decoded by {decoder()}"
    say(f"{model.file}: {engine.title}, {in_words(engine)}, {made}; {len(chosen)} images")
    if tree:
        say(f"{images}: {len(chosen)} images of {len(set(tree.labels))} classes, by {tree.rule}")
    note = recipe_note(engine.info, tensor_format.recipe)
    workers = model.workers or cores()
    watches = Watches(Stopwatch(), Stopwatch(), Stopwatch())
    tally, kept = Tally(by_path, top_k, problems), 0
    names = [relative(image, images) for image in chosen]
    head = functools.partial(_head, setting, engine, tensor_format, ranks, chosen)
    with _journal(predictions, lambda: {**head(), **known.info}, names, batch) as journal:
        for record in journal or ():
            tally.add([Outcome(**record)])
            kept += 1
        started = time.perf_counter()
        if machines:
            outcomes = machines.each(Outcomes(setting, tensor_format, ranks), chosen[kept:], chunk_of(engine, machines))
        else:
            outcomes = outcomes_of(engine, tensor_format, ranks, chosen[kept:], workers, watches)
        within = ([outcome._replace(image=relative(outcome.image, images)) for outcome in some] for some in outcomes)
        for some in _recorded(within, journal, kept, len(chosen)):
            tally.add(some)
        seconds = time.perf_counter() - started
    if kept:
        say(f"{kept} images were done by an earlier run")
    busy = machines.used if machines else _waits(seconds, watches, workers, engine.instances)
    say(f"{len(chosen) - kept} images in {seconds:.1f} s, {(len(chosen) - kept) / seconds:.1f} img/s; {busy}")
    return Evaluated(
        model=os.fspath(model.file),
        sha256=setting.by_name,
        engine=engine.title,
        batch=batch,
        tensors=tensor_format,
        score=tally.score,
        labelled=len(truth),
        problems={kind: cases for kind, cases in problems.items() if cases},
        images=len(chosen),
        kept=kept,
        seconds=seconds,
        remarks=[
            *(tree.remarks if tree else []),
            *([] if tree and tree.named else remarks(labels, truth.values(), classes, _differences(tally.pairs))),
            *one_answer(tally.pairs),
            *filter(None, [note]),
            *orientation_notes(len(tally.unturned), len(chosen), next(iter(tally.unturned), "")),
        ],
        decoder=decoder(),
        pairs=tally.pairs,
        class_names=known.names,
        numbering=tree.rule if tree else "",
    )


def _opened(
    model: ModelChoice, images: int, labels: Sequence[PathLike], machines: Machines | None
) -> tuple[Engine, Setting]:
    """The model, here or on a machine, and the SHA-256 of its files; raises PipelineError where one was replaced."""
    with Unchanged(*(model_files(model.file) if os.path.isfile(model.file) else [])):
        setting = setting_of(model, FREE_BATCH, *(filter(os.path.isfile, labels) if machines else ()))
        engine = described(machines, setting) if machines else open_for_images(model, images=images)
        return engine, setting


def _classes_of(model: ModelChoice, engine: Engine, classes: int) -> ClassList:
    """What the classes of the model are called, by its file, or by the card of its `arch` where the file is silent."""
    if "class_names" not in engine.info and model.arch and (named := card(model.arch)).classes == classes:
        return class_list(model.arch, named.class_names, classes)
    return ClassList(os.fspath(model.file), names_of(engine.info, classes))


def _no_problems() -> Problems:
    return {kind: [] for kind in KINDS}


def _join(
    images: Sequence[str], folder: PathLike, labels: PathLike, truth: dict[str, int], allowed: Collection[str]
) -> tuple[list[str], dict[str, int], Problems]:
    """The images that have a label, their classes by their paths in `folder`, and what is missing or extra.

    Raises PipelineError where that is not allowed.
    """
    problems = _no_problems()
    keys = dict(zip(images, keys_of(images, folder, truth)))
    labelled = [image for image in images if keys[image] in truth]
    problems["extra"] = [image for image in images if keys[image] not in truth]
    if len(labelled) < len(truth):
        problems["missing"] = sorted(truth.keys() - set(keys.values()))
    for kind in ("missing", "extra"):
        if not labelled or (problems[kind] and kind not in allowed):
            raise PipelineError(
                f"{folder}: {len(problems[kind])} {KINDS[kind]} (labels: {labels}), such as "
                f"{problems[kind][0]}; complete them, or leave these out with --allow-{kind}"
            )
    return labelled, {relative(image, folder): truth[keys[image]] for image in labelled}, problems


def _recorded(
    outcomes: Iterable[list[Outcome]], journal: Journal | None, kept: int, images: int
) -> Iterator[list[Outcome]]:
    """The outcomes as they come, each written to the journal, which gets its name at the end."""
    with tqdm(total=images, initial=kept, unit="img", desc="evaluate", disable=hidden()) as bar:
        for some in outcomes:
            yield some
            if journal:
                journal.write(map(_record, some))
            bar.update(len(some))
    if journal:
        journal.finish()


@dataclasses.dataclass
class Tally:
    """What the outcomes add up to; `by_path` are the images' labels, the other fields those of Evaluated.

    `unturned` has the images that were left as they lie against their EXIF orientation.
    """

    by_path: Mapping[str, int]
    top_k: Sequence[int]
    problems: Problems
    score: Score = dataclasses.field(default_factory=Score)
    pairs: Counter[tuple[int, int]] = dataclasses.field(default_factory=Counter)
    unturned: list[str] = dataclasses.field(default_factory=list)

    def add(self, outcomes: Sequence[Outcome]) -> None:
        """Counts outcomes, once each."""
        for outcome in outcomes:
            if outcome.problem:
                self.problems[outcome.problem].append(outcome.reason)
        ranked = [outcome for outcome in outcomes if not outcome.problem]
        predictions = [Prediction(self.by_path[outcome.image], tuple(outcome.classes)) for outcome in ranked]
        self.pairs.update(pairs_of(predictions))
        self.score += count(predictions, self.top_k)
        self.unturned += [outcome.image for outcome in outcomes if outcome.unturned]


def _differences(pairs: Mapping[tuple[int, int], int]) -> Counter[int]:
    """Images by the class predicted for them less the one of their label."""
    differences = Counter[int]()
    for (label, found), images in pairs.items():
        differences[found - label] += images
    return differences


def _record(outcome: Outcome) -> dict[str, Any]:
    """A line of the journal; of most images that nothing has to be said of `unturned`."""
    record = outcome._asdict()
    return record if outcome.unturned else {key: value for key, value in record.items() if key != "unturned"}


def _journal(
    path: PathLike | None, head: Callable[[], dict[str, Any]], names: Sequence[str], batch: int
) -> contextlib.AbstractContextManager[Journal | None]:
    def is_record(place: int, record: Any) -> bool:
        """Whether it is an Outcome of the image in this place."""
        return (
            place < len(names)
            and isinstance(record, dict)
            and {*record, "unturned"} == set(Outcome._fields)
            and record["image"] == names[place]
            and record["problem"] in ("", *KINDS)
            and isinstance(record["classes"], list)
            and all(type(label) is int and label >= 0 for label in record["classes"])
            and bool(record["classes"]) != bool(record["problem"])
            and record.get("unturned", True) is True
        )

    return Journal(path, head(), batch, is_record) if path else contextlib.nullcontext()


def _head(
    setting: Setting, engine: Engine, tensor_format: TensorFormat, ranks: int, images: Sequence[str]
) -> dict[str, Any]:
    """All that the predictions depend on."""
    states = hashlib.sha256()
    for image in images:
        state: object = image  # a link to nothing is broken, like other files
        with contextlib.suppress(OSError):
            state = state_of(image)
        states.update(os.fsencode(f"{state}\0"))
    return {
        "model": setting.by_name,
        "engine": setting.model.engine,
        "ema": setting.model.ema,
        "batch": engine.input.shape[0],
        "architecture": engine.info.get("architecture"),
        "tensors": dataclasses.asdict(tensor_format),
        "images": len(images),
        "pictures": states.hexdigest(),
        **({} if ranks == TOP else {"ranks": ranks}),
    }


def _waits(seconds: float, watches: Watches, workers: int, instances: int) -> str:
    waits = {
        name: 1 - watch.seconds / (seconds * threads)
        for (name, watch), threads in zip(watches._asdict().items(), (workers, instances, 1))
    }
    waited = ", ".join(f"{name} {100 * max(wait, 0):.0f} %" for name, wait in waits.items())
    return f"waited: {waited} of the time; {min(waits, key=lambda name: waits[name])}-bound"


def main() -> int:
    """Runs the command line; 1 where an image has a problem that was not allowed."""
    options = make_parser().parse_args()
    with machines_of(options) as machines:
        evaluated = evaluate(
            model_choice(options),
            options.images,
            options.labels,
            options.predictions,
            options.allowed,
            aloud,
            machines,
            options.top_k,
        )
    allowed = options.allowed
    score, labelled, problems = evaluated.score, evaluated.labelled, evaluated.problems
    ranks, top_k = depth(options.top_k), options.top_k
    print("\n".join(score_lines(score, labelled, ranks, top_k)))
    for note in evaluated.remarks:
        remark(note)
    print("".join(f"{line}\n" for line in problem_lines(problems, KINDS, options.allowed)), end="")
    write_tables(options, evaluated)
    sources = {"model": options.model, "images": options.images, "labels": options.labels}
    of_run = {**_run_figures(evaluated), "predictions": options.predictions}
    of_run.update(confusion=options.confusion, per_class=options.per_class)
    write_result(options, {**sources, **of_run, **figures(score, labelled, problems, allowed, ranks, top_k)})
    return 1 if set(problems) - set(options.allowed) else 0


def _run_figures(evaluated: Evaluated) -> dict[str, Any]:
    """With what it was run and how fast, for a JSON file; `kept` images were answered by an earlier run."""
    done = evaluated.images - evaluated.kept
    return {
        "tensors": str(evaluated.tensors),
        "notes": evaluated.remarks,
        "numbering": evaluated.numbering or None,
        "engine": evaluated.engine,
        "decoder": evaluated.decoder,
        "batch": evaluated.batch,
        "sha256": evaluated.sha256,
        "kept": evaluated.kept,
        "seconds": evaluated.seconds,
        "images_per_second": done / evaluated.seconds,
    }


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(
        prog="python -m ResNeSt.evaluate",
        description=__doc__,
        example="python -m ResNeSt.evaluate --model work/resnest_demo/resnest_demo_bs4.xml --images demo/val "
        "--labels demo/val_label.txt",
    )
    add_model_flags(parser)
    add_ray_flag(parser)
    take(parser, "images", required=True)
    take(parser, "labels", note="what comes with the images, or class folders")
    parser.writes("--predictions", metavar="FILE", help="write a line of JSON per image; such a run can go on")
    add_score_flags(parser)
    add_allow_flags(parser, KINDS)
    return parser


if __name__ == "__main__":
    run(main)
