"""convert.sh --check: what will fail on an Ascend host, said before ATC runs."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from ResNeSt.common import cann
from ResNeSt.common.errors import ArgumentError, PipelineError
from ResNeSt.convert import host as host_findings
from ResNeSt.convert import preflight
from ResNeSt.convert.conversion import Conversion, check
from ResNeSt.convert.finding import Finding
from ResNeSt.convert.host import PACKAGES
from ResNeSt.convert.preflight import report
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
        self.python("3.10.12")
        (self.tools / "atc").symlink_to(release / "atc")
        shutil.copy(network, self.work / "m.onnx")
        monkeypatch.setenv("PATH", f"{self.tools}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.chdir(self.work)

    def python(self, version: str, numpy: str = "1.24.4", *missing: str) -> None:
        """The python3 on PATH and its NumPy are of these versions, and it lacks these modules."""
        says = json.dumps({"python": version, "numpy": numpy or None, "missing": missing})
        script(self.tools / "python3", f"echo a warning; echo '{says}'")

    def release(self, name: str) -> Path:
        """The folder that CANN is in, under this name now."""
        current = Path(os.path.realpath(self.tools / "atc")).parents[1]
        current.rename(current.parent / name)
        (self.tools / "atc").unlink()
        (self.tools / "atc").symlink_to(current.parent / name / "bin/atc")
        return current.parent / name

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
    subjects = "atc opset python3 numpy packages driver operators disk memory paths umask card"
    assert set(subjects.split()) == set(found)
    assert found["atc"].startswith("ok CANN 8.0.RC1, ")
    assert found["opset"] == "ok 11, CANN 8.0.RC1 takes 11 to 18"
    assert [path.name for path in host.work.iterdir()] == ["m.onnx"]
    host.python("3.12.1")
    assert_refused(call("convert.sh", *flags, cwd=host.work), "1 of 12 checks fail: python3; see above")


def test_one_finding_that_fails_is_enough_and_notes_do_not_fail(capsys: pytest.CaptureFixture[str]) -> None:
    report([Finding("ok", "opset", "11"), Finding("note", "card", "none")])
    assert capsys.readouterr().out == "ok     opset      11\nnote   card       none\n"
    with pytest.raises(PipelineError, match=r"^2 of 3 checks fail: atc, disk; see above$"):
        report([Finding("FAILS", "atc", ""), Finding("note", "card", ""), Finding("FAILS", "disk", "")])


# What CANN's install documents take, and where one of them says something else than another.
@pytest.mark.parametrize(
    ("release", "python", "numpy", "verdicts"),
    [
        ("8.0.RC1", "3.7.0", "1.19.2", "ok ok"),
        ("8.0.RC1", "3.6.9", "1.19.1", "FAILS FAILS"),
        ("8.3.RC1", "3.11.4", "1.24.4", "ok ok"),
        ("8.2.0", "3.11.14", "1.26.4", "note note"),  # as container images have it; as CANN's advice on NumPy 2 has it
        ("8.1.RC1", "3.12.0", "2.0.0", "FAILS FAILS"),
        ("8.5.0", "3.12.1", "1.26.4", "ok ok"),
        ("8.5.2", "3.12.1", "2.1.0", "ok FAILS"),
        ("8.5.0", "3.13.0", "2.1.3", "ok ok"),
        ("8.5.0", "3.13.0", "1.26.4", "ok note"),
        ("8.5.0", "3.14.0", "2.1.3", "FAILS ok"),
        ("cann-9.0.0", "3.11.9", "2.3.0", "ok ok"),
        ("cann-9.0.0", "3.12.3", "1.19.2", "note ok"),
        ("cann-9.0.0", "3.13.1", "1.19.1", "note FAILS"),
        ("cann-9.0.0", "3.14.0", "2.3.0", "FAILS ok"),
        ("cann-9.1.0", "3.14.2", "2.3.0", "ok ok"),
        ("cann-9.1.0", "3.15.0", "3.0.0", "FAILS ok"),
        # The first betas of a release are documented as the one before still.
        ("8.5.0.alpha001", "3.12.1", "1.26.4", "note note"),
        ("9.0.0-beta.1", "3.11.9", "2.0.0", "ok note"),
        ("9.0.0-beta.1", "3.14.0", "1.24.4", "FAILS note"),
        ("9.1.0-beta3", "3.14.0", "1.24.4", "note ok"),
        # Not on record.
        ("10.0.0", "3.10.1", "1.24.4", "note note"),
        ("9.10.0", "3.10.1", "1.24.4", "note note"),
        ("7.0.0", "3.12.1", "2.0.0", "note note"),
        ("latest", "3.10.1", "1.24.4", "ok ok"),
        ("latest", "3.12.1", "2.0.0", "note note"),
    ],
)
def test_python_and_numpy_are_held_to_the_release_s_documents(
    release: str, python: str, numpy: str, verdicts: str, host: Host
) -> None:
    host.release(release)
    host.python(python, numpy)
    found = host.check()
    assert found["python3"].startswith(f"{verdicts.split()[0]} {python}")
    assert found["numpy"].startswith(f"{verdicts.split()[1]} {numpy}")


def test_what_a_release_takes_is_told_with_what_to_do(host: Host) -> None:
    host.python("3.12.1", "2.0.0")
    found = host.check()
    assert found["python3"] == "FAILS 3.12.1, CANN 8.0.RC1 takes 3.7 to 3.11.4; put such a python3 first on PATH"
    assert found["numpy"] == ("FAILS 2.0.0, CANN 8.0.RC1 takes 1.19.2 to 1.24; python3 -m pip install 'numpy<1.25'")
    host.release("8.5.0")
    assert host.check()["numpy"].endswith("takes 1.19.2 to below 2; python3 -m pip install 'numpy<2'")
    host.release("9.0.0")
    said = host.check()["python3"]
    assert said == "note 3.12.1; the documents of CANN 9.0.0 say 3.7 to 3.11 or 3.7 to 3.13"
    host.release("10.0.0")
    assert host.check()["python3"] == "note 3.12.1; what CANN 10.0.0 takes is not on record here"


def test_packages_that_the_operator_builder_lacks_are_named_with_one_pip_line(host: Host) -> None:
    host.python("3.10.12", "", "numpy", "attr", "google.protobuf", "yaml", "absl", "ml_dtypes", "tornado")
    found = host.check()
    assert "numpy" not in found
    assert found["packages"] == (
        "FAILS python3 lacks numpy, attrs, protobuf, pyyaml, absl-py, ml-dtypes, tornado, which ATC's operator builder "
        "imports; python3 -m pip install 'numpy<1.25' attrs protobuf pyyaml absl-py ml-dtypes tornado"
    )


def test_the_packages_are_asked_of_the_python_that_atc_starts(host: Host, tmp_path: Path) -> None:
    """One without packages, beside stubs of some."""
    stubs = tmp_path / "stubs"
    for name in ("attr", "google/protobuf", "yaml", "numpy"):
        (stubs / name).mkdir(parents=True)
        (stubs / name / "__init__.py").write_text("__version__ = '1.23.5'\n")
    script(host.tools / "python3", f'PYTHONPATH="{stubs}" exec "{sys.executable}" -S "$@"')
    found = host.check()
    assert found["python3"].split()[1].rstrip(";,") == ".".join(map(str, sys.version_info[:3]))
    assert found["numpy"].startswith("ok 1.23.5")
    lacked = found["packages"].partition(" lacks ")[2].partition(", which")[0].split(", ")
    assert set(lacked) == set(PACKAGES.values()) - {"attrs", "protobuf", "pyyaml", "numpy"}
    script(host.tools / "python3", "exit 1")
    assert host.check()["python3"].startswith("FAILS cannot be started")


# The driver's library and the chip's operators


ARCH = f"{platform.machine()}-linux"


def installed(root: Path, package: str, version: str = "8.5.0") -> None:
    """What CANN's installer records of a package."""
    kind = "toolkit" if package.endswith("toolkit") else "ops"
    (root / ARCH).mkdir(exist_ok=True, parents=True)
    (root / ARCH / f"ascend_{kind}_install.info").write_text(f"package_name={package}\nversion={version}\n")


