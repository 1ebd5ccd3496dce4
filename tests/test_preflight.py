"""convert.sh --check: what will fail on an Ascend host, said before ATC runs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Protocol, cast

import pytest

from tests.conftest import STANDINS, Completed, assert_refused, call

onnx = pytest.importorskip("onnx")


class Host(Protocol):
    """Runs convert.sh --check in `work`, with the programs of `tools`."""

    work: Path
    tools: Path

    def __call__(self, *flags: str, python: str = ..., chip: str = ..., umask: int = ..., **env: str) -> Completed: ...


@pytest.fixture
def host(demo_onnx: Path, tmp_path: Path, standins: dict[str, str]) -> Host:
    """A host with CANN 8.0 and a Python that ATC can use; what `check` is given changes it."""
    release = tmp_path / "Ascend/ascend-toolkit/8.0.RC1/bin"
    tools, work = tmp_path / "tools", tmp_path / "work"
    for folder in (release, tools, work):
        folder.mkdir(parents=True)
    for name in ("atc", "npu-smi"):
        script(release / name if name == "atc" else tools / name, f'exec "{STANDINS / "bin" / name}" "$@"')
    (tools / "atc").symlink_to(release / "atc")
    shutil.copy(demo_onnx, work / "m.onnx")

    def check(
        *flags: str, python: str = "3.10 1.26.4", chip: str = "310P3", umask: int = 0o022, **env: str
    ) -> Completed:
        script(tools / "python3", f"echo {python}" if python else "exit 1")
        environment = {**standins, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", **env}
        before = os.umask(umask)
        try:
            return call("convert.sh", "1,8", chip, "--onnx=m.onnx", "--check", *flags, cwd=work, env=environment)
        finally:
            os.umask(before)

    made = cast(Host, check)
    made.work, made.tools = work, tools
    return made


def script(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


def verdicts(result: Completed) -> dict[str, str]:
    """Subject -> verdict and text of every line of the report."""
    lines = [line.split(None, 2) for line in result.stdout.splitlines()]
    return {line[1]: f"{line[0]} {line[2]}" for line in lines if line[0] in ("ok", "note", "FAILS")}


def test_a_host_on_which_nothing_will_fail_ends_with_0_and_nothing_is_compiled(host: Host) -> None:
    result = host()
    assert result.returncode == 0, result.stdout + result.stderr
    found = verdicts(result)
    assert {"atc", "opset", "python3", "numpy", "operators", "disk", "memory", "paths", "umask", "card"} <= set(found)
    assert found["atc"].startswith("ok CANN 8.0.RC1, ")
    assert found["opset"] == "ok 11, CANN 8.0.RC1 takes 11 to 18"
    assert [path.name for path in host.work.iterdir()] == ["m.onnx"]


@pytest.mark.parametrize(
    ("python", "subject", "words"),
    [
        ("3.11 1.26.4", "python3", "3.11: ATC's operator builder breaks from 3.11 on"),
        ("3.10 2.1.0", "numpy", "2.1.0: ATC's operator builder breaks on NumPy 2; pip install 'numpy<2'"),
        ("", "python3", "cannot import numpy"),
    ],
)
def test_a_python_that_breaks_atc_s_operator_builder_is_named(
    host: Host, python: str, subject: str, words: str
) -> None:
    result = host(python=python)
    assert_refused(result, "checks fail", subject)
    assert verdicts(result)[subject].startswith(f"FAILS {words}")


@pytest.mark.parametrize(
    ("release", "fails"), [("5.1.RC2", True), ("6.0.1", True), ("7.0.0", False), ("8.1.RC1", False)]
)
def test_an_operator_set_that_the_release_does_not_take_is_named(host: Host, release: str, fails: bool) -> None:
    model = onnx.load(host.work / "m.onnx")
    onnx.save(onnx.version_converter.convert_version(model, 17), host.work / "m.onnx")
    toolkit = host.tools.parent / "Ascend/ascend-toolkit"
    (toolkit / "8.0.RC1").rename(toolkit / release)
    (host.tools / "atc").unlink()
    (host.tools / "atc").symlink_to(toolkit / release / "bin/atc")
    found = verdicts(host())["opset"]
    assert found.startswith("FAILS 17, CANN" if fails else "ok 17, CANN")
    assert ("export with --opset 11" in found) == fails


def test_quantized_operators_are_named_since_the_chip_has_none(host: Host) -> None:
    model = onnx.load(host.work / "m.onnx")
    for name in ("QuantizeLinear", "Erf"):
        model.graph.node.append(onnx.helper.make_node(name, ["output1"], [name]))
    onnx.save(model, host.work / "m.onnx")
    result = host()
    assert_refused(result, "operators")
    assert "FAILS  operators  QuantizeLinear: no operator of the chip" in result.stdout
    assert "note   operators  Erf: not among those on record" in result.stdout


def test_two_operator_sets_in_one_file_are_named(host: Host) -> None:
    model = onnx.load(host.work / "m.onnx")
    model.opset_import.append(onnx.helper.make_opsetid("com.example", 1))
    onnx.save(model, host.work / "m.onnx")
    assert verdicts(host())["graph"].startswith("FAILS operator sets of ai.onnx, com.example; ATC takes one (E16005)")


def test_float32_on_a_310p_is_noted_and_does_not_fail(host: Host) -> None:
    result = host("--precision=fp32")
    assert result.returncode == 0, result.stderr
    assert verdicts(result)["precision"].startswith("note AvgPool and MaxPool take no float32")


def test_a_card_of_another_chip_is_noted(host: Host) -> None:
    found = verdicts(host(chip="910B4"))["card"]
    assert found == "note 310P3, a model for 910B4 will not run on it; compile for 310P3"


def test_a_path_that_ais_bench_refuses_is_named(host: Host) -> None:
    result = host("--output-dir=a folder")
    assert verdicts(result)["paths"].startswith("FAILS a folder/m_bs1.om: ais_bench takes only letters")


def test_a_umask_that_leaves_files_to_the_group_is_named(host: Host) -> None:
    assert verdicts(host(umask=0o002))["umask"].startswith("FAILS 002: ais_bench refuses files that a group may write")


def test_too_little_memory_for_atc_s_processes_is_noted(host: Host) -> None:
    found = verdicts(host(TE_PARALLEL_COMPILER="4000"))["memory"]
    assert found.startswith("note ")
    assert "available to 4000 compiling processes; if ATC runs out of it: export TE_PARALLEL_COMPILER=" in found


def test_without_atc_the_other_checks_still_run(host: Host) -> None:
    (host.tools / "atc").unlink()
    result = host()
    assert_refused(result, "atc")
    assert verdicts(result)["atc"].startswith("FAILS not on this machine")
    assert "operators" in verdicts(result)


def test_cpu_needs_no_check(host: Host) -> None:
    assert_refused(host(chip="cpu"), "--check is for Ascend chips", code=2)
