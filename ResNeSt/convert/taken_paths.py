"""Paths as CANN's compilers take them: what lies under another one they get as a copy, in a folder of such a path."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import scratch_folder

# What they all take in the real path of what they read, links resolved, and in the name of what is written (contract
# ATC; AOE's documents on banks). ATC itself takes Chinese characters, too, in some of them.
_PATH = re.compile(r"[A-Za-z0-9./_-]+")
BANKS = ("--mdl_bank_path", "--op_bank_path")  # folders
_READS, _WRITES = ("--model", "--insert_op_conf", *BANKS), "--output"
OPTIONS = (*_READS, _WRITES)  # that name paths


def takes(path: str) -> bool:
    """Whether a path is of such characters."""
    return _PATH.fullmatch(path) is not None


@contextlib.contextmanager
def scratch_of(folder: Path, kind: str) -> Iterator[Path]:
    """A scratch folder in that of the models, so that they are renamed and not copied; elsewhere if that is not taken.

    Raises PipelineError where the folder for temporary files is not taken either.
    """
    if takes(os.path.realpath(folder)):
        with scratch_folder(folder, kind) as scratch:
            yield scratch
        return
    elsewhere = os.path.realpath(tempfile.gettempdir())
    if not takes(elsewhere):
        raise PipelineError(
            f"{elsewhere}: {kind.upper()} takes only letters, digits and . / _ - in a path, and neither the folder of "
            "the models is such a one nor this one for temporary files; name another with TMPDIR"
        )
    with tempfile.TemporaryDirectory(prefix=f"resnest-{kind}-", dir=elsewhere) as name:
        yield Path(name)


def taken(arguments: Iterable[str], scratch: Path) -> Iterator[str]:
    """The arguments with paths that are taken: of a file or a folder with another one, a copy in `scratch`."""
    for argument in arguments:
        option, _, value = argument.partition("=")
        if option in _READS and not takes(os.path.realpath(scratch / value)):
            yield f"{option}={_copied(scratch / value, scratch)}"
        elif option == _WRITES and not takes(value):
            yield f"{option}={_plain(value)}"
        else:
            yield argument


@contextlib.contextmanager
def lent(folder: Path, scratch: Path) -> Iterator[Path]:
    """`folder`, by a path that is taken; what becomes of a copy is in `folder` at the end, whatever the end is."""
    if takes(os.path.realpath(folder)):
        yield Path(os.path.realpath(folder))
        return
    copy = _copied(folder, scratch)
    try:
        yield copy
    finally:
        shutil.copytree(copy, folder, dirs_exist_ok=True)


def _copied(path: Path, scratch: Path) -> Path:
    copy = scratch.resolve() / _plain(path.name)
    if path.is_dir():
        shutil.copytree(path, copy, dirs_exist_ok=True)
    else:
        shutil.copyfile(path, copy)
    return copy


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)
