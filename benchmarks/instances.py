"""Images/s of ResNeSt-50 by instances side by side, beside OpenVINO's benchmark_app with as many streams.

bench.sh's speed runs and evaluate, without its start, at batch 1 and 8; `auto` is as many as the runtime finds best.
benchmark_app comes with OpenVINO, and takes the same file in the same precision. Weights are random.
"""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.end_to_end import steady
from benchmarks.models import compile_model, make_onnx, make_tensors
from benchmarks.rounds import interleave, report
from ResNeSt.bench.benchmark import Benchmark, bench
from ResNeSt.common.errors import PipelineError
from ResNeSt.engines.opening import open_engine
from ResNeSt.engines.openvino import PRECISION_HINTS
from ResNeSt.images.listing import find_images

BATCHES = (1, 8)
INSTANCES = (1, 2, None)  # None: auto
PRECISIONS = ("int8",)
SECONDS = 2  # of a speed run
PEER = "import sys; from openvino.tools.benchmark.main import main; sys.exit(main())"
HEAD = ["images/s", "bench.sh", "benchmark_app", "ratio", "evaluate"]


def measure(images: Path, rounds: int, output: Path) -> None:
    """Prints and writes the table."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        tensors = make_tensors(images, scratch / "tensors")
        onnx = make_onnx(scratch / "deploy", "deploy")
        models = {precision: compile_model(onnx, BATCHES, precision, tensors) for precision in PRECISIONS}
        report(output, "instances-resnest50", HEAD, compare(models, find_images(images), scratch, rounds))


def compare(models: Mapping[str, Mapping[int, Path]], images: list[str], scratch: Path, rounds: int) -> list[list[str]]:
    """A row for each of `models`, by precision and batch size, and each number of instances."""
    rows, contenders = [], dict[str, Callable[[], float]]()
    for (precision, sizes), batch, instances in itertools.product(models.items(), BATCHES, INSTANCES):
        row = f"{precision}, batch {batch}, instances {instances or 'auto'}"
        rows.append(row)
        contenders[f"{row} ours"] = _bench(sizes[batch], batch, instances, scratch)
        contenders[f"{row} peer"] = _benchmark_app(sizes[batch], precision, instances)
        contenders[f"{row} evaluate"] = steady(open_engine(sizes[batch], instances=instances), images)
    rates = interleave(contenders, rounds)
    return [_cells(row, *(rates[f"{row} {who}"] for who in ("ours", "peer", "evaluate"))) for row in rows]


def _cells(row: str, ours: float, peer: float, evaluate: float) -> list[str]:
    return [row, f"{ours:.1f}", f"{peer:.1f}", f"{ours / peer:.2f}", f"{evaluate:.1f}"]


def _bench(model: Path, batch: int, instances: int | None, scratch: Path) -> Callable[[], float]:
    prefix = str(model).removesuffix(f"_bs{batch}.xml")

    def measure() -> float:
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            asked = Benchmark([batch], "cpu", prefix, duration=SECONDS, instances=[instances], output=folder)
            return bench(asked).fastest.images_per_second

    return measure


def _benchmark_app(model: Path, precision: str, instances: int | None) -> Callable[[], float]:
    streams = ["-hint", "throughput"] if instances is None else ["-hint", "none", "-nstreams", str(instances)]
    flags = ["-m", str(model), "-d", "CPU", "-t", str(SECONDS), "-infer_precision", PRECISION_HINTS[precision]]

    def measure() -> float:
        done = subprocess.run([sys.executable, "-c", PEER, *flags, *streams], capture_output=True, text=True)
        found = re.search(r"Throughput: +([\d.]+) FPS", done.stdout)
        if done.returncode or found is None:
            raise PipelineError(f"{model}: benchmark_app ended with {done.returncode}: {done.stdout.strip()[-200:]}")
        return float(found[1])

    return measure
