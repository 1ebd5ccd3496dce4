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


@pytest.mark.parametrize(
    ("dtype", "sizes"), [("float32", [2]), ("uint8", [2]), ("uint8", [1, 3]), ("yuv420sp", [2]), ("yuv420sp", [1, 3])]
)
def test_a_program_that_asks_for_nothing_computes_a_fp32_model_in_fp32(
    dtype: str, sizes: list[int], demo_onnx: Path, tmp_path: Path
) -> None:
    if not has_bf16():
        pytest.skip("a CPU without bfloat16 computes in fp32 anyway")
    asked = Conversion(demo_onnx, sizes, "cpu", tmp_path, dtype, dynamic_batch=len(sizes) > 1)
    (model,) = convert(asked)
    images = some_images(dtype)
    logits, lower = run(model.path, images)
    assert lower == []
    np.testing.assert_array_equal(logits, run(model.path, images, INFERENCE_PRECISION_HINT="f32")[0])


def some_images(dtype: str) -> Any:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3), np.uint8)
    if dtype == "yuv420sp":
        return pixels[..., 0].repeat(3, axis=1)[:, ::2]
    return pixels if dtype == "uint8" else pixels.transpose(0, 3, 1, 2).astype(np.float32) / 64 - 2


def test_a_model_of_bf16_computes_in_it(demo_onnx: Path, tmp_path: Path) -> None:
    if not has_bf16():
        pytest.skip("a CPU without bfloat16 computes in fp32 anyway")
    _, lower = run(compiled(demo_onnx, tmp_path / "bf16", "uint8", "bf16"), some_images("uint8"))
    assert len(lower) > 20


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
    logits.output(0).set_names({"logits"})
    model = openvino.Model(
        [logits, operators.softmax(operators.subtract(logits, operators.relu(logits)), -1)], [source]
    )
    full_precision.rewrite(openvino, model)
    assert model.output(0).names == {"logits"}
    kinds = {node.get_type_name(): node.get_type_info().version_id for node in model.get_ops()}
    assert not {"MatMul", "Subtract"} & set(kinds)
    assert (kinds["MaxPool"], kinds["Softmax"]) == ("opset1", "opset1")
    found = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(images)
    values = (images.astype(np.float64) - mean) * scale
    largest = values.reshape(3, 2, 3, 2, 3, 2).max(axis=(3, 5)).reshape(3, 18)
    expected = largest @ weights.T
    np.testing.assert_allclose(found[0], expected, rtol=1e-4, atol=1e-3)
    powers = np.exp(np.minimum(expected, 0))
    np.testing.assert_allclose(found[1], powers / powers.sum(axis=1, keepdims=True), rtol=1e-3, atol=1e-3)
