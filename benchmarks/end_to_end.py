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
from ResNeSt.models.model_info import tensor_format

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
            "this project's evaluate, fp32": lambda: _evaluate(full, photographs, labels),
            "this project's evaluate, int8": lambda: _evaluate(model, photographs, labels),
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


def _evaluate(model: Path, images: Path, labels: Path) -> float:
    return spend("-m", "ResNeSt.evaluate", f"--model={model}", f"--images={images}", f"--labels={labels}").seconds


def _report_bound(engine: Engine, images: list[str], rounds: int, output: Path) -> None:
    """evaluate without its start, beside decoding alone, inference alone, and both after one another."""
    batch = np.random.default_rng(0).integers(0, 256, engine.input.shape, np.uint8)
    parts = {
        "decoding alone": _steady(NullEngine(engine), images),
        "inference alone": repeated(lambda: engine.run(batch), len(batch)),
        "evaluate": _steady(engine, images),
    }
    rates = interleave(parts, rounds)
    bound = 1 / (1 / rates["decoding alone"] + 1 / rates["inference alone"])
    rows = [
        [who, f"{rate:.1f}", f"{rate / bound:.2f}"] for who, rate in {**rates, "what the cores allow": bound}.items()
    ]
    report(output, "evaluate-resnest50-int8", ["without start", "images/s", "of what the cores allow"], rows)


def _steady(engine: Engine, images: list[str]) -> Callable[[], float]:
    wanted = tensor_format(engine.info, engine.input.shape, engine.input.dtype, "the model")

    def measure() -> float:
        watches = Watches(Stopwatch(), Stopwatch(), Stopwatch())
        started = time.perf_counter()
        done = sum(map(len, outcomes_of(engine, wanted, images, cores(), watches)))
        return done / (time.perf_counter() - started)

    return measure
