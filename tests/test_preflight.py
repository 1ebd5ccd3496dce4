"""convert.sh --check: what will fail on an Ascend host, said before ATC runs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from ResNeSt.common import cann
from ResNeSt.common.errors import ArgumentError, PipelineError
from ResNeSt.convert import preflight
from ResNeSt.convert.conversion import Conversion, check
from ResNeSt.convert.preflight import Finding, release_of, report
from ResNeSt.formats import onnx_header
from tests.conftest import STANDINS, assert_refused, call

onnx = pytest.importorskip("onnx")


class Host:
    """A host with CANN 8.0 and a Python that ATC can use; `work` holds m.onnx, `tools` are on PATH."""

    def __init__(self, folder: Path, network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.work, self.tools = folder / "work", folder / "tools"
        release = folder / "Ascend/ascend-toolkit/8.0.RC1/bin"
        for made in (release, self.tools, self.work):
            made.mkdir(parents=True)
        script(release / "atc", f'exec "{STANDINS / "bin/atc"}" "$@"')
        script(self.tools / "npu-smi", f'exec "{STANDINS / "bin/npu-smi"}" "$@"')
        self.python("3.10 1.26.4")
        (self.tools / "atc").symlink_to(release / "atc")
        shutil.copy(network, self.work / "m.onnx")
        monkeypatch.setenv("PATH", f"{self.tools}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.chdir(self.work)

    def python(self, says: str) -> None:
        """The python3 on PATH and its NumPy are of these versions; it lacks NumPy where that is empty."""
        script(self.tools / "python3", f"echo {says}" if says else "exit 1")

    def check(self, chip: str = "310P3", precision: str | None = None, folder: str = ".") -> dict[str, str]:
        """Subject -> verdict and text of every finding; of two of one subject the last."""
        asked = Conversion(Path("m.onnx"), [1, 8], chip, Path(folder), precision=precision)
        self.found = check(asked)
        return {finding.subject: f"{finding.verdict} {finding.text}" for finding in self.found}


@pytest.fixture
def host(demo_onnx: Path, tmp_path: Path, standins: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Host:
    for name in ("PYTHONPATH", "STANDIN_PYTHON"):
        monkeypatch.setenv(name, standins[name])
    return Host(tmp_path, demo_onnx, monkeypatch)


def script(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


def test_a_host_on_which_nothing_will_fail_ends_with_0_and_nothing_is_compiled(host: Host) -> None:
    flags = ["1,8", "310P3", "--onnx=m.onnx", "--check"]
    result = call("convert.sh", *flags, cwd=host.work)
    assert result.returncode == 0, result.stdout + result.stderr
    found = host.check()
    command, *lines = result.stdout.splitlines()
    assert command.endswith("-m onnxsim m.onnx m_sim.onnx")
    assert [line.split()[:2] for line in lines] == [[finding.verdict, finding.subject] for finding in host.found]
    assert {"atc", "opset", "python3", "numpy", "operators", "disk", "memory", "paths", "umask", "card"} == set(found)
    assert found["atc"].startswith("ok CANN 8.0.RC1, ")
    assert found["opset"] == "ok 11, CANN 8.0.RC1 takes 11 to 18"
    assert [path.name for path in host.work.iterdir()] == ["m.onnx"]
    host.python("3.11 1.26.4")
    assert_refused(call("convert.sh", *flags, cwd=host.work), "1 of 10 checks fail: python3; see above")


def test_one_finding_that_fails_is_enough_and_notes_do_not_fail(capsys: pytest.CaptureFixture[str]) -> None:
    report([Finding("ok", "opset", "11"), Finding("note", "card", "none")])
    assert capsys.readouterr().out == "ok     opset      11\nnote   card       none\n"
    with pytest.raises(PipelineError, match=r"^2 of 3 checks fail: atc, disk; see above$"):
        report([Finding("FAILS", "atc", ""), Finding("note", "card", ""), Finding("FAILS", "disk", "")])


@pytest.mark.parametrize(
    ("says", "python", "numpy"),
    [
        ("3.8 1.24.4", "ok 3.8", "ok 1.24.4"),
        ("3.9 1.26.4", "ok 3.9", "ok 1.26.4"),
        ("3.10 2.0.0", "ok 3.10", "FAILS 2.0.0: ATC's operator builder breaks on NumPy 2; pip install 'numpy<2'"),
        ("3.11 1.26.4", "FAILS 3.11: ATC's operator builder breaks from 3.11 on", "ok 1.26.4"),
        ("3.12 10.0.0", "FAILS 3.12: ATC's", "FAILS 10.0.0: ATC's"),
        ("4.0 1.9.0", "FAILS 4.0: ATC's", "ok 1.9.0"),
        ("", "FAILS cannot import numpy", ""),
    ],
)
def test_a_python_that_breaks_atc_s_operator_builder_is_named(says: str, python: str, numpy: str, host: Host) -> None:
    host.python(says)
    found = host.check()
    assert found["python3"].startswith(python)
    assert found.get("numpy", "").startswith(numpy)
    assert bool(numpy) == ("numpy" in found)


@pytest.mark.parametrize(
    ("path", "release"),
    [
        ("usr/local/Ascend/ascend-toolkit/8.0.RC1/bin/atc", "8.0.RC1"),
        ("opt/py3.9/cann-1.5/Ascend/ascend-toolkit/5.1.RC2/x86_64-linux/bin/atc", "5.1.RC2"),
        ("opt/3.9/Ascend/7.0.0/compiler/bin/atc", "7.0.0"),
        ("opt/Ascend/8.5.0.alpha001/bin/atc", "8.5.0.alpha001"),
        ("opt/Ascend-8.1/310/latest/bin/atc", None),
        ("opt/Ascend/bin/8.0", None),  # a file of this name
    ],
)
def test_the_release_is_that_of_the_folder_nearest_to_atc(path: str, release: str | None, tmp_path: Path) -> None:
    found = release_of(cann.Toolkit(f"/{path}", {}))
    assert found == release


def test_the_release_is_that_of_the_file_behind_links(host: Host) -> None:
    (host.tools / "7.0.0").mkdir()
    (host.tools / "7.0.0/atc").symlink_to(host.tools / "atc")
    assert release_of(cann.Toolkit(str(host.tools / "7.0.0/atc"), {})) == "8.0.RC1"


def use_release(host: Host, release: str) -> None:
    toolkit = host.tools.parent / "Ascend/ascend-toolkit"
    (toolkit / "8.0.RC1").rename(toolkit / release)
    (host.tools / "atc").unlink()
    (host.tools / "atc").symlink_to(toolkit / release / "bin/atc")


# What the releases take, from contract ATC: CANN 5 and 6 operator sets 9 to 13, 7 9 to 18, 8 and later 11 to 18.
@pytest.mark.parametrize(
    ("release", "opset", "takes"),
    [
        *(("5.1.RC2", opset, 9 <= opset <= 13) for opset in (8, 9, 13, 14)),
        *(("6.0.1", opset, 9 <= opset <= 13) for opset in (8, 9, 13, 14)),
        *(("7.0.0", opset, 9 <= opset <= 18) for opset in (8, 9, 18, 19)),
        *(("8.1.RC1", opset, 11 <= opset <= 18) for opset in (10, 11, 18, 19)),
        *(("10.0.0", opset, 11 <= opset <= 18) for opset in (10, 18)),
    ],
)
def test_an_operator_set_that_the_release_does_not_take_is_named(
    release: str, opset: int, takes: bool, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_header, "read", lambda path: SimpleNamespace(opset=opset))
    (finding,) = preflight._opset(SimpleNamespace(path=Path("m.onnx")), release)  # type: ignore[arg-type]
    assert finding.text.startswith(f"{opset}, CANN {release} takes ")
    assert (finding.verdict == "ok") == takes
    assert ("export with --opset 11" in finding.text) == (not takes)


def test_of_a_release_that_is_not_known_every_one_takes_11(host: Host) -> None:
    use_release(host, "latest")
    found = host.check()
    assert found["atc"] == f"note {host.tools}/atc, of a release that its path does not tell"
    assert found["opset"] == "ok 11; 11 fits every release"
    model = onnx.load("m.onnx")
    onnx.save(onnx.version_converter.convert_version(model, 13), "m.onnx")
    assert host.check()["opset"] == "note 13; 11 fits every release"


def test_quantized_operators_are_named_since_the_chip_has_none(host: Host) -> None:
    model = onnx.load("m.onnx")
    for name in ("QuantizeLinear", "Erf"):
        model.graph.node.append(onnx.helper.make_node(name, ["output1"], [name]))
    onnx.save(model, "m.onnx")
    host.check()
    told = [str(finding) for finding in host.found if finding.subject == "operators"]
    assert [line[:41] for line in told] == [
        "FAILS  operators  QuantizeLinear: no oper",
        "note   operators  Erf: not among those on",
    ]


def test_two_operator_sets_in_one_file_are_named(host: Host) -> None:
    assert "graph" not in host.check()
    model = onnx.load("m.onnx")
    model.opset_import.append(onnx.helper.make_opsetid("com.example", 1))
    onnx.save(model, "m.onnx")
    assert host.check()["graph"].startswith("FAILS operator sets of ai.onnx, com.example; ATC takes one (E16005)")


@pytest.mark.parametrize(
    ("chip", "precision", "told"), [("310P3", "fp32", True), ("310P3", "fp16", False), ("910B4", "fp32", False)]
)
def test_float32_is_noted_on_a_310p_alone(chip: str, precision: str, told: bool, host: Host) -> None:
    found = host.check(chip, precision)
    assert found.get("precision", "").startswith("note AvgPool and MaxPool take no float32") == told
    assert ("precision" in found) == told


def test_a_card_of_another_chip_is_noted(host: Host) -> None:
    assert host.check()["card"] == "ok 310P3"
    found = host.check("910B4")["card"]
    assert found == "note 310P3, a model for 910B4 will not run on it; compile for 310P3"
    script(host.tools / "npu-smi", "exit 1")
    assert host.check()["card"].startswith("note none that npu-smi shows")


def test_a_path_that_ais_bench_refuses_is_named(host: Host) -> None:
    assert host.check(folder="a folder")["paths"].startswith("FAILS a folder/m_bs1.om: ais_bench takes only letters")


@pytest.mark.parametrize(("umask", "fails"), [(0o022, False), (0o077, False), (0o002, True), (0o020, True)])
def test_a_umask_that_leaves_files_to_the_group_is_named(umask: int, fails: bool, host: Host) -> None:
    before = os.umask(umask)
    try:
        found = host.check()["umask"]
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    refused = f"FAILS {umask:03o}: ais_bench refuses files that a group may write; run: umask 022"
    assert found == (refused if fails else f"ok {umask:03o}")


@pytest.mark.parametrize(("short", "verdict"), [(-(10**7), "ok"), (0, "ok"), (1, "FAILS")])
def test_a_disk_takes_the_file_once_for_each_model_and_once_more(
    short: int, verdict: str, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = 3 * Path("m.onnx").stat().st_size
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=needed - short))
    found = host.check(folder="not/made/yet")["disk"]
    figures = f"{(needed - short) / 1e9:.1f} GB free in {host.work}, about {needed / 1e9:.1f} GB needed"
    assert found == f"{verdict} {figures}" + ("; make room" if verdict == "FAILS" else "")


@pytest.mark.parametrize(("processes", "available", "fewer"), [(3, 6, None), (4, 7.9, 3), (5, 0.5, 1), (1, 2, None)])
def test_too_little_memory_for_atc_s_processes_is_noted(
    processes: int, available: float, fewer: int | None, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2 GiB are reckoned for each."""
    monkeypatch.setenv("TE_PARALLEL_COMPILER", str(processes))
    monkeypatch.setattr(preflight, "_available_memory", lambda: int(available * 2**30))
    found = host.check()["memory"]
    figures = f"{available * 2**30 / 1e9:.1f} GB available to {processes} compiling processes"
    advice = f"; if ATC runs out of it: export TE_PARALLEL_COMPILER={fewer}"
    assert found == (f"ok {figures}" if fewer is None else f"note {figures}{advice}")


def test_the_memory_is_what_the_kernel_says_is_available() -> None:
    told = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    kilobytes = int(told["MemAvailable"].split()[0])
    assert preflight._available_memory() == pytest.approx(1024 * kilobytes, rel=0.2)


def test_without_atc_the_other_checks_still_run(host: Host) -> None:
    (host.tools / "atc").unlink()
    found = host.check()
    assert found["atc"] == "FAILS not on this machine; run this on a host with CANN"
    assert {"operators", "disk", "memory", "paths", "umask", "card"} <= set(found)


def test_cpu_needs_no_check(host: Host) -> None:
    with pytest.raises(ArgumentError, match="--check is for Ascend chips"):
        host.check("cpu")
