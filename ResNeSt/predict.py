"""Single images, or a folder or an archive of them -> the most probable classes, with their names.

Images are prepared by the recipe that the model's file names; the probabilities are the softmax of its logits.
"""

from __future__ import annotations

import csv
import itertools
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Callable, NamedTuple, TextIO

from ResNeSt.answers.jobs import Rankings, chunk_of, described, setting_of
from ResNeSt.answers.ranked import Ranked, ranked
from ResNeSt.cluster.flag import add_ray_flag, machines_of
from ResNeSt.common.arguments import Parser, positive, write_result
from ResNeSt.common.cores import cores
from ResNeSt.common.errors import ArgumentError, PipelineError, run
from ResNeSt.common.files import PathLike
from ResNeSt.common.flags import take
from ResNeSt.common.machines import Machines
from ResNeSt.common.made_of import file_above
from ResNeSt.common.progress import NOTE, Say, silent
from ResNeSt.engines.engine import Engine
from ResNeSt.engines.image_batches import (
    FREE_BATCH,
    ModelChoice,
    add_model_flags,
    image_format,
    model_choice,
    open_for_images,
)
from ResNeSt.images.archives import archives_of
from ResNeSt.images.decode import orientation_notes
from ResNeSt.images.listing import list_images
from ResNeSt.labels.class_names import ClassName, names_of
from ResNeSt.models.model_info import recipe_note


class Guess(NamedTuple):
    """A class and how probable the model thinks it is, 0 to 1."""

    label: int
    probability: float
    name: str
    synset: str


class Answer(NamedTuple):
    """The most probable classes of an image, best first, or why there are none.

    `unturned` is whether it was left as it lies against its EXIF orientation.
    """

    image: str
    guesses: Sequence[Guess]
    reason: str = ""
    unturned: bool = False


def predict(
    model: ModelChoice,
    images: Iterable[PathLike],
    top: int = 5,
    names: PathLike | None = None,
    say: Say = silent,
    machines: Machines | None = None,
) -> Iterator[Answer]:
    """The `top` most probable classes of each of `images`, image files, in their order; one that fails says why.

    `names` is a file with a class name a line; without it the model's own are taken, or ImageNet's for 1,000 classes.
    `say` hears where the images are not prepared by the model's own recipe. `machines` do the work
    (ResNeSt.cluster.ray_tasks), in place of this process's threads.
    Raises ArgumentError where there are no images or `top` is below 1, PipelineError where the names are not as many
    as the classes, and what opening a model raises.
    """
    paths = [os.fspath(image) for image in ([images] if isinstance(images, (str, os.PathLike)) else images)]
    if not paths or top < 1:
        raise ArgumentError(f"{len(paths)} images and top {top}, expected at least one of each")
    batch = min(len(paths), FREE_BATCH)
    if machines:
        setting = setting_of(model, batch)
        engine = described(machines, setting)
    else:
        engine = open_for_images(model, batch, len(paths))
    tensor_format = image_format(engine, model)
    note = recipe_note(engine.info, tensor_format.recipe)
    if note:
        say(note)
    if machines:
        chunks = machines.each(Rankings(setting, tensor_format, top), paths, chunk_of(engine, machines))
        return _answers(itertools.chain.from_iterable(chunks), engine, names)
    return _answers(ranked(engine, tensor_format, paths, model.workers or cores(), top), engine, names)


def _answers(rankings: Iterator[Ranked], engine: Engine, names: PathLike | None) -> Iterator[Answer]:
    classes: list[ClassName] = []
    for one in rankings:
        if one.classes and not classes:
            classes = names_of(engine.info, one.classes, names)
        labels = zip(one.labels, one.probabilities)
        yield Answer(
            one.image, [Guess(label, number, *classes[label]) for label, number in labels], one.reason, one.unturned
        )


