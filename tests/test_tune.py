"""Tuning by AOE before ATC compiles (by the stand-ins)."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from ResNeSt.common.errors import ArgumentError, MissingRuntimeError, PipelineError
from ResNeSt.convert import aoe
from ResNeSt.convert.compile import Compiled
from ResNeSt.convert.conversion import Conversion, check, convert, plan
from tests.conftest import STANDINS, assert_refused, call

pytest.importorskip("onnx")
BANK = "m_bs4_aoe_bank"
CONV = f"{BANK}/Ascend310P3/Conv2D_AiCore.json"


class Host:
    """A folder with m.onnx on a host with the stand-ins, and what convert said there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said: list[str] = []

    def convert(self, tune: str | None = "operators", **changes: object) -> Compiled:
        asked = Conversion(self.folder / "m.onnx", [4], "310P3", self.folder, tune=tune)
        self.said.clear()
        (compiled,) = convert(dataclasses.replace(asked, **changes), self.said.append)  # type: ignore[arg-type]
        return compiled

    def tuned(self) -> dict[str, int]:
        """How many times each shape was tuned."""
        found: dict[str, int] = json.loads((self.folder / CONV).read_text())
        return found

    def record(self, name: str) -> dict[str, object]:
        found: dict[str, object] = json.loads((self.folder / f"{name}.json").read_text())
        return found


@pytest.fixture(scope="module")
def source(demo_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """m.onnx, and m_sim.onnx as the stage makes it."""
    folder = tmp_path_factory.mktemp("source")
    shutil.copy(demo_onnx, folder / "m.onnx")
    convert(Conversion(folder / "m.onnx", [1], "cpu", folder))
    return folder


@pytest.fixture
def host(source: Path, tmp_path: Path, standins: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Host:
    for name in ("m.onnx", "m_sim.onnx"):
        shutil.copy2(source / name, tmp_path)
    for name, value in standins.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TUNE_BANK_PATH", "/another/bank")  # a user's own; it would go before --op_bank_path
    return Host(tmp_path)


def instead(monkeypatch: pytest.MonkeyPatch, folder: Path, line: str | None) -> None:
    """Puts a shell script in place of aoe, or nothing at all."""
    folder.mkdir()
    for name in ("atc", "npu-smi"):
        (folder / name).symlink_to(STANDINS / "bin" / name)
    if line is not None:
        (folder / "aoe").write_text(f"#!/bin/sh\n{line}\n")
        (folder / "aoe").chmod(0o755)
    others = [path for path in os.environ["PATH"].split(os.pathsep) if path != str(STANDINS / "bin")]
    monkeypatch.setenv("PATH", os.pathsep.join([str(folder), *others]))


def test_aoe_fills_a_bank_beside_the_model_and_both_records_say_so(host: Host) -> None:
    assert host.convert().tune == "operators"
    assert host.tuned() == {"actual_input_1:4,3,96,96": 1}
    assert host.record("m_bs4.om")["tune"] == "operators"
    assert host.record(BANK)["chip"] == "310P3"
    assert list(host.record(BANK)["files"]) == ["Ascend310P3/Conv2D_AiCore.json"]  # type: ignore[call-overload]
    names = {path.name for path in host.folder.iterdir()}
    assert names == {"m.onnx", "m_sim.onnx", "m_bs4.om", "m_bs4.om.json", BANK, f"{BANK}.json", f"{BANK}.log"}


def test_what_is_tuned_is_kept_and_another_run_tunes_nothing(host: Host) -> None:
    host.convert()
    assert host.convert().kept
    (host.folder / "m_bs4.om").unlink()
    (host.folder / "m_bs4.om.json").unlink()
    host.convert()
    assert host.said[0] == f"{BANK}: up to date"
    assert host.tuned() == {"actual_input_1:4,3,96,96": 1}


def test_a_tuned_model_answers_another_question_than_an_untuned_one(host: Host) -> None:
    host.convert(tune=None)
    with pytest.raises(PipelineError, match=r"m_bs4.om: was compiled for tune none, not tune operators; --force"):
        host.convert()
    host.convert(force=True)
    with pytest.raises(PipelineError, match="was compiled for tune operators, not tune none"):
        host.convert(tune=None)
    with pytest.raises(PipelineError, match="was compiled for tune operators, not tune both"):
        host.convert(tune="both")


def test_a_record_of_an_earlier_release_is_of_an_untuned_model(host: Host) -> None:
    host.convert(tune=None)
    record = {key: value for key, value in host.record("m_bs4.om").items() if key != "tune"}
    (host.folder / "m_bs4.om.json").write_text(json.dumps(record))
    assert host.convert(tune=None).kept
    with pytest.raises(PipelineError, match="was compiled for tune none, not tune operators"):
        host.convert()


def test_force_tunes_anew_what_was_tuned_so_and_else_uses_the_bank(host: Host) -> None:
    host.convert()
    host.convert(tune=None, force=True)
    host.convert(force=True)
    assert set(host.tuned().values()) == {1}
    host.convert(force=True)
    assert set(host.tuned().values()) == {2}


def test_subgraphs_are_tuned_before_operators_in_one_bank(host: Host) -> None:
    host.convert(tune="both")
    log = (host.folder / f"{BANK}.log").read_text()
    assert log.count("Aoe process finished") == 2
    assert (host.folder / BANK / "Ascend310P3_fusion.json").is_file()
    assert set(host.tuned().values()) == {1}


def test_a_model_of_several_batch_sizes_is_tuned_as_one(host: Host) -> None:
    host.convert(batches=[1, 4], dynamic_batch=True)
    (host.folder / "m_dyn.om").unlink()
    host.convert(batches=[1, 4], dynamic_batch=True)
    assert host.said[0] == "m_dyn_aoe_bank: up to date"


def test_a_changed_network_chip_or_bank_is_tuned_again_without_losing_what_was_found(host: Host) -> None:
    host.convert()
    other = json.loads((host.folder / CONV).read_text())
    (host.folder / CONV).write_text(json.dumps({**other, "another": 1}))
    host.convert(force=True, precision="mixed")
    assert any("AOE tunes" in line for line in host.said)
    assert host.tuned() == {"actual_input_1:4,3,96,96": 1, "another": 1}


def test_what_is_broken_off_is_not_taken_for_whole_and_goes_on(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.environ["PATH"])
    instead(monkeypatch, host.folder / "t", 'mkdir "$TUNE_BANK_PATH/half"; echo tuning; kill -9 $$')
    with pytest.raises(PipelineError, match=rf"{BANK}: AOE was killed .-9, SIGKILL., most likely for want of memory"):
        host.convert()
    assert not (host.folder / "m_bs4.om").exists()
    shutil.rmtree(host.folder / "t")
    monkeypatch.setenv("PATH", f"{STANDINS / 'bin'}{os.pathsep}{os.environ['PATH']}")
    host.convert()
    assert any("AOE tunes" in line for line in host.said)
    assert (host.folder / BANK / "half").is_dir()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("echo 'Aoe process finished'; exit 1", r"AOE failed \(exit code 1\)"),
        ("echo 'EC0010: cannot start. No module named psutil'; exit 1", "EC0010|its python3 lacks psutil"),
        ("echo 'something else'; exit 0", "ended without 'Aoe process finished'"),
        ("[ $1 = --job_type=2 ] || echo 'Aoe process finished'", "ended without 'Aoe process finished'"),
    ],
)
def test_success_is_the_exit_code_and_the_last_line(
    host: Host, monkeypatch: pytest.MonkeyPatch, line: str, words: str
) -> None:
    instead(monkeypatch, host.folder / "t", line)
    with pytest.raises(PipelineError, match=words):
        host.convert(tune="both")
    assert "files" not in host.record(BANK)


