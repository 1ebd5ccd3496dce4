"""The set-up of run.sh and test.sh."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.conftest import PROJECT, assert_refused, call


def test_a_python_without_the_packages_is_named_in_one_line(tmp_path: Path) -> None:
    bare = tmp_path / "python3"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    for script in ("convert.sh", "bench.sh"):
        result = call(script, "1", "cpu", env={"PYTHON": str(bare)}, fresh=True)
        assert_refused(result, "python3 lacks numpy, pillow or tqdm; activate an environment", code=3)


def use_environment(folder: Path) -> subprocess.CompletedProcess[str]:
    """What env.sh does in `folder` without an active environment; the last line is the one that it uses."""
    shutil.copy(PROJECT / "env.sh", folder)
    (folder / "none.txt").touch()
    environment = {**os.environ, "PYTHON": sys.executable}
    environment.pop("VIRTUAL_ENV", None)
    script = '. ./env.sh && use_environment none.txt && python -c "import sys; print(sys.prefix)"'
    return subprocess.run(["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True)


def test_an_environment_that_was_only_half_made_is_made_again_and_nothing_is_installed_elsewhere(
    tmp_path: Path,
) -> None:
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").symlink_to(sys.executable)  # venv writes bin/activate last
    (tmp_path / ".venv/.resnest-unfinished").touch()
    result = use_environment(tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == str(tmp_path / ".venv")
    assert not (tmp_path / ".venv/.resnest-unfinished").exists()


def test_requirements_that_could_not_be_installed_are_asked_for_again(tmp_path: Path) -> None:
    """By a pip that fails at first, with the lines of a real one, and is called once more and no third time."""
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin/python"
    (tmp_path / "none.txt").touch()
    (tmp_path / "some.txt").write_text("numpy\n")
    shutil.copy(PROJECT / "env.sh", tmp_path)
    environment = {
        **os.environ,
        "VIRTUAL_ENV": str(tmp_path),
        "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}",
    }
    command = [
        "bash",
        "-c",
        ". ./env.sh; use_environment none.txt some.txt; code=$?; ls -A | grep -c resnest-; exit $code",
    ]
    for code, stamps, calls in ((7, "0", 1), (0, "1", 3), (0, "1", 3)):
        python.write_text(f"#!/bin/sh\necho Collecting numpy\necho $@ >>{tmp_path / 'calls'}\nexit {code}\n")
        python.chmod(0o755)
        result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert (result.returncode != 0) == (code != 0)
        assert result.stdout.splitlines()[-1] == stamps
        assert len((tmp_path / "calls").read_text().splitlines()) == calls


def test_a_venv_of_another_kind_is_not_wiped(tmp_path: Path) -> None:
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/precious").touch()
    assert_refused(use_environment(tmp_path), ".venv is there and no virtual environment; move it away")
    assert (tmp_path / ".venv/precious").exists()
