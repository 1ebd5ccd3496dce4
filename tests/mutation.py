"""How many small faults the tests notice: `python -m tests.mutation ResNeSt/common/journal.py`, or no name for all.

cosmic-ray plants them one at a time in a copy of the project and runs the module's own tests for each; what survives is
printed, to get a test or to be found equivalent. A fault takes seconds. Needs requirements/mutation.txt; no part of
test.sh.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.conftest import PROJECT

# The modules whose every line decides a figure or what an earlier run's is taken for, and the tests that hold them.
TESTS = {
    "ResNeSt/common/journal.py": "tests/test_journal.py",
    "ResNeSt/compare/agreement.py": "tests/test_figures.py",
    "ResNeSt/convert/calibration.py": "tests/test_calibration.py",
    "ResNeSt/convert/gate.py": "tests/test_calibration.py",
    "ResNeSt/convert/preflight.py": "tests/test_preflight.py",
    "ResNeSt/images/recipes.py": "tests/test_recipes.py",
    "ResNeSt/infer/client.py": "tests/test_client.py",
    "ResNeSt/score/outputs.py": "tests/test_outputs.py tests/test_scoring.py",
    "ResNeSt/score/ranking.py": "tests/test_figures.py tests/test_outputs.py",
    "ResNeSt/score/score.py": "tests/test_scoring.py",
    "ResNeSt/tensors/folder.py": "tests/test_tensors.py",
    "ResNeSt/tensors/format.py": "tests/test_tensors.py",
    "ResNeSt/tensors/shards.py": "tests/test_tensors.py",
    "ResNeSt/tensors/sources.py": "tests/test_tensors.py",
}
# Types are not evaluated, so nothing can notice that the | in one became another operator.
CONFIG = """\
[cosmic-ray]
module-path = "{module}"
timeout = 60.0
excluded-modules = []
test-command = "{python} -m pytest -n0 -x -q -p no:cacheprovider {tests}"
[cosmic-ray.distributor]
name = "local"
[cosmic-ray.filters.operators-filter]
exclude-operators = ["core/ReplaceBinaryOperator_BitOr_.*"]
"""


def main() -> None:
    """Runs the modules named on the command line."""
    for module in sys.argv[1:] or TESTS:
        with tempfile.TemporaryDirectory() as scratch:
            killed, survived = plant(module, Path(scratch, "copy"))
        print(f"{module}: {killed} of {killed + len(survived)} noticed", *survived, sep="\n", flush=True)


def plant(module: str, copy: Path) -> tuple[int, list[str]]:
    """How many faults in `module` its tests notice, and the changed lines of the others."""
    from cosmic_ray.work_db import use_db

    shutil.copytree(PROJECT, copy, ignore=shutil.ignore_patterns(".*", "__pycache__"))
    shared = PROJECT.parent / "shared"
    if shared.is_dir():
        (copy.parent / "shared").symlink_to(shared)
    config = CONFIG.format(module=module, python=sys.executable, tests=TESTS[module])
    (copy / "cr.toml").write_text(config)
    for step in ("cli init", "tools.filters.operators_filter", "cli exec"):
        name, *command = step.split()
        files = ["session.sqlite", "cr.toml"] if name.startswith("tools") else ["cr.toml", "session.sqlite"]
        subprocess.run([sys.executable, "-m", f"cosmic_ray.{name}", *command, *files], cwd=copy, check=True)
    with use_db(copy / "session.sqlite") as session:
        results = [result for _, result in session.completed_work_items if result.worker_outcome.value == "normal"]
    survived = [result for result in results if not result.is_killed]
    return len(results) - len(survived), [changed(str(result.diff)) for result in survived]


def changed(diff: str) -> str:
    """The lines that a fault took out and put in."""
    lines = (line for line in diff.splitlines() if line[:1] in ("+", "-", "@") and line[:3] not in ("+++", "---"))
    return "  " + "  ".join(line.strip() for line in lines)


if __name__ == "__main__":
    main()
