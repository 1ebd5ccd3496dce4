"""What a program loads that runs models on an Ascend chip: the environment that leads to it, and what is missing."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from ResNeSt.common.cann import set_env_scripts, sourced

LIBRARY = "libascendcl.so"
_NOT_FOUND = re.compile(r"(lib[\w.+-]+\.so[\w.]*): cannot open shared object file")
_NOT_INSTALLED = re.compile(r"No module named '([\w.]+)'")


def environment() -> dict[str, str]:
    """The environment for a program that runs models: this one, or that of CANN's set_env.sh if it was not sourced.

    Without the library on LD_LIBRARY_PATH it is the first script's that puts it there, else the first script's.
    """
    own = dict(os.environ)
    return own if has_library(own) else _sourced()[1]


def _sourced() -> tuple[Path | None, dict[str, str]]:
    """The script that leads to the library, else the first one, and what it makes of the environment."""
    made = [(script, found) for script in set_env_scripts() if (found := sourced(script))]
    leading = (each for each in made if has_library(each[1]))
    return next(leading, made[0] if made else (None, dict(os.environ)))


def has_library(environment: Mapping[str, str]) -> bool:
    """Whether LD_LIBRARY_PATH leads to what runs models."""
    return library(environment) is not None


def library(environment: Mapping[str, str]) -> str | None:
    """What runs models, where LD_LIBRARY_PATH leads to it: without links, so that its folder tells the release."""
    folders = environment.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    paths = (os.path.join(folder, LIBRARY) for folder in folders if folder)
    return next((os.path.realpath(path) for path in paths if os.path.isfile(path)), None)


def library_in(text: str) -> str | None:
    """The library that a program or Python says it does not find, in all that it printed."""
    found = _NOT_FOUND.search(text)
    return found[1] if found else None


def not_imported(text: str) -> str | None:
    """What to do where an ImportError's text names a library or package that ais_bench lacks; else None."""
    library, package = library_in(text), _NOT_INSTALLED.search(text)
    if library:
        script, _ = _sourced()
        where = shlex.quote(str(script)) if script else "<folder of CANN>/set_env.sh"
        return (
            f"{library} is not found: CANN's set_env.sh has not been sourced in this shell, or CANN or the "
            f"driver is not whole; run: source {where}"
        )
    if package and package[1].split(".")[0] != "ais_bench":
        return f"{package[1]} is not installed for {sys.executable}, ais_bench needs it; requirements/npu.txt says how"
    return None
