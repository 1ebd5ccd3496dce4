"""ncnn on one core beside ONNX Runtime and OpenVINO on one core: images/s of one image at a time, and sizes.

All run the same simplified network, with random weights, since speed does not depend on them.
"""

from __future__ import annotations

import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from benchmarks.inference import rate
from benchmarks.rounds import interleave, report
from ResNeSt.common.cores import use_cores
from ResNeSt.convert import simplify
from ResNeSt.convert.conversion import Conversion, convert
from ResNeSt.engines.opening import open_engine
from ResNeSt.export.to_onnx import export
from ResNeSt.models.cards import card
from ResNeSt.models.files import model_files

NETWORKS = ("resnest50", "resnest50_fast_1s1x64d")
COMPILED = {"ncnn, fp32": ("ncnn", "fp32"), "ncnn, fp16": ("ncnn", "fp16"), "OpenVINO, fp32": ("cpu", "fp32")}


def measure(rounds: int, output: Path) -> None:
    """Prints and writes a table of every network."""
    for name in NETWORKS:
        with tempfile.TemporaryDirectory() as scratch:
            models = _make(Path(scratch), name)
            sizes = {who: sum(file.stat().st_size for file in model_files(path)) for who, path in models.items()}
            # A process of its own, since it stays on its core.
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), use_cores, (1,)) as pool:
                rates = pool.submit(_rates, models, rounds).result()
            rows = [[who, f"{sizes[who] / 1e6:.1f}", f"{rates[who]:.2f}"] for who in models]
            report(output, f"edge-{name}", [f"{name}, one core", "MB", "images/s"], rows)


def _make(folder: Path, name: str) -> dict[str, Path]:
    onnx, simplified = folder / f"{name}.onnx", folder / f"{name}_sim.onnx"
    export(card(name), None, onnx)
    simplify.simplify(onnx, simplified)
    models = {}
    for who, (chip, precision) in COMPILED.items():
        (model,) = convert(Conversion(simplified, [1], chip, folder / chip / precision, precision=precision))
        models[who] = model.path
    return {**models, "ONNX Runtime, fp32": simplified}


def _rates(models: dict[str, Path], rounds: int) -> dict[str, float]:
    return interleave({who: rate(open_engine(path)) for who, path in models.items()}, rounds)
