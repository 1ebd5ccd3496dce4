"""Programs weighed from outside."""

from __future__ import annotations

import sys

import pytest

from ResNeSt.common.timed_process import spend
from tests.conftest import call


def test_exit_code_time_and_memory_are_those_of_the_process() -> None:
    code = "import time; held = bytearray(300_000_000); time.sleep(0.3); raise SystemExit(7)"
    # From a small process, since the kernel counts what the caller holds, and a test run holds much.
    spend = f"spend([sys.executable, '-S', '-c', {code!r}])"
    weigh = f"import sys; from ResNeSt.common.timed_process import spend; print(*{spend})"
    exit_code, seconds, peak_bytes = map(float, call("-c", weigh).stdout.split())
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
