"""A fp32 model for cpu is fp32 in every OpenVINO program, asked for or not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ResNeSt.convert import full_precision
from ResNeSt.convert.conversion import Conversion, convert
from ResNeSt.convert.openvino_ir import has_bf16

pytest.importorskip("onnxsim")
openvino = pytest.importorskip("openvino")


def compiled(onnx: Path, folder: Path, dtype: str, precision: str = "fp32") -> Path:
    folder.mkdir()
    (model,) = convert(Conversion(onnx, [2], "cpu", folder, dtype, precision))
    return model.path


def run(path: Path, images: np.ndarray, **hints: str) -> tuple[np.ndarray, list[str]]:
    """Logits, and the nodes that compute in bfloat16, in a program that gives these hints."""
    model = openvino.Core().compile_model(path, "CPU", hints)
    nodes = [(node.get_friendly_name(), node.get_rt_info()) for node in model.get_runtime_model().get_ops()]
    kinds = ("runtimePrecision", "outputPrecisions")
    return model(images)[0], [name for name, info in nodes if any("bf16" in info[kind].astype(str) for kind in kinds)]


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_a_program_that_asks_for_nothing_computes_a_fp32_model_in_fp32(
    dtype: str, demo_onnx: Path, tmp_path: Path
) -> None:
    if not has_bf16():
        pytest.skip("a CPU without bfloat16 computes in fp32 anyway")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3), np.uint8)
    images: Any = pixels if dtype == "uint8" else pixels.transpose(0, 3, 1, 2).astype(np.float32) / 64 - 2
    path = compiled(demo_onnx, tmp_path / "fp32", dtype)
    logits, lower = run(path, images)
    assert lower == []
    np.testing.assert_array_equal(logits, run(path, images, INFERENCE_PRECISION_HINT="f32")[0])
    other, lower = run(compiled(demo_onnx, tmp_path / "bf16", dtype, "bf16"), images)
    assert len(lower) > 20
    assert np.abs(other - logits).max() > 1e-3 * np.abs(logits).max()


def test_every_node_of_a_fp32_model_forbids_less_and_none_of_another(demo_onnx: Path, tmp_path: Path) -> None:
    text = compiled(demo_onnx, tmp_path / "fp32", "uint8").read_text()
    assert len(re.findall('<attribute name="precise" version="0" ?/>', text)) == text.count("<layer ") > 100
    if has_bf16():
        assert 'name="precise"' not in compiled(demo_onnx, tmp_path / "bf16", "uint8", "bf16").read_text()


@pytest.mark.parametrize("transposed", [True, False])
def test_what_is_written_otherwise_computes_the_same(transposed: bool) -> None:
    """Against NumPy: the classifier, the pooling, and images normalised in the model."""
    operators, random = openvino.opset13, np.random.default_rng(0)
    images = random.integers(0, 256, (3, 2, 6, 6)).astype(np.float32)
    mean, scale = random.random((1, 2, 1, 1), np.float32), random.random((1, 2, 1, 1), np.float32)
    weights = random.standard_normal((5, 18)).astype(np.float32)
    source = operators.parameter([-1, 2, 6, 6], np.float32)
    normal = operators.multiply(operators.subtract(source, mean), scale)
    pooled = operators.max_pool(normal, [2, 2], [1, 1], [0, 0], [0, 0], [2, 2]).output(0)
    flat = operators.reshape(pooled, np.array([-1, 18], np.int64), False)
    logits = operators.matmul(flat, weights if transposed else weights.T.copy(), False, transposed)
    model = openvino.Model([logits], [source])
    full_precision.rewrite(openvino, model)
    kinds = [node.get_type_name() for node in model.get_ops()]
    assert not {"MatMul", "Subtract"} & set(kinds)
    assert [node.get_type_info().version_id for node in model.get_ops() if node.get_type_name() == "MaxPool"] == [
        "opset1"
    ]
    found = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(images)[0]
    values = (images.astype(np.float64) - mean) * scale
    largest = values.reshape(3, 2, 3, 2, 3, 2).max(axis=(3, 5)).reshape(3, 18)
    np.testing.assert_allclose(found, largest @ weights.T, rtol=1e-4, atol=1e-3)
