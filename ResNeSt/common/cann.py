"""CANN on this machine: its environment scripts, the environment that they make, and the programs found there."""

from __future__ import annotations

import dataclasses
import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Toolkit:
    """Where atc lies, and the environment variables it runs under."""

    atc: str
    environment: dict[str, str]


def find_toolkit() -> Toolkit | None:
    """The atc on PATH, or the one that the first set_env.sh which has one puts there; None without either."""
    scripts = (script for script in set_env_scripts() if script.is_file())
    for environment in itertools.chain([dict(os.environ)], map(sourced, scripts)):
        atc = shutil.which("atc", path=environment.get("PATH", ""))
        if atc is not None:
            return Toolkit(os.path.abspath(atc), environment)
    return None


def set_env_scripts() -> Iterator[Path]:
    """Where CANN's environment script may lie, the likeliest first; it need not be there."""
    for variable in ("ASCEND_TOOLKIT_HOME", "ASCEND_HOME_PATH"):
        if os.environ.get(variable):
            home = Path(os.environ[variable])
            yield home.parent / "set_env.sh"
            yield home / "set_env.sh"
    yield Path("/usr/local/Ascend/ascend-toolkit/set_env.sh")  # up to CANN 8.3
    yield Path("/usr/local/Ascend/cann/set_env.sh")  # from 8.5 on


def sourced(script: Path) -> dict[str, str]:
    """The environment after `source script`; its exit code says little, since it is that of its last line."""
    command = ["bash", "-c", 'source "$1" >/dev/null 2>&1; env -0', "bash", str(script.absolute())]
    output = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE).stdout
    pairs = (os.fsdecode(entry).partition("=") for entry in output.split(b"\0") if entry)
    return {key: value for key, _, value in pairs}