def test_a_bank_that_aoe_leaves_empty_is_said_and_compiled_with(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    instead(monkeypatch, host.folder / "t", "echo 'Aoe process finished'")
    host.convert()
    assert host.said[1] == f"{BANK}: empty: nothing is better than what CANN brings along"


def test_without_aoe_a_finished_bank_serves_and_else_a_line_says_what_is_missing(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.convert(batches=[4])
    (host.folder / "m_bs4.om").unlink()
    instead(monkeypatch, host.folder / "t", None)
    host.convert()
    with pytest.raises(MissingRuntimeError, match="aoe is not on this machine"):
        host.convert(batches=[8])
    assert not (host.folder / "m_bs8_aoe_bank").exists()


def test_the_card_of_the_machine_must_be_the_chip(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STANDIN_NPU", "910B3")
    with pytest.raises(PipelineError, match="the card of this machine, a 910B3, which says nothing of a 310P3"):
        host.convert()


def test_check_says_whether_aoe_can_tune_here(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def found() -> tuple[str, str]:
        asked = Conversion(host.folder / "m.onnx", [4], "310P3", host.folder, tune="operators")
        (finding,) = (finding for finding in check(asked) if finding.subject == "aoe")
        return finding.verdict, finding.text

    assert found() == ("ok", str(STANDINS / "bin/aoe"))
    instead(monkeypatch, host.folder / "t", None)
    assert found()[0] == "FAILS"
    (host.folder / BANK).mkdir()
    assert found()[0] == "note"


def test_under_a_path_that_cann_refuses_aoe_and_atc_get_copies_and_the_bank_is_beside_the_model(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = host.folder / "a \u6a21(1)"
    folder.mkdir()
    for number in (1, 2):
        with monkeypatch.context() as patch:
            patch.chdir(folder)
            convert(Conversion(Path("../m.onnx"), [4], "310P3", dtype="uint8", tune="both", force=number == 2))
        assert json.loads((folder / CONV).read_text()) == {"actual_input_1:4,3,96,96": number}
    assert {path.name for path in folder.iterdir()} == {
        *("m_sim.onnx", "m_aipp.cfg", "m_bs4.om", "m_bs4.om.json", BANK, f"{BANK}.json", f"{BANK}.log")
    }
    shown = plan(Conversion(host.folder / "m.onnx", [4], "310P3", folder, dtype="uint8", tune="both"))
    assert f"# both with TUNE_BANK_PATH='{folder / BANK}'; aoe, where that is not up to date" in shown
    instead(monkeypatch, host.folder / "t", 'mkdir "$TUNE_BANK_PATH/half"; exit 1')
    with pytest.raises(PipelineError, match="what it has found is kept"):
        convert(Conversion(host.folder / "m.onnx", [4], "310P3", folder, tune="operators", force=True))
    assert (folder / BANK / "half").is_dir()


def test_a_folder_that_is_not_ours_is_not_filled(host: Host) -> None:
    (host.folder / BANK).mkdir()
    with pytest.raises(PipelineError, match=rf"{BANK}: no {BANK}.json says that convert.sh made it"):
        host.convert()


@pytest.mark.parametrize("name", [f"{BANK}.json", f"{BANK}.log", "m_bs4.om.json", BANK])
def test_a_file_that_is_not_ours_is_not_written_over(host: Host, name: str) -> None:
    (host.folder / name).write_text('{"a user": 1}')
    with pytest.raises(PipelineError, match=rf"/{name}: (no|damaged, or not a record) .*; --force replaces it"):
        host.convert()
    assert (host.folder / name).read_text() == '{"a user": 1}'
    if name == BANK:
        with pytest.raises(PipelineError, match=f"{BANK}: is not a folder, AOE's bank is one"):
            host.convert(force=True)


def test_a_bank_that_changed_makes_the_model_anew_and_one_that_is_gone_does_not(host: Host) -> None:
    host.convert()
    record = host.record(BANK)
    (host.folder / CONV).write_text("{}")
    digest = hashlib.sha256(b"{}").hexdigest()
    (host.folder / f"{BANK}.json").write_text(json.dumps({**record, "files": {CONV.split("/", 1)[1]: digest}}))
    assert not host.convert().kept
    assert host.said[0] == f"{BANK}: up to date"
    for path in (host.folder / BANK, host.folder / f"{BANK}.json"):
        path.rename(host.folder / f"{path.name}.away")
    assert host.convert().kept


def test_tuning_anew_that_is_broken_off_goes_on_with_the_same_command(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.convert()
    monkeypatch.setenv("PATH", os.environ["PATH"])
    with monkeypatch.context() as patch:
        instead(patch, host.folder / "t", "exit 1")
        with pytest.raises(PipelineError, match="the same command goes on there"):
            host.convert(force=True)
    host.convert(force=True)
    assert any("AOE tunes" in line for line in host.said)
    assert set(host.tuned().values()) == {1}


def test_cpu_and_unknown_words_are_refused(host: Host) -> None:
    with pytest.raises(ArgumentError, match="--tune is for Ascend chips"):
        host.convert(chip="cpu")
    with pytest.raises(ArgumentError, match="--tune 'all', expected one of operators, subgraphs, both"):
        host.convert(tune="all")
    result = call("convert.sh", "4", "cpu", "--onnx=m.onnx", "--tune", cwd=host.folder)
    assert_refused(result, "--tune is for Ascend chips, whose AOE it runs", code=2)


def test_the_commands_of_a_dry_run_can_be_typed_by_hand(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Conversion(host.folder / "m.onnx", [4], "310P3", host.folder, dtype="uint8", precision="mixed")
    host.convert(tune=None, dtype="uint8", precision="mixed")  # for the AIPP file
    lines = plan(dataclasses.replace(asked, tune="both", force=True))
    assert not (host.folder / BANK).exists()
    first, second, compile_ = (shlex.split(line) for line in lines if not line.startswith("#"))
    assert [first[1], second[1]] == ["--job_type=1", "--job_type=2"]
    assert not any(option.startswith("--soc_version") for option in first)
    model_options = [option for option in compile_ if not option.startswith(("--soc_version", "atc"))]
    assert set(first[2:]) <= set(model_options)
    (host.folder / BANK).mkdir()
    monkeypatch.setenv("TUNE_BANK_PATH", str(host.folder / BANK))
    for command in (first, second, compile_):
        subprocess.run(command, cwd=host.folder, check=True, capture_output=True)
    assert f"--op_bank_path={host.folder / BANK}" in compile_
    assert "--buffer_optimize=l2_optimize" in compile_


def test_the_stand_in_refuses_what_aoe_does_not_take(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNE_BANK_PATH", str(host.folder))
    good = ["--framework=5", "--model=m_sim.onnx", "--output=m", "--input_shape=actual_input_1:4,3,96,96"]

    def code(*flags: str, **variables: str) -> int:
        environment = {**os.environ, **variables}
        command = [aoe.PROGRAM, *good, *flags]
        return subprocess.run(command, cwd=host.folder, env=environment, capture_output=True).returncode

    assert code("--job_type=2") == 0
    assert code("--job_type=3") == code() == code("--job_type=2", "--soc_version=Ascend310P3") == 1
    assert code("--job_type=2", TUNE_BANK_PATH="/nowhere") == code("--job_type=2", STANDIN_NPU="none") == 1
