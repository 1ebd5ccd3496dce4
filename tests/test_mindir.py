"""MINDIR: MindSpore runs the exported file to ONNX Runtime's answers, or there is no file."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PROJECT, assert_refused, call
from tests.test_dependencies import pins

onnx = pytest.importorskip("onnx")


def export_with_mindspore(onnx_file: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """`python -m ResNeSt.mindir` by a Python that has MindSpore, which is rarely the one that runs the tests."""
    python = os.environ.get("MINDSPORE_PYTHON", sys.executable)
    if "MINDSPORE_PYTHON" not in os.environ and importlib.util.find_spec("mindspore") is None:
        pytest.skip("mindspore is not installed here; MINDSPORE_PYTHON may name a Python that has it")
    command = [python, "-m", "ResNeSt.mindir", f"--onnx={onnx_file}", *map(str, arguments)]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)


@pytest.mark.heavy
@pytest.mark.parametrize("batch", [[], ["--batch=4"]])
def test_mindspore_gives_onnx_runtime_s_logits_from_the_exported_file(
    batch: list[str], demo_onnx: Path, tmp_path: Path
) -> None:
    result = export_with_mindspore(demo_onnx, f"--target={tmp_path / 'd.mindir'}", *batch)
    assert result.returncode == 0, result.stderr
    assert float(result.stdout.split("differs from ONNX Runtime by ")[1].split()[0]) <= 1e-4
    assert [path.name for path in tmp_path.iterdir()] == ["d.mindir"]


@pytest.mark.heavy
def test_an_operator_that_the_network_does_not_have_is_refused_by_name(demo_onnx: Path, tmp_path: Path) -> None:
    model = onnx.load(demo_onnx)
    node = next(node for node in model.graph.node if node.op_type == "Sigmoid")
    node.op_type = "Tanh"
    onnx.save(model, tmp_path / "tanh.onnx")
    result = export_with_mindspore(tmp_path / "tanh.onnx")
    assert_refused(result, "tanh.onnx: node", node.name, "(Tanh) has no counterpart")
    assert not (tmp_path / "tanh.mindir").exists()


@pytest.mark.heavy
def test_a_file_that_differs_is_not_written(demo_onnx: Path, tmp_path: Path) -> None:
    model = onnx.load(demo_onnx)
    bias = next(value for value in model.graph.initializer if value.name == "fc.bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) * float("nan"), bias.name))
    onnx.save(model, tmp_path / "nan.onnx")
    result = export_with_mindspore(tmp_path / "nan.onnx")
    assert_refused(result, "nan.mindir: not written", "not finite")
    assert [path.name for path in tmp_path.iterdir()] == ["nan.onnx"]


def test_without_mindspore_the_command_says_how_to_install_it(demo_onnx: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec("mindspore") is not None:
        pytest.skip("mindspore is installed here")
    result = call("-m", "ResNeSt.mindir", f"--onnx={demo_onnx}", f"--target={tmp_path / 'd.mindir'}")
    assert_refused(result, "MindSpore is not installed here", "pip install -r requirements/mindspore.txt", code=3)
    assert not list(tmp_path.iterdir())


def test_a_target_that_mindspore_would_not_load_is_refused(demo_onnx: Path, tmp_path: Path) -> None:
    result = call("-m", "ResNeSt.mindir", f"--onnx={demo_onnx}", f"--target={tmp_path / 'd.bin'}")
    assert_refused(result, "d.bin: MindSpore loads files that end in .mindir", code=2)


def test_the_module_needs_no_torch() -> None:
    check = "import sys, ResNeSt.mindir; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", check], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_what_both_environments_have_is_pinned_to_one_version() -> None:
    ours, theirs = pins("requirements.txt"), pins("requirements/mindspore.txt")
    assert {name: theirs[name] for name in ("onnx", "onnxruntime")} == {
        name: ours[name] for name in ("onnx", "onnxruntime")
    }
