"""int8 on cpu: quantized by calibration, judged on tensors it has not seen."""

from __future__ import annotations

import collections
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from ResNeSt.common.errors import PipelineError
from ResNeSt.convert import calibration
from ResNeSt.models import onnx_file
from tests.conftest import PROJECT, Completed, assert_refused, call

INT8 = ("--precision=int8", "--calibration=prep")


@pytest.fixture(scope="module")
def work(demo_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo, exported, preprocessed and compiled in int8 for batches 1 and 8."""
    folder = tmp_path_factory.mktemp("int8")
    shutil.copy(demo_onnx, folder / "m.onnx")
    assert call("resnest_preprocess.py", PROJECT / "demo/val", folder / "prep", "--model=resnest_demo").returncode == 0
    result = convert(folder, "1,8", *INT8)
    assert result.returncode == 0, result.stderr
    (folder / "printed").write_text(result.stdout)
    return folder


def convert(folder: Path, batches: str, *flags: str) -> Completed:
    return call("convert.sh", batches, "cpu", "--onnx=m.onnx", *flags, cwd=folder)


def accuracy(folder: Path, *flags: str) -> list[dict[str, Any]]:
    labels = f"--labels={PROJECT / 'demo/val_label.txt'}"
    result = call("bench.sh", "1,8", "cpu", "--model=m", "--input=prep", labels, "--loop=3", *flags, cwd=folder)
    assert result.returncode == 0, result.stderr
    rows: list[dict[str, Any]] = json.loads((folder / "bench/bench.json").read_text())["rows"]
    return rows


def test_the_int8_model_keeps_the_accuracy_within_half_a_point(work: Path) -> None:
    expected = json.loads((PROJECT / "demo/expected.json").read_text())["top1"]
    for row in accuracy(work):
        assert abs(row["top1"] - 100 * expected) <= 0.5


def test_the_quantized_onnx_runs_in_onnx_runtime_at_any_batch_and_agrees_with_fp32(work: Path) -> None:
    paths = sorted((work / "prep").glob("*.bin"))[:40]
    images = np.stack([np.fromfile(path, np.float32).reshape(3, 96, 96) for path in paths])
    found, expected = (
        onnxruntime.InferenceSession(work / name).run(None, {"actual_input_1": images})[0]
        for name in ("m_int8.onnx", "m.onnx")
    )
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).mean() >= 0.95
    assert not np.array_equal(found, expected)


def test_weights_are_int8_per_channel_and_the_attention_stays_in_floating_point(work: Path) -> None:
    model = onnx.load(work / "m_int8.onnx")
    constants = {value.name: onnx.numpy_helper.to_array(value) for value in model.graph.initializer}
    quantized = {
        node.output[0]: constants[node.input[0]]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in constants
    }
    scales = {node.input[0]: constants[node.input[1]] for node in model.graph.node if node.input[0] in constants}
    kinds: collections.Counter[tuple[str, bool]] = collections.Counter()
    for node in model.graph.node:
        if node.op_type == "Conv":
            kinds["attention" if "/weigh/" in node.name else "other", node.input[1] in quantized] += 1
    assert set(kinds) == {("attention", False), ("other", True)}
    assert {value.dtype for value in quantized.values()} == {np.dtype(np.int8)}
    assert any(scale.size > 1 for scale in scales.values())


def test_the_file_says_how_it_was_made(work: Path) -> None:
    found = {entry.key: entry.value for entry in onnx.load(work / "m_int8.onnx").metadata_props}
    assert found["resnest.quantized"].startswith("m_sim.onnx sha256:")
    assert re.fullmatch("128 tensors of prep sha256:[0-9a-f]{64}", found["resnest.calibration"])
    assert found["resnest.model"] == "resnest_demo"


def test_each_compile_says_how_near_it_is_to_fp32_on_tensors_not_calibrated_with(work: Path) -> None:
    lines = [line for line in (work / "printed").read_text().splitlines() if "held-out" in line]
    assert [line.split(":")[0] for line in lines] == ["m_bs1.xml", "m_bs8.xml"]
    assert all("64 held-out tensors" in line and "cosine 0.99" in line for line in lines)


def test_calibration_and_gate_share_no_tensor(work: Path) -> None:
    chosen = calibration.choose(work / "prep", onnx_file.read(work / "m_sim.onnx"))
    assert (len(chosen.calibration), len(chosen.held_out)) == (128, 64)
    assert not set(chosen.calibration) & set(chosen.held_out)


def test_a_model_too_far_from_fp32_is_not_written_and_the_worst_layers_are_named(work: Path, tmp_path: Path) -> None:
    for name in ("m.onnx", "m_sim.onnx"):
        shutil.copy(work / name, tmp_path / name)
    (tmp_path / "prep").symlink_to(work / "prep")
    result = convert(tmp_path, "8", *INT8, "--min-agreement=1.01")
    assert_refused(result, "m_bs8.xml: not written", "--min-agreement is 1.01", "furthest off: /layer")
    assert not (tmp_path / "m_bs8.xml").exists()


def test_what_is_up_to_date_is_neither_quantized_nor_compiled_again(work: Path) -> None:
    before = (work / "m_int8.onnx").stat().st_mtime_ns
    assert convert(work, "1,8", *INT8).stdout.splitlines() == ["m_bs1.xml: up to date", "m_bs8.xml: up to date"]
    assert (work / "m_int8.onnx").stat().st_mtime_ns == before


def test_uint8_tensors_give_the_answers_of_float32_tensors_in_int8(work: Path, tmp_path: Path) -> None:
    for name in ("m.onnx", "m_sim.onnx", "m_int8.onnx"):
        shutil.copy(work / name, tmp_path / name)
    (tmp_path / "prep").symlink_to(work / "prep")
    result = convert(tmp_path, "8", *INT8, "--dtype=uint8")
    assert result.returncode == 0, result.stderr
    assert "top-1 as fp32 for 100.0 %" in result.stdout


def test_bf16_passes_the_same_gate_when_it_is_given_tensors(work: Path, tmp_path: Path) -> None:
    for name in ("m.onnx", "m_sim.onnx"):
        shutil.copy(work / name, tmp_path / name)
    (tmp_path / "prep").symlink_to(work / "prep")
    assert "held-out tensors" in convert(tmp_path, "8", "--precision=bf16", "--calibration=prep").stdout


def test_a_model_that_was_never_judged_or_passed_a_lower_bar_is_judged_before_it_counts_as_up_to_date(
    work: Path, tmp_path: Path
) -> None:
    for name in ("m.onnx", "m_sim.onnx"):
        shutil.copy(work / name, tmp_path / name)
    (tmp_path / "prep").symlink_to(work / "prep")
    assert "held-out" not in convert(tmp_path, "8").stdout
    assert "64 held-out tensors" in convert(tmp_path, "8", "--calibration=prep").stdout
    assert convert(tmp_path, "8", "--calibration=prep").stdout == "m_bs8.xml: up to date\n"
    assert_refused(convert(tmp_path, "8", "--calibration=prep", "--min-agreement=1.01"), "--min-agreement is 1.01")


def test_a_model_that_just_reaches_the_bar_passes_now_and_later(work: Path, tmp_path: Path) -> None:
    """fp32 agrees with itself on every tensor: 1 is reached, and not passed."""
    flags = ("--calibration=prep", "--min-agreement=1", f"--output-dir={tmp_path}")
    assert "top-1 as fp32 for 100.0 %" in convert(work, "8", *flags).stdout
    assert "m_bs8.xml: up to date" in convert(work, "8", *flags).stdout


def test_a_bar_without_anything_to_judge_by_is_refused(work: Path) -> None:
    assert_refused(convert(work, "8", "--min-agreement=0.9"), "--min-agreement takes --calibration", code=2)


def test_other_tensors_under_the_same_name_quantize_anew(work: Path, tmp_path: Path) -> None:
    for name in ("m.onnx", "m_sim.onnx", "m_int8.onnx"):
        shutil.copy(work / name, tmp_path / name)
    shutil.copytree(work / "prep", tmp_path / "prep")
    chosen = calibration.choose(tmp_path / "prep", onnx_file.read(work / "m_sim.onnx"))
    shutil.copy(chosen.held_out[0].path, chosen.calibration[0].path)
    assert "m_int8.onnx: quantized from m_sim.onnx" in convert(tmp_path, "8", *INT8).stdout


def test_int8_without_tensors_is_refused(work: Path) -> None:
    assert_refused(convert(work, "1", "--precision=int8"), "--calibration DIR", code=2)


def test_tensors_of_another_size_or_too_few_are_refused(work: Path, images: Path, tmp_path: Path) -> None:
    call("resnest_preprocess.py", images, tmp_path / "large", "--model=resnest50")
    found = onnx_file.read(work / "m_sim.onnx")
    with pytest.raises(PipelineError, match=r"tensors of shape \[3, 224, 224\], the model takes float32 \[3, 96, 96\]"):
        calibration.choose(tmp_path / "large", found)
    (tmp_path / "few").mkdir()
    with pytest.raises(PipelineError, match="0 tensors, calibration takes 12"):
        calibration.choose(tmp_path / "few", found)


def test_layers_names_the_ten_worst_of_the_int8_graph_which_does_not_part_from_fp32(work: Path) -> None:
    result = call("-m", "ResNeSt.compare", "--layers", "m_sim.onnx", "m_int8.onnx", "--input=prep", cwd=work)
    assert result.returncode == 0, result.stderr
    assert sum(line.startswith("/") for line in result.stdout.splitlines()) == 10
    assert "the graphs do not part" in result.stdout
