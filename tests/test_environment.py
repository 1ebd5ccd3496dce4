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
        result = call(script, "1", "cpu", env={"PYTHON": str(bare)})
        assert_refused(result, "python3 lacks numpy, pillow or tqdm; activate an environment", code=3)


def test_an_environment_that_was_only_half_made_is_made_again_and_nothing_is_installed_elsewhere(
    tmp_path: Path,
) -> None:
    shutil.copy(PROJECT / "env.sh", tmp_path)
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").symlink_to(sys.executable)  # venv writes bin/activate last
    (tmp_path / "none.txt").touch()
    environment = {**os.environ, "PYTHON": sys.executable}
    environment.pop("VIRTUAL_ENV", None)
    script = '. ./env.sh && use_environment none.txt && python -c "import sys; print(sys.prefix)"'
    result = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == str(tmp_path / ".venv")
