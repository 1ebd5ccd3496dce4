"""The suite for a real Ascend host, here against the stand-ins."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.conftest import STANDINS, Command, Completed, assert_refused, call

pytest.importorskip("onnx")


@pytest.fixture
def on_ascend(demo_onnx: Path, tmp_path: Path, standins: dict[str, str]) -> Command:
    """Runs the suite; programs that are given go before the stand-ins."""

    def check(**programs: str) -> Completed:
        tools = tmp_path / "tools"
        tools.mkdir()
        for name, line in programs.items():
            (tools / name).write_text(f"#!/bin/sh\n{line}\n")
            (tools / name).chmod(0o755)
        environment = {**standins, "PATH": f"{tools}{os.pathsep}{standins['PATH']}", "PYTHON": sys.executable}
        work = tmp_path / "work"
        work.mkdir()
        shutil.copy(demo_onnx, work / "resnest_demo.onnx")
        return call("tests/on_ascend.sh", "--onnx=resnest_demo.onnx", cwd=work, env=environment)

    return check


def test_every_recorded_fact_holds_for_the_stand_ins_and_nothing_is_left_behind(
    on_ascend: Command, tmp_path: Path
) -> None:
    result = on_ascend()
    assert result.returncode == 0, result.stdout + result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) > 20
    assert all(line.startswith("ok ") for line in lines[:-1])
    assert " facts, 0 differ; chip 310P3" in lines[-1]
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["resnest_demo.onnx"]


def test_a_compiler_that_says_something_else_differs(on_ascend: Command) -> None:
    atc = STANDINS / "bin/atc"
    result = on_ascend(atc=f'"{atc}" "$@" | sed "s/ATC run success/done/"; exit 0')
    assert result.returncode == 1
    differing = [line for line in result.stdout.splitlines() if line.startswith("DIFFERS")]
    assert any("ATC run success, welcome to the next use." in line for line in differing)
    assert any("another code than 0 for an unknown chip" in line for line in differing)


def test_a_host_without_the_programs_ends_with_3(demo_onnx: Path, tmp_path: Path) -> None:
    result = call("tests/on_ascend.sh", f"--onnx={demo_onnx}", "--chip=310P3", cwd=tmp_path, env={"PYTHONPATH": ""})
    assert_refused(result, "atc, ais_bench and an NPU are needed here", code=3)
