"""Images/s of ResNeSt-50 as MLPerf's LoadGen measures them, Offline and SingleStream, beside a pure loop on one batch.

Offline runs batches of 16, SingleStream an image at a time; a run takes ten seconds. Weights are random.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.inference import PRECISIONS, rate
from benchmarks.models import compile_model, make_onnx, make_tensors
from benchmarks.peers import available
from benchmarks.rounds import interleave, report
from ResNeSt.engines.image_batches import ModelChoice
from ResNeSt.engines.opening import open_engine
from ResNeSt.loadgen.load_test import load_test
from ResNeSt.loadgen.settings import LoadTest

BATCHES = {"Offline": 16, "SingleStream": 1}
SECONDS = 10.0


def measure(images: Path, rounds: int, output: Path) -> None:
    """Prints and writes the table, where LoadGen is installed."""
    if not available("LoadGen", "mlperf_loadgen"):
        return
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        tensors = make_tensors(images, scratch / "tensors")
        onnx = make_onnx(scratch / "deploy", "deploy")
        models = {
            precision: compile_model(onnx, tuple(BATCHES.values()), precision, tensors) for precision in PRECISIONS
        }
        rows = compare(models, tensors, scratch, rounds, SECONDS)
        report(output, "loadgen-resnest50", ["images/s", "LoadGen", "pure loop", "ratio"], rows)


def compare(
    models: Mapping[str, Mapping[int, Path]], tensors: Path, scratch: Path, rounds: int, seconds: float
) -> list[list[str]]:
    """A row for each of `models`, by name and batch size, in each scenario."""
    contenders: dict[str, Callable[[], float]] = {}
    for (name, sizes), (scenario, batch) in itertools.product(models.items(), BATCHES.items()):
        row = f"{scenario}, {name}, batch {batch}"
        contenders[f"{row} LoadGen"] = _driven(sizes[batch], scenario, tensors, scratch, seconds)
        contenders[f"{row} loop"] = rate(open_engine(sizes[batch]))
    rates = interleave(contenders, rounds)
    rows = [label.removesuffix(" loop") for label in rates if label.endswith(" loop")]
    figures = [(rates[f"{row} LoadGen"], rates[f"{row} loop"]) for row in rows]
    return [[row, f"{ours:.1f}", f"{loop:.1f}", f"{ours / loop:.2f}"] for row, (ours, loop) in zip(rows, figures)]


def _driven(model: Path, scenario: str, tensors: Path, scratch: Path, seconds: float) -> Callable[[], float]:
    def measure() -> float:
        with tempfile.TemporaryDirectory(dir=scratch) as logs:
            asked = LoadTest(ModelChoice(model), scenario, tensors=tensors, output=logs, duration=seconds)
            return load_test(asked).rate or 0.0

    return measure
