"""Programs weighed from outside, and what they do where their output, their streams or their folder are odd."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ResNeSt.common.timed_process import spend
from tests.conftest import PROJECT, call

IMPORTS = "import sys; from ResNeSt.common.timed_process import spend"


def test_exit_code_time_and_memory_are_those_of_the_process() -> None:
    code = "import time; held = bytearray(300_000_000); time.sleep(0.3); raise SystemExit(7)"
    # From a small process, since the kernel counts what the caller holds, and a test run holds much.
    spend = f"spend([sys.executable, '-S', '-c', {code!r}])"
    weigh = f"import sys; from ResNeSt.common.timed_process import spend; print(*{spend})"
    exit_code, seconds, peak_bytes = map(float, call("-c", weigh, fresh=True).stdout.split())
    assert exit_code == 7
    assert 0.3 <= seconds < 30
    assert 300e6 < peak_bytes < 600e6


def test_memory_of_a_child_that_it_started_counts() -> None:
    child = "held = bytearray(300_000_000)"
    found = spend([sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"])
    assert found.peak_bytes > 300e6


def test_a_program_that_is_not_there_is_an_os_error() -> None:
    with pytest.raises(FileNotFoundError):
        spend(["no-such-program"])


def test_a_reader_that_has_gone_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "ResNeSt.models", "--json"]
    result = subprocess.run(command, cwd=PROJECT, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (result.returncode, result.stderr) == (141, "")


def test_a_full_disk_behind_stdout_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "ResNeSt.models"]
        result = subprocess.run(command, cwd=PROJECT, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (result.returncode, result.stderr) == (1, "error: No space left on device\n")


def test_a_name_that_stdout_has_no_letters_for_is_printed_all_the_same(tmp_path: Path) -> None:
    shutil.copy(next((PROJECT / "demo/val").iterdir()), tmp_path / "Bär.png")
    (tmp_path / "val_label.txt").write_text("Bär 0\nReh 1\n")
    result = call(
        "-m", "ResNeSt.labels", "check", "val_label.txt", ".", cwd=tmp_path, env={"PYTHONIOENCODING": "ascii"}
    )
    assert (result.returncode, result.stderr) == (1, "")
    os.rename(os.fsencode(tmp_path / "Bär.png"), os.fsencode(tmp_path) + b"/B\xe4r.png")
    result = call("-m", "ResNeSt.labels", "check", "val_label.txt", ".", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (1, "")
    assert "extra: 1 images have no label, such as ./B" in result.stdout


def test_a_caller_without_streams_is_served(tmp_path: Path) -> None:
    code = (
        "import sys; sys.stdout = sys.stderr = None\n"
        "from ResNeSt.common.progress import aloud, hidden\n"
        "from ResNeSt.tensors.format import TensorFormat\n"
        "from ResNeSt.images.preprocess import preprocess\n"
        f"done = preprocess({str(PROJECT / 'demo/val')!r}, {str(tmp_path)!r},"
        " TensorFormat('resize-bilinear', 8, 'uint8', (0, 0, 0), (1, 1, 1)))\n"
        "aloud('line')\n"
        "sys.exit(0 if done.written == 396 else 1)"
    )
    assert call("-c", code, fresh=True).returncode == 0


def test_the_package_is_imported_where_the_current_folder_has_been_deleted(tmp_path: Path) -> None:
    code = "import os, sys; os.rmdir(os.getcwd()); import ResNeSt.pipeline"
    result = call("-c", code, cwd=tmp_path, fresh=True)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_caller_that_is_ended_takes_along_what_it_runs(number: int, tmp_path: Path) -> None:
    """The inference client would hold the card for as long as its loop takes."""
    pid = tmp_path / "pid"
    inner = f"spend(['sh', '-c', 'echo $$ > {pid}; exec sleep 60'])"
    outer = f"spend([sys.executable, '-c', {f'{IMPORTS}; {inner}'!r}])"  # as run.sh runs bench.sh
    caller = subprocess.Popen([sys.executable, "-c", f"{IMPORTS}; {outer}"], cwd=PROJECT)
    while not (pid.exists() and pid.read_text().endswith("\n")):
        time.sleep(0.02)
    caller.send_signal(number)
    assert caller.wait(timeout=30) == (128 + number if number != signal.SIGKILL else -number)
    deadline = time.monotonic() + 30  # of a caller that was killed, others learn a moment later
    while Path("/proc", pid.read_text().strip()).exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_waiting_process_runs_commands_with_the_umask_limits_and_stdin_of_who_asks(tmp_path: Path) -> None:
    (tmp_path / "given").write_text("said\n")
    size, before = resource.getrlimit(resource.RLIMIT_FSIZE), os.umask(0o027)
    kept = os.dup(0)
    try:
        with open(tmp_path / "given") as given:
            os.dup2(given.fileno(), 0)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, size[1]))
        code = "import os, resource, sys; print(input(), os.umask(0), resource.getrlimit(resource.RLIMIT_FSIZE)[0])"
        found = call("-c", code)
    finally:
        os.umask(before)
        os.dup2(kept, 0)
        os.close(kept)
        resource.setrlimit(resource.RLIMIT_FSIZE, size)
    assert (found.stdout, found.stderr) == (f"said {0o027} {1 << 30}\n", "")
