"""Trains a ResNeSt, or fine-tunes one; alone, or in many processes that torchrun starts.

By default with what the published trainers share; `--preset paper` adds what the paper has beyond that. What comes from
where stands in docs/training.md. Run again with the same options, it goes on after the last epoch that was saved.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from ResNeSt.common.arguments import Parser, variable, write_result
from ResNeSt.common.cores import cores
from ResNeSt.common.errors import ArgumentError, PipelineError, run
from ResNeSt.common.files import PathLike
from ResNeSt.common.flags import take
from ResNeSt.common.progress import Say, aloud, remark, silent
from ResNeSt.labels.class_names import class_list, imagenet_classes
from ResNeSt.models.cards import Card, card, find_card
from ResNeSt.models.checkpoint import card_for
from ResNeSt.models.download import fetch
from ResNeSt.training.data import Samples, read_samples
from ResNeSt.training.distributed import joined, told_to_torchrun
from ResNeSt.training.loop import BEST, CARD, LOG, Run, train
from ResNeSt.training.settings import AUGMENTATIONS, PRESETS, Settings

HELP = {
    "epochs": "epochs in all",
    "warmup": "epochs in which the learning rate rises [5, or a quarter of fewer than 20]",
    "rate": "peak learning rate for every 64 images of a step",
    "momentum": "momentum of SGD",
    "nesterov": "Nesterov's momentum",
    "decay": "weight decay, not on batch norm and biases",
    "smoothing": "smoothing of the labels",
    "dropout": "dropout before the classifier",
    "dropblock": "DropBlock in the last two stages",
    "mixup": "alpha of mixup's Beta distribution",
    "clip": "greatest norm of the gradients, 0 for any",
    "augment": "random crop, flip and AutoAugment; RandAugment in its place; neither; or the model's own recipe",
    "augment_whole": "AutoAugment or RandAugment before the crop, not after",
    "jitter": "greatest change of brightness, contrast and saturation",
    "lighting": "deviation of the noise along the colours' principal components",
    "min_area": "least share of the picture that a crop keeps",
    "flip": "mirror every other picture",
    "sync_bn": "batch norm over the images of all processes",
    "seed": "seed of all that is random",
}
DEFAULT_ARCH = "resnest50"
PRECISIONS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}  # and what PyTorch calls them


def main() -> None:
    """Parses the command line and trains."""
    with told_to_torchrun():
        _train(_parse())


def _train(options: argparse.Namespace) -> None:
    if options.train_labels and not options.val_labels:
        raise ArgumentError("--train-labels takes --val-labels, too: folders have class numbers of their own")
    settings, base = _settings(options), _base(options.weights, options.arch)
    with joined(options.chip) as processes:
        train_on, judged_by = _samples(options, base, aloud if processes.rank == 0 else silent)
        if processes.rank == 0:
            notes = [*train_on.remarks, *judged_by.remarks, *_unlearnt(train_on, judged_by)]
            for note in notes:
                remark(note)
        model_card = _card(base, train_on, judged_by, options)
        weights = processes.first(lambda: fetch(base)) if options.weights == "auto" else options.weights
        workers = options.workers or max(1, cores() // variable("LOCAL_WORLD_SIZE", 1, least=1))
        names = _weights_names(weights, base)
        training_run = Run(model_card, settings, train_on, judged_by, weights, workers, options.ema, names)
        train(training_run, options.output, processes, options.tensorboard, aloud)
        if processes.rank == 0:
            write_result(options, {**_result(Path(options.output)), "notes": notes})


def _result(folder: Path) -> dict[str, Any]:
    """What training left: the files, the row of the best epoch, and those of all."""
    rows = [json.loads(line) for line in (folder / LOG).read_text(encoding="utf-8").splitlines()]
    best = max(rows, key=lambda row: row["top1"])  # the first of equal ones, as it was saved
    return {"weights": folder / BEST, "card": folder / CARD, "log": folder / LOG, "best": best, "epochs": rows}


def _parse() -> argparse.Namespace:
    """The options; those that a preset changes are the preset's unless they are given."""
    parser = make_parser()
    parser.set_defaults(**PRESETS[parser.parse_args().preset])
    return parser.parse_args()


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(
        prog="resnest_train.py",
        description=__doc__,
        example="python resnest_train.py --train demo/train --train-labels demo/train_label.txt --val demo/val "
        "--val-labels demo/val_label.txt --arch resnest_demo --epochs 1 --output work/trained",
    )
    parser.reads("--train", required=True, metavar="DIR", help="pictures, a folder per class or with labels")
    parser.reads("--val", required=True, metavar="DIR", help="pictures to be judged by after each epoch")
    parser.reads("--train-labels", metavar="FILE", help="a line 'NAME CLASS' for every picture of --train")
    parser.reads("--val-labels", metavar="FILE", help="the same of --val")
    take(parser, "output", required=True)
    take(parser, "arch", note=f"by --weights; {DEFAULT_ARCH} without", old=["--model"])
    take(parser, "size", note="the model's own")
    take(parser, "weights", note="none; training starts from it")
    take(parser, "ema")
    take(parser, "chip", choices=("cpu", "cuda"), default="cpu", old=["--device"])
    take(parser, "workers", note="share of cores, in each process")
    parser.add_argument("--tensorboard", action="store_true", help="write the log for TensorBoard, too")
    preset = parser.add_argument(
        "--preset",
        choices=PRESETS,
        default="default",
        help=f"other defaults: paper is {_flags(PRESETS['paper'])} [%(default)s]",
    )
    parser.answer_to(["--recipe"], preset)
    for field in dataclasses.fields(Settings):
        _add_setting(parser, field.name, field.default)
    take(parser, "threads")
    return parser


