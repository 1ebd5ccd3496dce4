"""int8 for an Ascend chip: AMCT, then ATC (by the stand-ins)."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ResNeSt.common.errors import ArgumentError, MissingRuntimeError, PipelineError
from ResNeSt.convert.conversion import Conversion, convert, plan
from ResNeSt.labels.file import read_labels
from tests.conftest import PROJECT, STANDINS, Command, Completed, assert_refused, call

onnx = pytest.importorskip("onnx")
DEPLOY = "m_int8_deploy_model.onnx"


@pytest.fixture(scope="module")
def source(demo_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """m.onnx, simplified, and the tensors of the demo's images in `prep`."""
    folder = tmp_path_factory.mktemp("source")
    shutil.copy(demo_onnx, folder / "m.onnx")
    for command in (
        ["resnest_preprocess.py", PROJECT / "demo/val", "prep", "--arch=resnest_demo"],
        ["convert.sh", "1", "cpu", "--onnx=m.onnx"],
    ):
        result = call(*command, cwd=folder)
        assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture
def folder(source: Path, tmp_path: Path) -> Path:
    """A working directory of the test's own."""
    for name in ("m.onnx", "m_sim.onnx"):
        shutil.copy2(source / name, tmp_path)
    (tmp_path / "prep").symlink_to(source / "prep")
    return tmp_path


@pytest.fixture
def int8(folder: Path, standins: dict[str, str]) -> Command:
    """Runs convert.sh for a 310P3 in int8."""

    def convert(*flags: str, batches: str = "4", env: dict[str, str] | None = None) -> Completed:
        arguments = [batches, "310P3", "--onnx=m.onnx", "--precision=int8", "--calibration=prep", *flags]
        return call("convert.sh", *arguments, cwd=folder, env=env or standins)

    return convert


def weights(path: Path) -> dict[str, np.ndarray]:
    """Of every convolution, by its node's name."""
    model = onnx.load(path)
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    return {node.name: values[node.input[1]] for node in model.graph.node if node.op_type == "Conv"}


def test_amct_calibrates_once_and_atc_compiles_its_model_for_every_batch_size(int8: Command, folder: Path) -> None:
    result = int8(batches="1,4")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("AMCT calibrates on 128 tensors") == 1
    assert (folder / "m_bs1.om").is_file()
    assert json.loads((folder / "m_bs4.om.json").read_text())["precision"] == "int8"
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_the_compiled_model_runs_the_calibrated_weights_and_keeps_the_accuracy(
    int8: Command, folder: Path, standins: dict[str, str]
) -> None:
    assert int8().returncode == 0
    labels = PROJECT / "demo/val_label.txt"
    flags = ["--model=m_bs4.om", "--images", PROJECT / "demo/val", f"--labels={labels}", "--json=score.json"]
    result = call("-m", "ResNeSt.evaluate", *flags, cwd=folder, env=standins)
    assert result.returncode == 0, result.stderr
    assert json.loads((folder / "score.json").read_text())["top1_acc"] > 0.98
    result = call(
        "-m", "ResNeSt.compare", "m.onnx", "m_bs4.om", "--tensors=prep", "--json=c.json", cwd=folder, env=standins
    )
    assert json.loads((folder / "c.json").read_text())["difference"] > 1e-4, result.stderr


def test_the_attention_branches_stay_in_floating_point(int8: Command, folder: Path) -> None:
    assert int8().returncode == 0
    before, after = weights(folder / "m_sim.onnx"), weights(folder / DEPLOY)
    kept = {name for name in before if np.array_equal(before[name], after[name])}
    assert kept == {name for name in before if "/weigh/" in name}
    assert len(kept) == 8


def test_uint8_tensors_enter_the_calibrated_model_through_aipp(int8: Command, folder: Path) -> None:
    result = int8("--dtype=uint8")
    assert result.returncode == 0, result.stderr
    assert (folder / "m_aipp.cfg").is_file()
    assert json.loads((folder / "m_bs4.om.json").read_text())["dtype"] == "uint8"