def operators(root: Path, chip: str) -> str:
    """What is found of the chip's operators beside the toolkit in `root`."""
    (finding,) = host_findings._operators(cann.Toolkit(str(root / "bin/atc"), {}), chip)
    return f"{finding.verdict} {finding.text}"


def test_without_a_driver_the_toolkit_s_stub_is_told_with_the_line_that_exports_it(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cann, "DRIVER_FOLDERS", [])
    monkeypatch.setenv("LD_LIBRARY_PATH", "/nowhere")
    assert host.check()["driver"].startswith("note no libascend_hal.so here; ")
    devlib = host.release("8.1.RC1") / ARCH / "devlib"
    devlib.mkdir(parents=True)
    export = f"export LD_LIBRARY_PATH=$LD_LIBRARY_PATH:{devlib}"
    assert host.check()["driver"] == f"note none here; convert.sh gives ATC the toolkit's stub, by hand: {export}"
    (devlib / "libascend_hal.so").touch()
    monkeypatch.setenv("LD_LIBRARY_PATH", f"/nowhere:{devlib}")
    assert host.check()["driver"] == f"ok {devlib}/libascend_hal.so"


@pytest.mark.parametrize(
    ("chip", "series"),
    [
        *(("310P3", "310p"), ("310B4", "310b"), ("910A", "910"), ("910B", "910"), ("910PremiumA", "910")),
        *(("910B3", "910b"), ("910B4-1", "910b"), ("910_9392", "a3"), ("950PR_9589", "950"), ("950DT_95A1", "950")),
    ],
)
def test_from_8_5_on_the_operators_are_those_of_the_chip_s_series(chip: str, series: str, tmp_path: Path) -> None:
    root = tmp_path / "cann-8.5.0"
    installed(root, "Ascend-cann-toolkit")
    found = operators(root, chip)
    assert found.startswith("FAILS no ascend_ops_install.info in ")
    assert f"the package Ascend-cann-{series}-ops 8.5.0 beside the toolkit" in found
    for package in ("310p", "310b", "910", "910b", "A3", "950"):
        installed(root, f"Ascend-cann-{package}-ops")
        found = operators(root, chip)
        if package.lower() == series:
            assert found == f"ok Ascend-cann-{package}-ops"
        else:
            assert found.startswith(f"FAILS Ascend-cann-{package}-ops is installed beside the toolkit, {chip} needs ")


