"""File habits that every stage shares: whole files only, and nothing of the user's removed."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import json
import math
import os
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Union

from ResNeSt.common.errors import PipelineError

_DIGITS = 18  # what 64 bits hold
PathLike = Union[str, "os.PathLike[str]"]


@contextlib.contextmanager
def whole(path: PathLike) -> Iterator[Path]:
    """Yields a temporary path in the same folder; renames it to `path` on success, removes it on any failure.

    A reader therefore never sees half a file under its final name, whatever kills the writer. The temporary name is
    that of `temporary_of`, so that the next writer of `path` takes the place of what a killed one left. Raises
    PipelineError where another one lives, and where `path` is there and no plain file (`check_plain`).
    """
    with _whole(Path(path)) as (temporary, _):
        yield temporary


@contextlib.contextmanager
def whole_file(path: PathLike) -> Iterator[BinaryIO]:
    """As `whole`, but yields the temporary open for writing.

    Its path would be opened anew and so truncated, after which ext4 begins to write a file to disk as it is closed.
    It is closed before it has its name: only then does NFS hold it whole, or say that the disk is full.
    """
    with _whole(Path(path)) as (_, handle), open(os.dup(handle), "wb") as file:
        yield file


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[tuple[Path, int]]:
    """The temporary's path, and it open."""
    with naming(path):
        check_plain(path)
        temporary, handle = _exclusive(temporary_of(path), path)
        try:
            with _removed_on_failure(temporary):
                yield temporary, handle
                os.replace(temporary, path)
        finally:
            os.close(handle)


def check_plain(path: PathLike) -> None:
    """Raises PipelineError where a link, a device, a pipe or a folder is at `path`, which a file must not replace."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFLNK: "a link", stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        kind = kinds.get(stat.S_IFMT(mode), "a device")
        raise PipelineError(f"{path}: is {kind}; only a plain file is written here, name another")


def remove_plain(path: PathLike) -> None:
    """Removes the plain file at `path`, where there is one; raises PipelineError where it is anything else."""
    check_plain(path)
    Path(path).unlink(missing_ok=True)


def open_plain(path: PathLike) -> BinaryIO:
    """Opens a file of a folder of many for reading; raises PipelineError unless it, or what it links to, is plain.

    A pipe would wait for a writer without end, a device does whatever it does.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise PipelineError(f"{path}: not a plain file; remove it, or put the file itself there")
    return open(path, "rb")


def temporary_of(path: PathLike) -> Path:
    """Where `path` is written before it has its name; made of its name, short, and told by `_is_ours` from any other.

    It ends in `.part`, because ais_bench takes every `.bin` in a folder for an input, hidden or not.
    """
    path = Path(path)
    return path.with_name(f"{_ours(_short_digest(path))}.part")


def _short_digest(path: PathLike) -> str:
    return hashlib.sha256(os.fsencode(Path(path).name)).hexdigest()[:12]


def _ours(middle: str) -> str:
    """A file name that this program alone gives, with digits at its end that follow from the rest."""
    start = f".resnest-{middle}-"
    return start + hashlib.sha256(start.encode()).hexdigest()[:8]


def _is_ours(name: str) -> bool:
    start, _, _ = name.rpartition("-")
    return name.startswith(".resnest-") and name.removesuffix(".part") == _ours(start[len(".resnest-") :])


def _exclusive(temporary: Path, path: PathLike) -> tuple[Path, int]:
    """The file `temporary`, new, open and locked, for whoever makes `path`."""
    while True:
        try:
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
        except FileExistsError:
            _remove_leftover(temporary, path)
            continue
        try:
            lock(handle, path)
        except BaseException:
            os.close(handle)
            raise
        if os.fstat(handle).st_nlink:  # else it was taken for a leftover before it was locked
            return temporary, handle
        os.close(handle)


def _remove_leftover(temporary: Path, path: PathLike) -> None:
    """Removes what a killed writer left; raises PipelineError where it lives, or where this is no plain file."""
    check_plain(temporary)
    with contextlib.suppress(FileNotFoundError):
        handle = os.open(temporary, os.O_WRONLY | os.O_NOFOLLOW)
        try:
            lock(handle, path)
            if os.path.samestat(os.fstat(handle), os.lstat(temporary)):  # nobody else has put a new one there
                temporary.unlink()
        finally:
            os.close(handle)


