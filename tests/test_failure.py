"""What is said where ATC fails, and that nothing of it is left when it or its caller is ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ResNeSt.common import files, tool
from ResNeSt.common.errors import ArgumentError
from ResNeSt.common.tool import Ended
from ResNeSt.convert.failure import explain, processes
from tests.conftest import PROJECT

# As ATC 8.0 to 9.0 print it.
LACKS = """\
ATC start working now, please wait for a moment.
ATC run failed, Please check the detail log, Try 'atc --help' for more information
EC0010: [PID: 1] 2025-07-08-10:25:28 Failed to import Python module [ModuleNotFoundError: No module named '{}'.].
        Solution: Check that all required components are properly installed.
        TraceBack (most recent call last):
        Failed to initialize TeConfigInfo.
"""
INNER = """\
ATC start working now, please wait for a moment.
Traceback (most recent call last):
  File "/usr/local/Ascend/latest/python/site-packages/te_fusion/fusion_manager.py", line 1287, in build
    op_func(*args)
KeyError: 'axis'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/usr/local/Ascend/latest/python/site-packages/te_fusion/parallel_compilation.py", line 31, in <module>
    {line}
{error}
ATC run failed, Please check the detail log, Try 'atc --help' for more information
EZ9999: Inner Error!
EZ9999: [PID: 7] 2025-07-08-10:25:28.680.962 Compile op[conv] failed, oppath[conv2d.py][FUNC:Compile][LINE:9]
        TraceBack (most recent call last):
        Failed to build graph.[FUNC:Build][FILE:builder.cc][LINE:47]
