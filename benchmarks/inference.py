"""Images/s of ResNeSt-50 by batch size: this project's fp32, bf16 and int8 beside PyTorch, ONNX Runtime and OpenVINO.

Peers get the textbook export (`--form reference`), simplified; OpenVINO runs it in fp32, in bf16, and quantized by NNCF
at its defaults, with bf16 for the rest. Weights are random, since speed does not depend on them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.rounds import interleave, report
from ResNeSt import convert, quantize, simplify
from ResNeSt.cards import card
from ResNeSt.engines import Engine, open_engine
from ResNeSt.errors import run
from ResNeSt.export import FORMS, export
from ResNeSt.metadata import SECTION
from ResNeSt.models import create_model
from ResNeSt.tensors import list_tensors

MODEL = card("resnest50")
PRECISIONS = ("fp32", "bf16", "int8")
SECONDS = 1.0  # of one round of one contender, at least


def main() -> None:
    """Builds every contender, measures them in turn, prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tensors", type=Path, required=True, metavar="DIR", help="float32 tensors of stage 1, 224")
    parser.add_argument("--batches", default="1,4,8,16", help="[%(default)s]")
    parser.add_argument("--rounds", type=int, default=5, help="[%(default)s]")
    options = parser.parse_args()
    batches = convert.parse_batches(options.batches)
    with tempfile.TemporaryDirectory() as scratch:
        folders = {form: _compile(form, Path(scratch), options.tensors, batches) for form in FORMS}
        _quantize_by_nncf(folders["reference"], options.tensors, batches)
        medians = {f"batch {batch}": interleave(_contenders(folders, batch), options.rounds) for batch in batches}
    report("inference-resnest50", "images/s", medians)


def _compile(form: str, scratch: Path, tensors: Path, batches: list[int]) -> Path:
    """A folder of this form's models: fp32, bf16 and int8 in sub-folders, a file per batch size."""
    folder = scratch / form
    folder.mkdir()
    export(MODEL, None, folder / "m.onnx", MODEL.size, form=form)
    simplify.simplify(folder / "m.onnx", folder / "m_sim.onnx")
    sizes = ",".join(map(str, batches))
    for precision in PRECISIONS:
        # Random weights make logits nearly equal, so agreement is not what is judged here.
        flags = [f"--calibration={tensors}", "--min-agreement=0"] if precision == "int8" else []
        target = f"--output-dir={folder / precision}"
        convert.main([sizes, "cpu", f"--onnx={folder / 'm.onnx'}", target, f"--precision={precision}", *flags])
    return folder


def _quantize_by_nncf(folder: Path, tensors: Path, batches: list[int]) -> None:
    """NNCF on the OpenVINO model, at its defaults."""
    import nncf
    import openvino

    model = openvino.Core().read_model(folder / "m_sim.onnx")
    model.reshape([1, 3, MODEL.size, MODEL.size])
    files = [tensors / name for name in list_tensors(tensors)[: quantize.CALIBRATED]]
    images = nncf.Dataset(files, lambda path: np.fromfile(path, np.float32).reshape(1, 3, MODEL.size, MODEL.size))
    quantized = nncf.quantize(model, images)
    quantized.set_rt_info("int8", [SECTION, "precision"])
    for batch in batches:
        quantized.reshape([batch, 3, MODEL.size, MODEL.size])
        openvino.save_model(quantized, folder / f"nncf_bs{batch}.xml", compress_to_fp16=False)


def _contenders(folders: dict[str, Path], batch: int) -> dict[str, Callable[[], float]]:
    textbook, deploy = folders["reference"], folders["deploy"]

    def compiled(folder: Path, precision: str) -> Callable[[], float]:
        return _rate(open_engine(folder / precision / f"m_bs{batch}.xml"))

    return {
        "PyTorch eager, fp32": _torch(batch),
        "ONNX Runtime, fp32": _rate(open_engine(textbook / "m_sim.onnx", "onnxruntime", batch)),
        "OpenVINO, fp32": compiled(textbook, "fp32"),
        "OpenVINO, bf16": compiled(textbook, "bf16"),
        "OpenVINO + NNCF, int8": _rate(open_engine(textbook / f"nncf_bs{batch}.xml")),
        "this project's int8 on the textbook form": compiled(textbook, "int8"),
        "this project, fp32": compiled(deploy, "fp32"),
        "this project, bf16": compiled(deploy, "bf16"),
        "this project, int8": compiled(deploy, "int8"),
    }


def _rate(engine: Engine) -> Callable[[], float]:
    images = np.random.default_rng(0).standard_normal(engine.input.shape).astype(np.float32)

    def measure() -> float:
        started, runs = time.perf_counter(), 0
        while time.perf_counter() - started < SECONDS:
            engine.run(images)
            runs += 1
        return runs * len(images) / (time.perf_counter() - started)

    return measure


def _torch(batch: int) -> Callable[[], float]:
    model = create_model(MODEL.name).eval()
    images = torch.zeros(batch, 3, MODEL.size, MODEL.size)

    def measure() -> float:
        started, runs = time.perf_counter(), 0
        with torch.inference_mode():
            while time.perf_counter() - started < SECONDS:
                model(images)
                runs += 1
        return runs * batch / (time.perf_counter() - started)

    return measure


if __name__ == "__main__":
    run(main)