@contextlib.contextmanager
def _removed_on_failure(path: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def naming(path: PathLike) -> Iterator[None]:
    """Puts `path` into an OSError that names no file: a full disk does not say where it is."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = os.fspath(path)
        raise


@contextlib.contextmanager
def sole_writer(folder: PathLike) -> Iterator[None]:
    """Holds `folder` for one writing process and clears what a killed one left half-written.

    Raises PipelineError where another process is writing there.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        lock(handle, folder)
        for leftover in Path(folder).glob(".resnest-*.part"):
            if _is_ours(leftover.name):
                _remove_leftover(leftover, folder)
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def scratch_folder(folder: PathLike, kind: str) -> Iterator[Path]:
    """A folder of the caller's own in `folder`, gone at the end; those of its kind that killed processes left go first.

    It is locked while its owner lives, whatever machine or container that runs in.
    """
    with contextlib.ExitStack() as stack:
        with _held(folder):  # nobody looks between the making and the locking
            for leftover in Path(folder).glob(f".resnest-{kind}-*"):
                if _is_ours(leftover.name) and not leftover.is_symlink():
                    with contextlib.suppress(PipelineError), sole_writer(leftover):
                        shutil.rmtree(leftover)
            scratch = Path(folder, _ours(f"{kind}-{secrets.token_hex(6)}"))
            scratch.mkdir(mode=0o700)
            stack.callback(shutil.rmtree, scratch, ignore_errors=True)
            stack.enter_context(sole_writer(scratch))
        yield scratch


@contextlib.contextmanager
def _held(folder: PathLike) -> Iterator[None]:
    """Holds `folder`, as soon as nobody else does."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def lock(handle: int, path: PathLike) -> None:
    """Holds the open file or folder `path` for this process; raises PipelineError where another one holds it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise PipelineError(f"{path}: another process is writing here; wait for it or name another") from None


@contextlib.contextmanager
def alone(path: PathLike) -> Iterator[None]:
    """Lets one process at a time make `path` and what goes with it; raises PipelineError where another one does.

    By a locked file beside it, gone at the end; one that a killed process left locks nobody out. Where nothing can be
    written, nothing has to be locked.
    """
    try:
        marker, handle = _exclusive(Path(path).with_name(_ours(f"lock-{_short_digest(path)}")), path)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EROFS):
            raise
        yield
        return
    try:
        yield
    finally:
        marker.unlink(missing_ok=True)
        os.close(handle)


STDOUT = "-"  # as the path of a JSON file
_stdout = 1  # the descriptor that JSON goes to


def keep_stdout_for_json(besides: bool) -> None:
    """From now on nothing but `write_json` writes to stdout.

    What this process prints besides, and what it starts, goes to stderr, or nowhere unless `besides`.
    """
    global _stdout
    if _stdout != 1:
        return
    sys.stdout.flush()
    _stdout = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(2 if besides else nowhere, 1)
    os.close(nowhere)
    if besides:
        sys.stdout = sys.stderr  # in one order with what goes there anyway


def write_json(path: PathLike, value: Any) -> None:
    """Writes `value` as indented JSON, whole or not at all; to the stdout that the process began with for `-`.

    NaN and infinity, which JSON has not, become null; a path is its text, a data class an object.
    """
    text = json.dumps(_plain(value), indent=1, allow_nan=False) + "\n"
    if os.fspath(path) == STDOUT:
        with naming("stdout"), open(os.dup(_stdout), "w", encoding="utf-8") as stdout:
            stdout.write(text)
        return
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: PathLike) -> Any:
    """Reads a JSON file; raises PipelineError that names the file and the line where it is broken."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        return json.loads(text, parse_int=_whole_number, parse_float=_number, parse_constant=_number)
    except FileNotFoundError:
        raise PipelineError(f"{path}: no such file") from None
    except (ValueError, RecursionError) as error:  # among them bad UTF-8, bad JSON, numbers and nesting without end
        raise PipelineError(
            f"{path}: not valid JSON ({error}); the file is damaged or cut short, make it again"
        ) from None


def _whole_number(text: str) -> int:
    if len(text) > _DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:20]}")
    return value


def sha256(path: PathLike) -> str:
    """Hex SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