"""


@pytest.mark.parametrize(
    ("module", "package"),
    [
        *(
            ("decorator", "decorator"),
            ("attr", "attrs"),
            ("yaml", "pyyaml"),
            ("absl", "absl-py"),
            ("google", "protobuf"),
        ),
        *(("google.protobuf", "protobuf"), ("scipy.special", "scipy"), ("ml_dtypes", "ml-dtypes"), ("synr", "synr")),
    ],
)
def test_a_package_that_the_operator_builder_lacks_is_named_with_its_pip_line(module: str, package: str) -> None:
    said = explain(Ended(255, LACKS.format(module)))
    assert said == f"failed (exit code 255); its python3 lacks {package}: python3 -m pip install {package}"


def test_a_module_of_cann_s_own_is_no_package_to_install() -> None:
    said = explain(Ended(255, LACKS.format("tbe.common")))
    assert said == "failed (exit code 255); tbe is a part of CANN: source its set_env.sh in this shell"


def test_a_numpy_that_is_too_new_is_told_by_what_it_no_longer_has() -> None:
    reason = "AttributeError: `np.float_` was removed in the NumPy 2.0 release. Use `np.float64` instead."
    said = explain(Ended(255, LACKS.replace("ModuleNotFoundError: No module named '{}'.", reason)))
    assert said.endswith("NumPy 2 is too new for this CANN: python3 -m pip install 'numpy<2'")


def test_another_reason_why_the_builder_does_not_start_leads_to_the_check() -> None:
    said = explain(
        Ended(255, LACKS.replace("ModuleNotFoundError: No module named '{}'.", "ImportError: libpython3.9.so"))
    )
    assert said.startswith("failed (exit code 255); EC0010: the operator builder does not start: run with --check")


def test_of_a_python_traceback_before_an_inner_error_the_last_line_is_said_and_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = "RuntimeError: the tiling of conv2d does not fit L1"
    said = explain(Ended(255, INNER.format(line="raise error", error=error)))
    assert said.startswith(f"failed (exit code 255); its Python says {error}; EZ9999: ")
    shown = capsys.readouterr().err.splitlines()
    assert shown[-1] == error
    assert shown[0] == "EZ9999: Inner Error!"
    assert not [line for line in shown if "File " in line or "KeyError" in line]


def test_a_traceback_that_names_a_missing_module_gets_its_pip_line() -> None:
    said = explain(Ended(1, INNER.format(line="import psutil", error="ModuleNotFoundError: No module named 'psutil'")))
    assert said.endswith("No module named 'psutil'; its python3 lacks psutil: python3 -m pip install psutil")


def test_a_code_that_says_more_counts_before_the_inner_error() -> None:
    output = "EZ9999: Inner Error!\nEZ3003: No supported Ops kernel and engine are found for [conv], optype [Conv2D].\n"
    assert "EZ3003: the chip has no kernel" in explain(Ended(255, output))


@pytest.mark.parametrize("code", [-9, 137])
@pytest.mark.parametrize(("now", "few"), [(None, 2), ("32", 8), ("2", 1), ("1", None)])
def test_a_compiler_that_is_killed_gets_fewer_processes(
    code: int, now: str | None, few: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """8 are what it takes where the variable is not set."""
    monkeypatch.delenv("TE_PARALLEL_COMPILER", raising=False)
    if now is not None:
        monkeypatch.setenv("TE_PARALLEL_COMPILER", now)
    said = explain(Ended(code, "ATC start working now, please wait for a moment.\n"))
    assert said.startswith(f"was killed ({code}, SIGKILL), most likely for want of memory; it built ")
    assert (f" built {now or 8} operators" in said) == (few is not None)
    assert (f"export TE_PARALLEL_COMPILER={few} and run the same command again" in said) == (few is not None)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        *((-11, "SIGSEGV"), (139, "SIGSEGV"), (134, "SIGABRT"), (-15, "SIGTERM"), (1, "exit code 1")),
        *((255, "exit code 255"), (126, "exit code 126"), (127, "exit code 127"), (128, "exit code 128")),
    ],
)
def test_how_it_ended_is_told_by_the_signal_s_name_or_the_code(code: int, said: str) -> None:
    assert explain(Ended(code, "no reason\n")).startswith(f"failed ({said}); --log error shows all that it says")


@pytest.mark.parametrize("output", ["", "\n", " \n\n"])
def test_a_compiler_that_says_nothing_leaves_no_empty_line(output: str, capsys: pytest.CaptureFixture[str]) -> None:
    explain(Ended(1, output))
    assert capsys.readouterr().err == ""


LOADER = "atc: error while loading shared libraries: {}: cannot open shared object file: No such file or directory\n"


@pytest.mark.parametrize(
    ("library", "advice"),
    [("libascend_hal.so", "put devlib of CANN's <arch>-linux on LD_LIBRARY_PATH"), ("libge_compiler.so", "set_env.sh")],
)
def test_a_library_that_atc_or_its_python_does_not_find_is_named_with_what_to_do(library: str, advice: str) -> None:
    reason = f"ImportError: {library}: cannot open shared object file: No such file or directory"
    for output in (LOADER.format(library), LACKS.replace("ModuleNotFoundError: No module named '{}'.", reason)):
        said = explain(Ended(127, output))
        assert said.startswith(f"failed (exit code 127); {library} is not found")
        assert advice in said


def test_a_library_that_is_not_the_reason_is_not_asked() -> None:
    said = explain(Ended(255, f"{LOADER.format('libextra.so')}EZ3003: No supported Ops kernel for [conv].\n"))
    assert said.startswith("failed (exit code 255); EZ3003: ")


@pytest.mark.parametrize("value", ["0", "33", "-1", "two", "8.0", "³"])
def test_a_number_of_processes_that_atc_does_not_take_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TE_PARALLEL_COMPILER", value)
    with pytest.raises(ArgumentError, match="expected a whole number from 1 to 32; unset it"):
        processes()
    said = explain(Ended(-9, ""))  # where it failed already, how it failed counts
    assert said.startswith("was killed (-9, SIGKILL), most likely for want of memory; TE_PARALLEL_COMPILER=")


# Running it


def test_a_tool_s_output_and_code_come_back_whatever_its_children_do(tmp_path: Path) -> None:
    """A pipe would stay open for as long as the child sleeps."""
    before = time.monotonic()
    script = "echo here; sleep 60 & echo $! > pid; echo caf\\xe9; kill -9 $$"
    ended = tool.run(["sh", "-c", script], tmp_path, os.environ)
    assert time.monotonic() - before < 30
    assert (ended.code, ended.output[:5], ended.signal) == (-9, "here\n", "SIGKILL")
    assert not is_running(int((tmp_path / "pid").read_text()))
    assert [path.name for path in tmp_path.iterdir()] == ["pid"]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, None), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGKILL, -9)]
)
def test_a_caller_that_is_ended_takes_the_tool_with_it(number: int, code: int | None, tmp_path: Path) -> None:
    program = (
        "import os, sys\n"
        "from ResNeSt.common import files, tool\n"
        "with files.scratch_folder(sys.argv[1], 'atc') as folder:\n"
        "    tool.run(['sh', '-c', 'sleep 60 & sleep 0.2; echo $! $$ > ../pids; wait'], folder, os.environ)\n"
    )
    caller = subprocess.Popen([sys.executable, "-c", program, tmp_path], cwd=PROJECT, stderr=subprocess.DEVNULL)
    pids = tmp_path / "pids"
    while not (pids.exists() and pids.read_text().endswith("\n")):
        time.sleep(0.02)
    caller.send_signal(number)
    assert caller.wait(timeout=30) == (code or caller.returncode)
    assert not [pid for pid in pids.read_text().split() if is_running(int(pid))]
    with files.scratch_folder(tmp_path, "atc") as folder:  # whoever is killed outright leaves his to the next
        assert {path.name for path in tmp_path.iterdir()} == {"pids", folder.name}


def test_what_outlives_the_watch_is_left_alone() -> None:
    with subprocess.Popen(["sleep", "60"]) as sleeping:
        with tool.ended_with_us(signal.SIGKILL) as watch:
            watch(sleeping.pid)
        with pytest.raises(subprocess.TimeoutExpired):
            sleeping.wait(0.2)
        sleeping.kill()


def is_running(pid: int) -> bool:
    """Five seconds on, since a killed process does not end at once."""
    for _ in range(250):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return False
        except (FileNotFoundError, ProcessLookupError):
            return False
        time.sleep(0.02)
    return True