def test_up_to_8_3_the_toolkit_brings_the_operators(tmp_path: Path) -> None:
    root = tmp_path / "8.3.RC1"
    installed(root, "Ascend-cann-toolkit", "8.3.RC1")
    toolkit = cann.Toolkit(str(root / "bin/atc"), {})
    assert str(toolkit.release) == "8.3.RC1"
    assert list(host_findings._operators(toolkit, "310P3")) == []


def test_what_cannot_be_told_of_the_operators_is_a_note(tmp_path: Path) -> None:
    root = tmp_path / "cann-9.0.0"
    (root / ARCH).mkdir(parents=True)
    assert operators(root, "310P3").startswith("note no ascend_ops_install.info in ")
    (root / "opp/built-in/op_impl/ai_core/tbe/config/ascend310p").mkdir(parents=True)
    assert operators(root, "310P3").startswith("ok of 310p in ")
    installed(root, "Ascend-cann-950-ops")
    found = operators(root, "350_354f")
    assert found == "note Ascend-cann-950-ops is installed; whether it is for 350_354f is not on record here"


def test_the_operators_are_checked_with_all_else(host: Host) -> None:
    root = host.release("cann-8.5.0")
    installed(root, "Ascend-cann-toolkit")
    installed(root, "Ascend-cann-910b-ops")
    assert host.check()["ops"].startswith("FAILS Ascend-cann-910b-ops is installed")


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
    (finding,) = preflight._opset(SimpleNamespace(path=Path("m.onnx")), cann.parse_release(release))  # type: ignore[arg-type]
    assert finding.text.startswith(f"{opset}, CANN {release} takes ")
    assert (finding.verdict == "ok") == takes
    assert ("export with --opset 11" in finding.text) == (not takes)


def test_of_a_release_that_is_not_known_every_one_takes_11(host: Host) -> None:
    host.release("latest")
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
    (host.tools / "npu-smi").unlink()
    assert host.check()["card"].startswith("note no npu-smi here; ATC needs no card")


@pytest.mark.parametrize(
    ("machine", "says"),
    [
        ("none", "npu-smi lists no card (exit code 1: dcmi module initialize failed. ret is -8005); ATC needs none"),
        ("used", "npu-smi: dcmi model initialized failed, because the device is used. ret is -8020; end what holds"),
        ("950", "950PR_9589, a model for 310P3 will not run on it; compile for 950PR_9589"),
    ],
)
def test_what_npu_smi_says_of_the_card_is_a_note(
    machine: str, says: str, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN_NPU", machine)
    assert host.check()["card"].startswith(f"note {says}")


def test_a_chip_that_is_not_on_record_is_a_note(host: Host) -> None:
    found = host.check("950PR_9589")
    assert found["chip"].startswith("note chip 950PR_9589 is not on record here; ")
    assert found["operators"].endswith("are on record for the 310P; there is no table of 950PR_9589 here")
    assert not [finding for finding in host.found if finding.verdict == "FAILS"]


@pytest.mark.parametrize(("opset", "verdict"), [(11, "ok"), (14, "ok"), (15, "FAILS"), (18, "FAILS")])
def test_for_int8_amct_s_own_operator_sets_count(
    opset: int, verdict: str, host: Host, standins: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{host.tools}{os.pathsep}{standins['PATH']}")
    model = onnx.load("m.onnx")
    model.opset_import[0].version = opset
    onnx.save(model, "m.onnx")
    assert host.check()["opset"].startswith("ok ")
    found = host.check(precision="int8")["amct"]
    assert found.startswith(verdict)
    assert (f"operator set {opset}, AMCT takes 8 to 14; export with --opset 11" in found) == (verdict == "FAILS")


def test_for_int8_amct_is_looked_for(host: Host) -> None:
    assert "amct" not in host.check()
    assert host.check(precision="int8")["amct"].startswith("FAILS amct_onnx is not here")


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
