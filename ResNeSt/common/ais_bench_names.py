"""Names and paths as ais_bench has them: its order, where it cuts a name, and the paths that it takes."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import PathLike


def natural_key(name: PathLike) -> str:
    """Sort key that puts img2 before img10, as ais_bench orders its inputs.

    A string, since a million keys are held at once: each number stands behind a character that no name has and one
    for how many digits it has.
    """
    return re.sub(r"\d+", _sortable, os.fspath(name))


def _sortable(number: re.Match[str]) -> str:
    digits = str(int(number[0]))
    return f"\0{chr(len(digits))}{digits}"


def stem(path: PathLike) -> str:
    """File name up to the FIRST dot, which is where ais_bench cuts (contract: ais_bench, output file)."""
    return os.path.basename(os.fspath(path)).split(".", 1)[0]


ALLOWED_PATH = re.compile(r"[_A-Za-z0-9/.-]+")
WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def check_path(path: PathLike) -> None:
    """Raises PipelineError for a path that ais_bench would refuse: odd characters, a symbolic link on the way."""
    path = Path(path)
    if not ALLOWED_PATH.fullmatch(str(path)):
        raise PipelineError(f"{path}: ais_bench takes only letters, digits and _ - . / in a path; rename it")
    for part in [path, *path.parents]:
        if part.is_symlink():
            raise PipelineError(f"{part}: is a symbolic link, which ais_bench refuses; give the path it points to")
