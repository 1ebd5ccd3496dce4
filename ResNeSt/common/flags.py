"""The flags that commands share: each is said once here, so that a name has one meaning, one kind and one sentence.

A command takes a flag from the table by its name, and adds what it has for itself alone with the Parser's own methods.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, Callable, NamedTuple

from ResNeSt.common.arguments import ALSO, Parser, batch_size, device, each, instances, positive, precision, side


class Flag(NamedTuple):
    """What a flag means, in the words of --help; a switch has no metavar, a path its role (Parser.add_path)."""

    help: str
    metavar: str = ""
    kind: Callable[[str], Any] = str
    role: str = ""
    action: Any = "store_true"
    without: str = ""  # what happens without it, where that is the same everywhere


FLAGS = {
    # What goes in.
    "model": Flag(
        "file that runs: .om, .xml, .param, .onnx, or a checkpoint (.pth, .pt, .tar, .safetensors, .ckpt, .pdparams)",
        "FILE",
        role="reads",
    ),
    "arch": Flag("network: a name that `resnest models` lists, or a card file", "NAME|CARD", role="card"),
    "weights": Flag(
        "checkpoint (.pth, .safetensors, .ckpt of MindSpore, .pdparams of Paddle), or auto for the official one",
        "FILE|auto",
        role="reads",
    ),
    "onnx": Flag("ONNX file to compile", "FILE", role="reads"),
    "images": Flag("pictures: a folder, flat or with a sub-folder per class; .tar, .parquet", "SRC", role="reads"),
    "tensors": Flag("tensors of stage 1", "DIR", role="reads"),
    "labels": Flag("a line 'NAME CLASS' for every image", "FILE", role="reads"),
    "names": Flag("a class name a line, in the order of their numbers", "FILE", role="reads"),
    "results": Flag(
        "what a client wrote: its summary, once for every device; a folder or a list of outputs; predictions of "
        "evaluate or predict; mlperf_log_accuracy.json",
        "PATH",
        role="reads",
    ),
    "calibration": Flag("what calibrates int8, and judges what was compiled", "DIR", role="reads"),
    # What comes out.
    "output": Flag("folder for what is made", "DIR", role="fills"),
    "target": Flag("file to write", "FILE", role="writes"),
    "json": Flag(ALSO["json"], "FILE|-", role="writes"),
    "quiet": Flag(ALSO["quiet"]),
    "version": Flag(ALSO["version"]),
    # How it runs.
    "batches": Flag("batch sizes, like 1,4,8", "BATCHES"),
    "batch": Flag("batch size", "N", batch_size),
    "dynamic-batch": Flag("one model that takes all batch sizes"),
    "instances": Flag("how many of the model run side by side", "N|auto", instances),
    "threads": Flag("cores that the command takes", "N", positive, without="all it may use"),
    "workers": Flag("threads that decode images", "N", positive, without="one per core"),
    "chip": Flag("what the network runs on", "CHIP"),
    "device": Flag("number of the NPU or GPU", "N", device, without="0"),
    "engine": Flag("runtime", "NAME"),
    "precision": Flag("numbers that the network computes with", "P", precision),
    "dtype": Flag("numbers that tensors hold", "TYPE"),
    "size": Flag("side of the network's input in pixels", "N", side),
    "exif": Flag(
        "turn images as their EXIF orientation says",
        without="left as they lie, as the recipes were measured",
    ),
    "ema": Flag(
        "of a checkpoint with both: the moving average of its weights, or the weights",
        action=argparse.BooleanOptionalAction,
        without="the average, as timm does",
    ),
    "classes": Flag("classes of the model", "N", positive),
    "name": Flag("what requests call the model", "NAME"),
    "ray": Flag(
        "spread the work over a Ray cluster's nodes, or over this machine's cores; a task takes --workers cores, "
        "1 or a card's share of its host's without (docs/cluster.md)",
        "ADDRESS|local",
    ),
    "chunk": Flag("images of a task, with --ray", "N", positive),
    "tune": Flag("let AOE tune on this card first, for hours, once", "WHAT"),
    # What is measured, and by what it is judged.
    "loop": Flag("runs of a batch", "N", positive),
    "duration": Flag("least time of a measurement", "SECONDS", float),
    "warmup": Flag("uncounted runs before", "N", int),
    "top-k": Flag("accuracies to tell, like 1,3,10", "K", positive),
    "confusion": Flag("write the confusion matrix here, as CSV, or JSON by a name in .json", "FILE", role="writes"),
    "per-class": Flag(
        "write support, accuracy, precision, recall and F1 of each class here, as CSV, or JSON by a name in .json",
        "FILE",
        role="writes",
    ),
    "min-agreement": Flag("least share of images that keep their top-1", "SHARE", float),
    "allow-missing": Flag("exit 0 although labelled images have no file or no result"),
    "allow-extra": Flag("exit 0 although images or results have no label"),
    "allow-broken": Flag("exit 0 although images cannot be decoded"),
    "allow-duplicate": Flag("exit 0 although images have several results, of which the first listed counts"),
    "allow-unreadable": Flag("exit 0 although results cannot be read"),
    "allow-wrong-size": Flag("exit 0 although results have another number of values than most"),
    "allow-not-finite": Flag("exit 0 although images have NaN or infinity among their logits"),
}


def take(
    parser: Parser,
    name: str,
    *also: str,
    note: str = "",
    old: Sequence[str] = (),
    several: bool = False,
    positional: bool = False,
    group: Any = None,
    **settings: Any,
) -> None:
    """Adds a flag of the table to a command.

    `note` goes behind its sentence in brackets: what the command does without it, and what is this command's own (the
    default of `settings`, which are argparse's, needs no note). `also` are further spellings that --help shows,
    ais_bench's and the sample's; `old` those that it does not, our own of earlier versions. `several` takes values with
    commas between them. A path's `type` may be Path. `group` is a group of the command's flags that this one joins.
    """
    said = FLAGS[name]
    names = [name] if positional else [f"--{name}", *also]
    without = note or said.without or ("%(default)s" if settings.get("default") not in (None, [], False) else "")
    settings["help"] = f"{said.help} [{without}]" if without else said.help
    if said.metavar:
        metavar = f"{said.metavar.split('|')[0]}[,…]" if several else said.metavar
        settings.setdefault("metavar", None if "choices" in settings else metavar)
        settings.setdefault("type", each(said.kind) if several else said.kind)
    else:
        settings.setdefault("action", said.action)
    if role := settings.pop("role", said.role):
        action = parser.add_path(*names, role=role, group=group, **settings)
    else:
        action = (group or parser).add_argument(*names, **settings)
    parser.answer_to(old, action)
