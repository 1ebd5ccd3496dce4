"""Images/s of ResNeSt-50 by batch size: this project's fp32, bf16 and int8 beside PyTorch, ONNX Runtime and OpenVINO.

Peers get the textbook export (`--form reference`), simplified; OpenVINO runs it in fp32, in bf16, and quantized by NNCF
at its defaults, with bf16 for the rest. Weights are random, since speed does not depend on them. A second table holds
the best batch of each precision against the machine's matrix product.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks import matrix_product
from benchmarks.models import MODEL, compile_model, make_onnx, make_tensors
from benchmarks.rounds import interleave, repeated, report
from ResNeSt.convert import calibration
from ResNeSt.engines.engine import Engine
from ResNeSt.engines.opening import open_engine
from ResNeSt.export.to_onnx import FORMS
from ResNeSt.models.model_info import SECTION
from ResNeSt.models.resnest import create_model
from ResNeSt.tensors.folder import find_tensors, read_tensor

PRECISIONS = ("fp32", "bf16", "int8")
BATCHES = (1, 4, 8, 16)


def measure(images: Path, rounds: int, output: Path) -> None:
    """Builds every contender, measures them in turn, prints and writes the tables."""
    with tempfile.TemporaryDirectory() as scratch:
        tensors = make_tensors(images, Path(scratch, "tensors"))
        onnx = {form: make_onnx(Path(scratch, form), form) for form in FORMS}
        compiled = {
            form: {precision: compile_model(onnx[form], BATCHES, precision, tensors) for precision in PRECISIONS}
            for form in FORMS
        }
        _quantize_by_nncf(onnx["reference"].parent, tensors)
        rates = {batch: interleave(_contenders(onnx["reference"].parent, compiled, batch), rounds) for batch in BATCHES}
        who = list(rates[BATCHES[0]])
        rows = [[name, *(f"{rates[batch][name]:.1f}" for batch in BATCHES)] for name in who]
        report(output, "inference-resnest50", ["images/s", *(f"batch {batch}" for batch in BATCHES)], rows)
        _report_peaks(compiled["deploy"], rounds, output)


def _quantize_by_nncf(folder: Path, tensors: Path) -> None:
    """NNCF on the OpenVINO model, at its defaults."""
    import nncf
    import openvino

    model = openvino.Core().read_model(folder / "m_sim.onnx")
    model.reshape([1, 3, MODEL.size, MODEL.size])
    shape = (3, MODEL.size, MODEL.size)
    files = find_tensors(tensors)[: calibration.CALIBRATED]
    images = nncf.Dataset(files, lambda file: read_tensor(file, shape, "float32")[None])
    quantized = nncf.quantize(model, images)
    quantized.set_rt_info("int8", [SECTION, "precision"])
    for batch in BATCHES:
        quantized.reshape([batch, 3, MODEL.size, MODEL.size])
        openvino.save_model(quantized, folder / f"nncf_bs{batch}.xml", compress_to_fp16=False)


def _contenders(
    textbook: Path, compiled: dict[str, dict[str, dict[int, Path]]], batch: int
) -> dict[str, Callable[[], float]]:
    def compiled_in(form: str, precision: str) -> Callable[[], float]:
        return rate(open_engine(compiled[form][precision][batch]))

    return {
        "PyTorch eager, fp32": _torch(batch),
        "ONNX Runtime, fp32": rate(open_engine(textbook / "m_sim.onnx", "onnxruntime", batch)),
        "OpenVINO, fp32": compiled_in("reference", "fp32"),
        "OpenVINO, bf16": compiled_in("reference", "bf16"),
        "OpenVINO + NNCF, int8": rate(open_engine(textbook / f"nncf_bs{batch}.xml")),
        "this project's int8 on the textbook form": compiled_in("reference", "int8"),
        "this project, fp32": compiled_in("deploy", "fp32"),
        "this project, bf16": compiled_in("deploy", "bf16"),
        "this project, int8": compiled_in("deploy", "int8"),
    }


def rate(engine: Engine) -> Callable[[], float]:
    """A contender: images/s of `engine` on random images."""
    images = np.random.default_rng(0).standard_normal(engine.input.shape).astype(np.float32)
    return repeated(lambda: engine.run(images), len(images))


def _torch(batch: int) -> Callable[[], float]:
    model = create_model(MODEL.name).eval()
    images = torch.zeros(batch, 3, MODEL.size, MODEL.size)
    return repeated(torch.inference_mode()(lambda: model(images)), batch)


def _report_peaks(compiled: dict[str, dict[int, Path]], rounds: int, output: Path) -> None:
    """Multiply-adds/s of the largest batch beside those of the best matrix product, in turns."""
    cost = multiply_adds() / 1e9
    rows, rates = [], {}
    for precision, products in matrix_product.contenders().items():
        engine = open_engine(compiled[precision][BATCHES[-1]])
        rates = interleave({**products, "network": rate(engine)}, rounds)
        reached, peak = cost * rates.pop("network"), max(rates.values())
        rows.append([precision, *(f"{rate:.0f}" for rate in (*rates.values(), reached)), f"{reached / peak:.2f}"])
    products_head = [f"matrix product, {library}" for library in rates]
    head = ["G multiply-adds/s", *products_head, f"this project, batch {BATCHES[-1]}", "of the best product"]
    report(output, "matrix-product", head, rows)


def multiply_adds() -> int:
    """Of all convolutions and the classifier, for one image, counted while the textbook network runs."""
    model = create_model(MODEL.name).eval()
    total = 0

    def count(layer: torch.nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal total
        total += output[0].numel() * layer.weight[0].numel()  # type: ignore[index]

    for layer in model.modules():
        if isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear)):
            layer.register_forward_hook(count)
    with torch.inference_mode():
        model(torch.zeros(1, 3, MODEL.size, MODEL.size))
    return total