def test_nothing_is_calibrated_or_compiled_again_that_is_up_to_date(int8: Command, folder: Path) -> None:
    assert int8().returncode == 0
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    result = int8()
    assert result.stdout.splitlines() == ["m_bs4.om: up to date"]
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == times


def test_other_tensors_or_force_calibrate_again(int8: Command, folder: Path) -> None:
    assert int8().returncode == 0
    (folder / "prep").rename(folder / "prep2")
    assert "AMCT calibrates" in int8("--calibration=prep2").stdout
    assert "AMCT calibrates" in int8("--calibration=prep2", "--force").stdout


def test_a_dry_run_needs_no_simplified_file(int8: Command, folder: Path) -> None:
    shown = int8("--dry-run").stdout
    (folder / "m_sim.onnx").unlink()
    result = int8("--dry-run")
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith(shown)


def test_the_commands_of_a_dry_run_can_be_typed_by_hand(int8: Command, folder: Path, standins: dict[str, str]) -> None:
    result = int8("--dry-run")
    assert result.returncode == 0, result.stderr
    assert not (folder / DEPLOY).exists()
    calibrate, compile_ = (line for line in result.stdout.splitlines() if not line.startswith("#"))
    assert "m_int8_deploy_model.onnx" in compile_
    config = re.findall(r"^# (batch_num .*|skip_layers .*)$", result.stdout, re.MULTILINE)
    (folder / "quant.cfg").write_text("\n".join(["batch_num : 3", *config[1:]]) + "\n")
    assert config[0] == "batch_num : 128"
    (folder / "data").mkdir()
    for number, path in enumerate(sorted((folder / "prep").glob("*.bin"))[:3]):
        shutil.copy(path, folder / f"data/{number}.bin")
    environment = {**os.environ, **standins}
    subprocess.run(["bash", "-c", calibrate], cwd=folder, env=environment, check=True, capture_output=True)
    (folder / "m_deploy_model.onnx").rename(folder / DEPLOY)
    subprocess.run(["bash", "-c", compile_], cwd=folder, env=environment, check=True, capture_output=True)
    assert (folder / "m_bs4.om").is_file()


def test_tensors_that_judge_nothing_are_refused_before_amct_runs(folder: Path) -> None:
    """It is not on this machine, which is found last."""

    def convert_with(tensors: Path, **changes: Any) -> None:
        asked = Conversion(folder / "m.onnx", [4], "310P3", folder, precision="int8", calibration=tensors)
        convert(dataclasses.replace(asked, **changes), said.append)

    said: list[str] = []
    labels = read_labels(PROJECT / "demo/val_label.txt")
    for name in ("threes", "copies"):
        (folder / name).mkdir()
    for path in (folder / "prep").glob("*.bin"):
        shutil.copy(folder / "prep/digits_val_00000001.bin", folder / "copies" / path.name)
        if labels[path.stem] == 3:
            shutil.copy(path, folder / "threes")
    with pytest.raises(PipelineError, match="copies: 191 of 192 tensors repeat another one"):
        convert_with(folder / "copies")
    with pytest.raises(PipelineError, match="threes: fp32 gives 13 of 13 held-out tensors one answer, class 3"):
        convert_with(folder / "threes")
    with pytest.raises(ArgumentError, match="--min-agreement for 310P3 is 0 or left out"):
        convert_with(folder / "prep", min_agreement=0.5)
    with pytest.raises(MissingRuntimeError, match="amct_onnx is not on this machine"):
        convert_with(folder / "threes", min_agreement=0)
    assert said[0] == "note: fp32 gives 13 of 13 held-out tensors one answer, class 3, which judges nothing"


def test_int8_without_calibration_tensors_is_refused(folder: Path, standins: dict[str, str]) -> None:
    result = call("convert.sh", "4", "310P3", "--onnx=m.onnx", "--precision=int8", cwd=folder, env=standins)
    assert_refused(result, "--precision int8 takes --calibration DIR", code=2)


