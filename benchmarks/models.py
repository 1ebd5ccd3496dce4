"""The compiled models that several parts measure: ResNeSt-50 with random weights, in a scratch folder."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ResNeSt.convert import simplify
from ResNeSt.convert.conversion import Conversion, convert
from ResNeSt.export.to_onnx import export
from ResNeSt.images.preprocess import preprocess
from ResNeSt.models.cards import card
from ResNeSt.models.model_info import format_of

MODEL = card("resnest50")


def make_tensors(images: Path, target: Path) -> Path:
    """float32 tensors of stage 1."""
    preprocess(images, target, format_of(MODEL, "float32"))
    return target


def make_onnx(folder: Path, form: str) -> Path:
    """`folder`/m.onnx, exported in `form` with random weights, and m_sim.onnx beside it."""
    folder.mkdir(exist_ok=True)
    export(MODEL, None, folder / "m.onnx", MODEL.size, form=form)
    simplify.simplify(folder / "m.onnx", folder / "m_sim.onnx")
    return folder / "m.onnx"


def compile_model(
    onnx: Path, batches: tuple[int, ...], precision: str, tensors: Path, dtype: str = "float32"
) -> dict[int, Path]:
    """Models for `batches` in a folder beside `onnx`, by batch size."""
    folder = onnx.parent / f"{precision}_{dtype}"
    conversion = Conversion(onnx, batches, "cpu", folder, dtype, precision)
    if precision == "int8":
        # Random weights make logits nearly equal, so agreement is not what is judged here.
        conversion = dataclasses.replace(conversion, calibration=tensors, min_agreement=0)
    return {compiled.batch: compiled.path for compiled in convert(conversion, print)}