def _add_setting(parser: Parser, name: str, default: Any) -> None:
    if name == "batch":
        take(parser, name, default=default, note="%(default)s, of a step on each device")
    elif name == "precision":
        take(parser, name, choices=list(PRECISIONS), default="fp32", note="%(default)s; the others are mixed with it")
    else:
        setting = parser.add_argument(_flag(name), dest=name, **_kind(name, default))
        parser.answer_to(["--warmup"] if name == "warmup" else [], setting)


def _flag(name: str) -> str:
    """What a setting is called on the command line."""
    return "--warmup-epochs" if name == "warmup" else f"--{name.replace('_', '-')}"


def _kind(name: str, default: Any) -> dict[str, Any]:
    meaning = HELP[name] if default is None else f"{HELP[name]} [%(default)s]"
    if isinstance(default, bool):
        return {"action": argparse.BooleanOptionalAction, "default": default, "help": meaning}
    kind = int if default is None else type(default)
    what = {"choices": AUGMENTATIONS} if name == "augment" else {"metavar": "N"}
    return {"type": kind, "default": default, "help": meaning, **what}


def _flags(values: dict[str, Any]) -> str:
    """As they would be typed."""
    typed = (_flag(name) + ("" if value is True else f" {value}") for name, value in values.items())
    return " ".join(typed)


def _settings(options: argparse.Namespace) -> Settings:
    given = {field.name: getattr(options, field.name) for field in dataclasses.fields(Settings)}
    return Settings(**{**given, "precision": PRECISIONS[options.precision]})


def _base(weights: str | None, arch: str | None) -> Card:
    """The card that training starts from: the one asked for, else that of the start weights.

    A published name may be of another card than the weights', but not of another network: some share all shapes.
    """
    if weights in (None, "auto"):
        return card(arch or DEFAULT_ARCH)
    named = find_card(weights)
    if arch is None:
        # Its classes are those of other pictures.
        return dataclasses.replace(card_for(weights, None), class_names=None)
    if named is None:
        return card(arch)
    asked = card(arch)
    if asked.architecture != named.architecture:
        raise ArgumentError(
            f"{weights}: is of {named.name}, --arch says {arch}; start from other weights or drop --arch"
        )
    return asked


def _weights_names(weights: PathLike | None, base: Card) -> tuple[str, ...] | None:
    """What the classes of the start weights are called, by their own card, or else by the one that --arch gives."""
    named = None if weights is None else find_card(weights)
    return named.class_names if named and named.class_names else base.class_names


def _samples(options: argparse.Namespace, base: Card, say: Say) -> tuple[Samples, Samples]:
    """The pictures to learn from, in the classes of an own card's names, and those to be judged by, in the same."""
    named = base.class_names and class_list(f"class_names in {options.arch}", base.class_names, base.classes)
    train_on = read_samples(options.train, options.train_labels, named or None, say)
    if len(set(train_on.labels)) == 1:
        raise PipelineError(
            f"{options.train}: all {len(train_on.images)} training pictures are of one class; expected two or more, "
            "such as a folder for each, and not the folder above these"
        )
    known = class_list("the training pictures", train_on.class_names, train_on.classes)
    return train_on, read_samples(options.val, options.val_labels, known, say)


def _unlearnt(train_on: Samples, judged_by: Samples) -> list[str]:
    """A line where pictures to be judged by are of classes that no training picture shows."""
    unlearnt = sorted(set(judged_by.labels) - set(train_on.labels))
    return (
        [f"{len(unlearnt)} classes to be judged by have no training picture, such as {unlearnt[0]}"] if unlearnt else []
    )


def _card(base: Card, train_on: Samples, judged_by: Samples, options: argparse.Namespace) -> Card:
    """The card of what is trained: all of `base` but for the classes, which are those of the pictures, and the size."""
    if judged_by.classes > train_on.classes:
        raise PipelineError(
            f"{options.val_labels or options.val}: has class {judged_by.classes - 1}, the training pictures have "
            f"{train_on.classes} classes"
        )
    classes, class_names = train_on.classes, train_on.class_names
    if class_names is None and base.class_names and classes <= base.classes:
        classes, class_names = base.classes, base.class_names
    if class_names == tuple(class_name.synset for class_name in imagenet_classes()):
        class_names = None  # ImageNet's have better names than their synsets
    return dataclasses.replace(base, classes=classes, class_names=class_names, size=options.size or base.size)


if __name__ == "__main__":
    run(main)