def test_calibration_for_another_precision_is_refused(folder: Path, standins: dict[str, str]) -> None:
    result = call("convert.sh", "4", "310P3", "--onnx=m.onnx", "--calibration=prep", cwd=folder, env=standins)
    assert_refused(result, "--calibration is for int8 on 310P3; leave it out for fp16", code=2)


def test_without_amct_it_says_what_is_missing_and_ends_with_3(
    int8: Command, folder: Path, tmp_path_factory: pytest.TempPathFactory, standins: dict[str, str]
) -> None:
    tools = tmp_path_factory.mktemp("tools")
    (tools / "atc").symlink_to(STANDINS / "bin/atc")
    path = os.pathsep.join([str(tools), os.environ["PATH"]])
    result = int8(env={**standins, "PATH": path})
    assert_refused(result, "amct_onnx is not on this machine", "m_sim.onnx", code=3)
    assert not (folder / "m_bs4.om").exists()


def test_where_amct_fails_its_lines_are_shown_and_nothing_is_left(
    int8: Command, folder: Path, tmp_path_factory: pytest.TempPathFactory, standins: dict[str, str]
) -> None:
    tools = tmp_path_factory.mktemp("tools")
    (tools / "amct_onnx").write_text("#!/bin/sh\necho 'ERROR - [AMCT]: record file is broken'\nexit 1\n")
    (tools / "amct_onnx").chmod(0o755)
    result = int8(env={**standins, "PATH": f"{tools}{os.pathsep}{standins['PATH']}"})
    assert_refused(result, f"{DEPLOY}: amct_onnx ended with exit code 1 and no model")
    assert "ERROR - [AMCT]: record file is broken" in result.stderr
    assert {path.name for path in folder.iterdir()} == {"m.onnx", "m_sim.onnx", "prep"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"--input_shape": "actual_input_1:1,3,224,224"}, "does not fit the model's actual_input_1"),
        ({"--data_dir": "empty"}, "0 .bin files, batch_num is 1"),
        ({"--data_types": "uint8"}, "calibrates on float32"),
        ({"--calibration_config": "bad.cfg"}, "cannot parse 'batches: 3'"),
        ({"--batches": "3"}, "unrecognized arguments"),
    ],
)
def test_the_stand_in_refuses_what_cannot_be_calibrated(
    change: dict[str, str], words: str, folder: Path, standins: dict[str, str]
) -> None:
    (folder / "empty").mkdir()
    (folder / "bad.cfg").write_text("batches: 3\n")
    options = {
        "--model": "m_sim.onnx",
        "--save_path": "./m",
        "--input_shape": "actual_input_1:1,3,96,96",
        "--data_dir": "prep",
        "--data_types": "float32",
        **change,
    }
    command = ["amct_onnx", "calibration", *(part for pair in options.items() for part in pair)]
    result = subprocess.run(command, cwd=folder, env={**os.environ, **standins}, capture_output=True, text=True)
    assert result.returncode
    assert words in result.stderr
    assert not (folder / "m_deploy_model.onnx").exists()


@pytest.mark.parametrize("dry_run", [False, True])
def test_an_operator_set_that_amct_does_not_take_is_refused_before_it_runs(dry_run: bool, folder: Path) -> None:
    """ATC takes up to 18."""
    model = onnx.load(folder / "m_sim.onnx")
    model.opset_import[0].version = 15
    onnx.save(model, folder / "other_sim.onnx")
    asked = Conversion(folder / "other_sim.onnx", [4], "310P3", folder, precision="int8", calibration=folder / "prep")
    with pytest.raises(PipelineError, match=r"operator set 15, AMCT takes 8 to 14; export with --opset 11$"):
        (plan if dry_run else convert)(asked)
    assert not (folder / "other_int8_deploy_model.onnx").exists()
