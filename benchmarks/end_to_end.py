"""Photographs to top-1: whole processes beside the sample's three scripts, and evaluate beside what the cores allow.

The sample's scripts run the textbook export in ONNX Runtime. 1,000 photographs are evaluated: the folder's, several
times each under other names. Weights are random, so the scores mean nothing; labels are all class 0.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.decoders import decoders, switched
from benchmarks.models import compile_model, make_onnx, make_tensors
from benchmarks.processes import spend
from benchmarks.rounds import interleave, repeated, report
from ResNeSt.answers.outcomes import Watches, outcomes_of
from ResNeSt.common.cores import cores
from ResNeSt.common.parallel import Stopwatch
from ResNeSt.engines.engine import Engine
from ResNeSt.engines.null import NullEngine
from ResNeSt.engines.opening import open_engine
from ResNeSt.images.listing import find_images
from ResNeSt.images.native import decoder
from ResNeSt.models.model_info import tensor_format
from ResNeSt.score.score import TOP

IMAGES = 1000
BATCH = 16


def measure(images: Path, rounds: int, output: Path) -> None:
    """Prints and writes both tables."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        photographs, labels = repeat_images(find_images(images), scratch / "images", IMAGES)
        tensors = make_tensors(images, scratch / "tensors")
        textbook, deploy = (make_onnx(scratch / form, form) for form in ("reference", "deploy"))
        model = compile_model(deploy, (BATCH,), "int8", tensors, "uint8")[BATCH]
        full = compile_model(deploy, (BATCH,), "fp32", tensors, "uint8")[BATCH]
        whole = {
            "the sample's three scripts, ONNX Runtime fp32": lambda: _sample(textbook, photographs, labels, scratch),
            f"this project's evaluate, fp32, {decoder()}": _evaluation(full, photographs, labels),
            **{
                f"this project's evaluate, int8, {by}": switched(switch, _evaluation(model, photographs, labels))
                for by, switch in decoders().items()
            },
        }
        rates = {who: IMAGES / seconds for who, seconds in interleave(whole, min(rounds, 3)).items()}
        first = next(iter(rates.values()))
        rows = [[who, f"{rate:.1f}", f"{rate / first:.2f}"] for who, rate in rates.items()]
        report(output, "end-to-end-resnest50", ["whole processes", "images/s", "ratio"], rows)
        _report_bound(open_engine(model), find_images(photographs), rounds, output)


def repeat_images(images: Sequence[str], folder: Path, count: int) -> tuple[Path, Path]:
    """A folder of `count` links to `images`, and labels for them."""
    folder.mkdir()
    names = [f"{number:06}{Path(images[0]).suffix}" for number in range(count)]
    for number, name in enumerate(names):
        (folder / name).symlink_to(Path(images[number % len(images)]).resolve())
    labels = folder.with_suffix(".txt")
    labels.write_text("".join(f"{name} 0\n" for name in names))
    return folder, labels


def _sample(model: Path, images: Path, labels: Path, scratch: Path) -> float:
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        tensors, results = Path(folder, "tensors"), Path(folder, "results")
        return sum(
            spend("-m", "benchmarks.sample", *arguments).seconds
            for arguments in (
                ("preprocess", images, tensors),
                ("infer", model, tensors, results),
                ("score", results / "summary.json", labels),
            )
        )


def _evaluation(model: Path, images: Path, labels: Path) -> Callable[[], float]:
    flags = (f"--model={model}", f"--images={images}", f"--labels={labels}")
    return lambda: spend("-m", "ResNeSt.evaluate", *flags).seconds


def _report_bound(engine: Engine, images: list[str], rounds: int, output: Path) -> None:
    """evaluate without its start, beside decoding alone, inference alone, and both after one another."""
    batch = np.random.default_rng(0).integers(0, 256, engine.input.shape, np.uint8)
    contenders = {"inference": repeated(lambda: engine.run(batch), len(batch))}
    for by, switch in decoders().items():
        contenders[f"decoding {by}"] = switched(switch, steady(NullEngine(engine), images))
        contenders[f"evaluate {by}"] = switched(switch, steady(engine, images))
    rates = interleave(contenders, rounds)
    rows = [_bound(by, rates[f"decoding {by}"], rates["inference"], rates[f"evaluate {by}"]) for by in decoders()]
    head = ["images/s without start", "decoding alone", "inference alone", "what the cores allow", "evaluate", "of it"]
    report(output, "evaluate-resnest50-int8", head, rows)


def _bound(by: str, decoding: float, inference: float, evaluate: float) -> list[str]:
    allowed = 1 / (1 / decoding + 1 / inference)
    return [by, *(f"{rate:.1f}" for rate in (decoding, inference, allowed, evaluate)), f"{evaluate / allowed:.2f}"]


def steady(engine: Engine, images: list[str]) -> Callable[[], float]:
    """A contender: images/s of evaluate from files to answers, without its start."""
    wanted = tensor_format(engine.info, engine.input.shape, engine.input.dtype, "the model")

    def measure() -> float:
        watches = Watches(Stopwatch(), Stopwatch(), Stopwatch())
        started = time.perf_counter()
        done = sum(map(len, outcomes_of(engine, wanted, TOP, images, cores(), watches)))
        return done / (time.perf_counter() - started)

    return measure
