"""The compiled models that several parts measure: ResNeSt-50 with random weights, in a scratch folder."""

from __future__ import annotations

from pathlib import Path

from ResNeSt import convert, simplify
from ResNeSt.cards import card
from ResNeSt.export import export
from ResNeSt.preprocess import preprocess
from ResNeSt.tensors import TensorFormat

MODEL = card("resnest50")


def make_tensors(images: Path, target: Path) -> Path:
    """float32 tensors of stage 1."""
    preprocess(images, target, TensorFormat(MODEL.recipe, MODEL.size, "float32", MODEL.mean, MODEL.std))
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
    # Random weights make logits nearly equal, so agreement is not what is judged here.
    flags = [f"--calibration={tensors}", "--min-agreement=0"] if precision == "int8" else []
    sizes = ",".join(map(str, batches))
    target = f"--output-dir={folder}"
    convert.main([sizes, "cpu", f"--onnx={onnx}", target, f"--dtype={dtype}", f"--precision={precision}", *flags])
    return {batch: folder / f"{onnx.stem}_bs{batch}.xml" for batch in batches}
