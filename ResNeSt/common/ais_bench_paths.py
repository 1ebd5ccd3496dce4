"""The files and folders that ais_bench takes: what it would refuse is refused first, with the command that mends it.

Contract: ais_bench, path rules. A path counts as os.path.abspath gives it, so links on the way to it are no matter.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
from collections.abc import Iterable
from pathlib import Path

from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import PathLike

OUTPUT_MODE = 0o750
WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
MOST_FILES = 100_000  # tensors in a folder
MOST_LOOPS = 100_000
TENSOR_SUFFIXES = (".bin", ".npy")  # of what it reads from a folder, in any case; everything else it ignores
_OTHERS = re.compile(r"[^_A-Za-z0-9/.-]+")


def check_path(path: PathLike) -> None:
    """Raises PipelineError for other characters than ais_bench takes, or a symbolic link; nothing has to be there."""
    absolute = os.path.abspath(path)
    if _OTHERS.search(absolute):
        whole = "" if absolute == os.fspath(path) else f", and this one is {absolute!r}"
        raise PipelineError(
            f"{path}: ais_bench takes only letters, digits and _ - . / in a path{whole}; {_renaming(absolute)}"
        )
    if os.path.islink(absolute):
        raise PipelineError(
            f"{path}: is a symbolic link, which ais_bench refuses; give the path it points to, "
            f"{os.path.realpath(absolute)}"
        )


def check_input(path: PathLike) -> None:
    """Raises PipelineError unless ais_bench may read the file, or the folder and all that lies in it, tensor or not."""
    check_path(path)
    _check_readable(path, os.stat(path), path)
    if not os.path.isdir(path):
        return
    with os.scandir(path) as entries:
        tensors = sum(_is_tensor(entry, path) for entry in entries)
    if tensors > MOST_FILES:
        raise PipelineError(
            f"{path}: holds {tensors:,} tensors, ais_bench takes {MOST_FILES:,} from a folder; share them out among "
            "several folders, each with labels of its own"
        )


def _is_tensor(entry: os.DirEntry[str], folder: PathLike) -> bool:
    """Whether ais_bench takes the entry of `folder` for a tensor; raises PipelineError where it would refuse it."""
    tensor = entry.name.lower().endswith(TENSOR_SUFFIXES)
    if _OTHERS.search(entry.name):
        labels = ", and call it so in the labels" if tensor else ""
        raise PipelineError(
            f"{entry.path}: ais_bench takes only letters, digits and _ - . in the names of what lies in a folder; "
            f"{_renaming(entry.path, labels)}"
        )
    if entry.is_symlink():
        copy = shlex.join(["cp", "-rL", os.fspath(folder), f"{os.path.abspath(folder)}_files"])
        raise PipelineError(
            f"{entry.path}: is a symbolic link, which ais_bench refuses; give a folder of files, run: {copy}"
        )
    status = entry.stat()
    _check_readable(entry.path, status, folder)
    if tensor and not entry.is_file():
        kind = "a folder, which ais_bench passes over" if entry.is_dir() else "no file, and ais_bench would wait for it"
        away = shlex.join(["mv", entry.path, f"{os.path.abspath(folder)}_{entry.name}"])
        raise PipelineError(f"{entry.path}: has the name of a tensor and is {kind}; run: {away}")
    return tensor


def check_output(folder: PathLike, names: Iterable[str] = ()) -> None:
    """Raises PipelineError unless ais_bench may write into the folder; it need not be there.

    `names` are those of the results' folders in it, which may be there and then have to be readable. Since ais_bench
    looks for these names in the current folder, too, what lies there is held to the rules of `folder`.
    """
    for path in (folder, *names):
        check_path(path)
        if os.path.lexists(path):
            _check_writable(path)
    for path in (os.path.join(folder, name) for name in names):
        check_path(path)
        if os.path.lexists(path):
            _check_readable(path, os.stat(path), path)


def _check_readable(path: PathLike, status: os.stat_result, top: PathLike) -> None:
    """Owner and mode of what is read; the command of the message mends all of `top`."""
    _check_owner(path, status, top)
    if status.st_mode & WRITABLE_BY_OTHERS:
        problem, remedy = "writable by group or others, which ais_bench refuses", "chmod -R go-w"
    elif not (status.st_mode & stat.S_IRUSR and os.access(path, os.R_OK)):
        problem, remedy = "may not be read, not by its owner or not by you", "chmod -R u+rX"
    else:
        return
    raise PipelineError(f"{path}: {problem}; run: {remedy} {shlex.quote(os.fspath(top))}")


def _check_writable(folder: PathLike) -> None:
    """Owner and mode of a folder that results go to."""
    status, quoted = os.stat(folder), shlex.quote(os.fspath(folder))
    _check_owner(folder, status, folder)
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISDIR(status.st_mode):
        raise PipelineError(f"{folder}: is no folder, and ais_bench writes into one; name another")
    if mode & 0o777 & ~OUTPUT_MODE:
        raise PipelineError(
            f"{folder}: is of mode {mode:04o}, ais_bench refuses an output folder that is open to others; run "
            f"`chmod {OUTPUT_MODE:o} {quoted}`, or name another folder"
        )
    if not os.access(folder, os.W_OK):
        raise PipelineError(f"{folder}: may not be written; run: chmod u+w {quoted}, or name another folder")


def _check_owner(path: PathLike, status: os.stat_result, top: PathLike) -> None:
    if status.st_uid != os.geteuid() and status.st_gid not in os.getgroups():
        quoted = shlex.quote(os.fspath(top))
        raise PipelineError(
            f"{path}: owned by another user and by none of your groups, which ais_bench refuses (a copy would be "
            f"yours); run: chown -R $USER {quoted}"
        )


def _renaming(path: str, also: str = "") -> str:
    """What gives the first part of `path` with other characters a name without: a command where that is there."""
    taken = next(part for part in [*reversed(Path(path).parents), Path(path)] if _OTHERS.search(part.name))
    name = _OTHERS.sub("_", taken.name)
    if not os.path.lexists(taken):
        return f"name another, like {shlex.quote(name)}"
    while os.path.lexists(taken.with_name(name)):
        name += "_"
    return f"rename it{also}, run: {shlex.join(['mv', os.fspath(taken), os.fspath(taken.with_name(name))])}"