def _print_text(answers: Iterator[Answer], out: TextIO) -> list[Answer]:
    failed = []
    for answer in answers:
        if answer.reason:
            failed.append(answer)
            continue
        print(answer.image, file=out)
        for guess in answer.guesses:
            words = [f"{100 * guess.probability:6.2f} %", f"{guess.label:4}", guess.synset, guess.name]
            print("  " + "  ".join(filter(None, words)), file=out, flush=True)
    return failed


def _print_json(answers: Iterator[Answer], out: TextIO) -> list[Answer]:
    collected = list(answers)
    json.dump([_plain(answer) for answer in collected], out, indent=1)
    print(file=out)
    return [answer for answer in collected if answer.reason]


def _plain(answer: Answer) -> dict[str, Any]:
    if answer.reason:
        return {"image": answer.image, "error": answer.reason}
    return {
        "image": answer.image,
        "predictions": [
            {
                "class": guess.label,
                "probability": guess.probability,
                "synset": guess.synset or None,
                "name": guess.name or None,
            }
            for guess in answer.guesses
        ],
    }


def _print_csv(answers: Iterator[Answer], out: TextIO) -> list[Answer]:
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("image", "rank", "class", "probability", "synset", "name"))
    failed = []
    for answer in answers:
        writer.writerows(_rows(answer))
        if answer.reason:
            failed.append(answer)
    return failed


def _rows(answer: Answer) -> Iterator[tuple[Any, ...]]:
    for rank, guess in enumerate(answer.guesses, start=1):
        yield answer.image, rank, guess.label, f"{guess.probability:.6f}", guess.synset, guess.name


FORMATS: dict[str, Callable[[Iterator[Answer], TextIO], list[Answer]]] = {
    "text": _print_text,
    "json": _print_json,
    "csv": _print_csv,
}


def main() -> int:
    """Runs the command line; 1 where an image has no answer."""
    options = make_parser().parse_args()
    images = list(_images(options.images))
    with machines_of(options) as machines:
        answers = predict(model_choice(options), images, options.top, options.names, _remark, machines)
        unturned: list[str] = []
        answers = _noted(answers, unturned)
        answers, told = itertools.tee(answers) if options.json else (answers, None)
        failed = FORMATS[options.format](answers, sys.stdout)
    if told is not None:
        write_result(options, {"model": options.model, "images": list(map(_plain, told))})
    for note in orientation_notes(len(unturned), len(images), next(iter(unturned), "")):
        _remark(note)
    for answer in failed:
        print(f"error: {answer.reason}", file=sys.stderr)
    return 1 if failed else 0


def _noted(answers: Iterable[Answer], unturned: list[str]) -> Iterator[Answer]:
    """The answers as they come; those images that are `unturned` go there."""
    for answer in answers:
        if answer.unturned:
            unturned.append(answer.image)
        yield answer


def _remark(line: str) -> None:
    _aside(f"{NOTE}{line}")


def _aside(line: str) -> None:
    """Says it where the answers are not."""
    print(line, file=sys.stderr)


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(
        prog="python -m ResNeSt.predict",
        description=__doc__,
        example="python -m ResNeSt.predict --model work/resnest_demo/resnest_demo_bs1.xml --top 2 "
        "demo/val/digits_val_00000001.JPEG",
    )
    add_model_flags(parser)
    add_ray_flag(parser)
    take(parser, "images", positional=True, nargs="+", metavar="IMAGE|SRC", note="or image files")
    parser.add_argument("--top", type=positive, default=5, metavar="K", help="classes an image [%(default)s]")
    take(parser, "names", note="the model's, or ImageNet's for 1,000")
    parser.add_argument("--format", choices=list(FORMATS), default="text", help="form of what is printed [%(default)s]")
    return parser


def _images(given: Sequence[str]) -> Iterator[str]:
    for path in given:
        if os.path.isdir(path) or archives_of(path):
            yield from list_images(path, _aside)
        elif os.path.exists(path) or file_above(path):
            yield path
        else:
            raise PipelineError(f"{path}: no such image file, folder or archive")


if __name__ == "__main__":
    run(main)
