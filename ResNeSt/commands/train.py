"""Trains a ResNeSt by the published recipe, or fine-tunes one; alone, or in many processes that torchrun starts.

Of the paper's recipe mixup and DropBlock are left out. Run again with the same options, it goes on after the last epoch
that was saved.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from typing import Any

from ResNeSt.common.arguments import positive
from ResNeSt.common.errors import ArgumentError, PipelineError, run
from ResNeSt.common.parallel import cores
from ResNeSt.labels.class_names import class_list, imagenet_classes
from ResNeSt.models.cards import Card, card, names
from ResNeSt.models.download import fetch
from ResNeSt.training.data import Samples, read_samples
from ResNeSt.training.distributed import joined
from ResNeSt.training.loop import Run, train
from ResNeSt.training.settings import AUGMENTATIONS, PRECISIONS, Settings

HELP = {
    "epochs": "in all",
    "warmup": "epochs in which the learning rate rises",
    "batch": "images of a step on each device",
    "rate": "peak learning rate for every 64 images of a step",
    "momentum": "of SGD",
    "decay": "weight decay, not on batch norm and biases",
    "smoothing": "of the labels",
    "dropout": "before the classifier",
    "clip": "greatest norm of the gradients, 0 for any",
    "augment": "random crop, flip and AutoAugment; crop and flip; or the model's own recipe",
    "min_area": "least share of the picture that a crop keeps",
    "precision": "mixed with bfloat16 or float16, or not",
    "seed": "of all that is random",
}
CHOICES = {"augment": AUGMENTATIONS, "precision": PRECISIONS}


def main() -> None:
    """Parses the command line and trains."""
    options = _parser().parse_args()
    if options.train_labels and not options.val_labels:
        raise ArgumentError("--train-labels takes --val-labels, too: folders have class numbers of their own")
    settings, base = _settings(options), card(options.model)
    with joined(options.device) as processes:
        train_on, judged_by = _samples(options, base)
        if processes.rank == 0:
            print("\n".join([*train_on.remarks, *judged_by.remarks, *_unlearnt(train_on, judged_by)]), flush=True)
        model_card = _card(base, train_on, judged_by, options)
        weights = processes.first(lambda: fetch(base)) if options.weights == "auto" else options.weights
        workers = options.workers or max(1, cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
        training_run = Run(model_card, settings, train_on, judged_by, weights, workers)
        train(training_run, options.output, processes, options.tensorboard)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="resnest_train.py", description=__doc__)
    parser.add_argument("--train", required=True, metavar="DIR", help="pictures, a folder per class or with labels")
    parser.add_argument("--val", required=True, metavar="DIR", help="pictures to be judged by after each epoch")
    parser.add_argument("--train-labels", metavar="FILE", help="a line 'NAME CLASS' for every picture of --train")
    parser.add_argument("--val-labels", metavar="FILE", help="the same of --val")
    parser.add_argument("--output", required=True, metavar="DIR", help="for checkpoints and log")
    parser.add_argument(
        "--model", default="resnest50", help=f"[%(default)s] architecture: {', '.join(names())}, or a card file"
    )
    parser.add_argument("--size", type=positive, metavar="N", help="of the input in pixels [the model's own]")
    parser.add_argument("--weights", metavar="PTH", help="start from this checkpoint, or 'auto' for the official one")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="[%(default)s]")
    parser.add_argument("--workers", type=positive, metavar="N", help="threads a process that decode [share of cores]")
    parser.add_argument("--tensorboard", action="store_true", help="write the log for TensorBoard, too")
    parser.add_argument("--sync-bn", action="store_true", help="batch norm over the images of all processes")
    parser.add_argument("--no-flip", dest="flip", action="store_false", help="do not mirror pictures")
    defaults = Settings()
    for name, meaning in HELP.items():
        default = getattr(defaults, name)
        flags: dict[str, Any] = {"choices": CHOICES[name]} if name in CHOICES else {"metavar": "N"}
        flag = "--" + name.replace("_", "-")
        parser.add_argument(flag, type=type(default), default=default, help=f"{meaning} [%(default)s]", **flags)
    return parser


def _settings(options: argparse.Namespace) -> Settings:
    return Settings(**{field.name: getattr(options, field.name) for field in dataclasses.fields(Settings)})


def _samples(options: argparse.Namespace, base: Card) -> tuple[Samples, Samples]:
    """The pictures to learn from, in the classes of an own card's names, and those to be judged by, in the same."""
    named = base.class_names and class_list(f"the card {options.model}", base.class_names, base.classes)
    train_on = read_samples(options.train, options.train_labels, named or None)
    known = class_list("the training pictures", train_on.class_names, train_on.classes)
    return train_on, read_samples(options.val, options.val_labels, known)


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
