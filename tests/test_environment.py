"""The set-up of run.sh and test.sh."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from tests.conftest import PROJECT


def test_an_environment_that_was_only_half_made_is_made_again_and_nothing_is_installed_elsewhere(tmp_path):
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
