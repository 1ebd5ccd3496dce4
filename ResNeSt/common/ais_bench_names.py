"""Names as ais_bench has them: its order, and where it cuts a name."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Sequence

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


LONGEST_NAME = 200  # bytes of `whole_name`; a file system takes 255, and names of results are a little longer


def whole_name(path: str) -> str:
    """A name without dots that says all of a relative path: n01/a.jpg becomes n01__a_jpg.

    One that is longer than a file name may be is cut, and ends in a digest of the path.
    """
    name = path.replace("/", "__").replace(".", "_")
    if len(os.fsencode(name)) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    return f"{os.fsencode(name)[-LONGEST_NAME:].decode(errors='ignore')}-{digest}"


def distinct_names(paths: Sequence[str]) -> list[str]:
    """A name for each relative path whose stem no other has: its own, or the `whole_name` where others have its stem.

    Raises PipelineError where that leaves two with one name.
    """
    counts = Counter(map(stem, paths))
    names = [os.path.basename(path) if counts[stem(path)] == 1 else whole_name(path) for path in paths]
    taken: dict[str, str] = {}
    for name, path in zip(names, paths):
        other = taken.setdefault(stem(name), path)
        if other is not path:
            raise PipelineError(f"{other} and {path} would both be called {stem(name)}; rename one")
    return names
