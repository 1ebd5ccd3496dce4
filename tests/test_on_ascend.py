"""The suite for a real Ascend host, here against the stand-ins."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ResNeSt.common import cann
from tests import on_ascend
from tests.conftest import PROJECT, STANDINS, Completed, assert_refused, call

pytest.importorskip("onnx")
OF_THE_CLIENT = ["pipeline", "the client", "ais_bench", "paths", "tensors", "devices"]
bounded = on_ascend._bounded
FEW = 12  # of the demo's pictures, which it knows


@pytest.fixture
def host(demo_onnx: Path, tmp_path: Path, standins: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> on_ascend.Host:
    """A part of the suite gets this: few pictures, and the stand-ins on PATH behind `tools`."""
    for name in ("tools", "val"):
        (tmp_path / name).mkdir()
    paths = {
        name: f"{before}{os.pathsep}{standins[name]}"
        for name, before in (("PATH", tmp_path / "tools"), ("PYTHONPATH", PROJECT))
    }
    for name, value in {**standins, **paths}.items():
        monkeypatch.setenv(name, value)
    for path in reversed(standins["PYTHONPATH"].split(os.pathsep)):
        monkeypatch.syspath_prepend(path)
    for name in ("resnest_demo.onnx", "demo.onnx", "demo_sim.onnx"):
        shutil.copy(demo_onnx, tmp_path / name)
    labels = on_ascend.LABELS.read_text().splitlines()[:FEW]
    for line in labels:
        shutil.copy(on_ascend.IMAGES / line.split()[0], tmp_path / "val")
    (tmp_path / "labels.txt").write_text("\n".join(labels))
    monkeypatch.setattr(on_ascend, "IMAGES", tmp_path / "val")
    monkeypatch.setattr(on_ascend, "LABELS", tmp_path / "labels.txt")
    monkeypatch.setattr(on_ascend, "_bounded", warm)
    monkeypatch.setattr(on_ascend, "PROGRAM", tmp_path / "not built")  # tests/test_native_infer.py builds it
    toolkit = cann.find_toolkit()
    assert toolkit is not None
    return on_ascend.Host(tmp_path, "310P3", toolkit, tune="operators")


@pytest.fixture
def suite(host: on_ascend.Host, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., int]]:
    """Runs all of it in this process, where `ais_bench` can be found."""

    def run(*flags: str) -> int:
        monkeypatch.setattr(sys, "argv", ["on_ascend", "--onnx=resnest_demo.onnx", *flags])
        return on_ascend.main()

    monkeypatch.chdir(host.folder)
    umask = os.umask(0o022)
    yield run
    os.umask(umask)


def script(host: on_ascend.Host, name: str, line: str) -> None:
    """Puts a program before the stand-ins."""
    path = host.folder / "tools" / name
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


def warm(command: list[str], folder: Path, environment: dict[str, str], seconds: float) -> Completed:
    """As on_ascend._bounded, by interpreters that have imported the large packages; what is no Python runs as it is."""
    program, name, *rest = command
    if program not in ("bash", sys.executable):
        return bounded(command, folder, environment, seconds)
    return call(Path(name).name if program == "bash" else name, *rest, cwd=folder, env=environment)


def differing(facts: object) -> list[str]:
    return [fact.recorded for fact in facts if not fact.holds]  # type: ignore[attr-defined]


@pytest.mark.heavy
@pytest.mark.parametrize(("standins", "parts"), [("0.0.2", OF_THE_CLIENT), ("0.1.0", None)], indirect=["standins"])
def test_every_recorded_fact_holds_for_the_stand_ins_and_nothing_is_left_behind(
    suite: Callable[..., int],
    host: on_ascend.Host,
    parts: list[str] | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    all_parts = on_ascend._parts
    if parts is not None:
        monkeypatch.setattr(on_ascend, "_parts", lambda host: {name: all_parts(host)[name] for name in parts})
    before = {path.name for path in host.folder.iterdir()}
    code = suite("--tune")
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines[:-1] if not line.startswith("ok ")] == []
    assert len(lines) > (50 if parts is None else 20)
    assert " facts, 0 differ; chip 310P3" in lines[-1]
    assert f"ais_bench {'0.1.0' if parts is None else '0.0.2'}" in lines[-1]
    assert code == 0
    assert {path.name for path in host.folder.iterdir()} == before


def test_a_compiler_that_says_something_else_differs(host: on_ascend.Host) -> None:
    script(host, "atc", f'"{STANDINS / "bin/atc"}" "$@" | sed "s/ATC run success/done/"; exit 0')
    toolkit = cann.Toolkit(str(host.folder / "tools/atc"), dict(os.environ))
    found = differing(on_ascend._atc(host.folder, host.chip, toolkit))
    assert "ATC prints 'ATC run success, welcome to the next use.'" in found
    assert "ATC ends with another code than 0 for an unknown chip" in found


def test_aoe_that_says_something_else_differs(host: on_ascend.Host) -> None:
    script(host, "aoe", 'mkdir "$TUNE_BANK_PATH/other"; touch "$TUNE_BANK_PATH/other/x.json"; echo done')
    assert differing(on_ascend._tune(host)) == [
        "convert --tune ends with 0",
        "AOE says 'Aoe process finished' at its end",
        "its bank is empty, or holds JSON files in a folder of the chip's name",
    ]


def test_a_command_that_hangs_is_ended_with_all_it_started(host: on_ascend.Host) -> None:
    done = bounded(["sh", "-c", "sleep 60 & wait"], host.folder, dict(os.environ), 0.5)
    assert (done.returncode, done.stderr) == (124, "ran for more than 0 s and was ended")


def test_a_part_that_cannot_go_on_is_a_fact_and_the_next_part_has_its_turn(
    host: on_ascend.Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> object:
        yield on_ascend.Fact("one", True, "")
        raise FileNotFoundError("no summary")

    parts = {"first": broken(), "second": iter([on_ascend.Fact("two", True, "")])}
    monkeypatch.setattr(on_ascend, "_parts", lambda _: parts)
    facts = list(on_ascend._facts(host))
    assert [fact.recorded for fact in facts] == ["one", "first: everything could be looked at", "two"]
    assert "no summary" in facts[1].found


def test_what_differs_is_followed_by_what_to_do_and_its_files_stay(
    suite: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(on_ascend, "_parts", lambda _: {"a": iter([on_ascend.Fact("it holds", False, "no")])})
    assert suite("--chip=310P3") == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "DIFFERS  it holds; found: no"
    kept = Path(lines[-1].removesuffix(".").split(" ")[-1])
    assert "docs/ascend.md" in lines[-2]
    assert sorted(path.name for path in kept.iterdir()) == ["demo.onnx", "demo_sim.onnx"]


def test_a_host_without_the_programs_ends_with_3(demo_onnx: Path, tmp_path: Path) -> None:
    result = call("tests/on_ascend.sh", f"--onnx={demo_onnx}", "--chip=310P3", cwd=tmp_path, env={"PYTHONPATH": ""})
    assert_refused(result, "atc, ais_bench and an NPU are needed here", code=3)
