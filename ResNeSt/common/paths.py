"""No path that a call writes may be one that it reads: refused before anything is opened."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Union

from ResNeSt.common.errors import ArgumentError
from ResNeSt.common.files import PathLike, check_plain

Identity = Union[str, tuple[int, int]]
_NO_CARD_BESIDE = {"", ".txt", ".json", ".csv", ".onnx", ".xml", ".param", ".om"}
_SUMMARY, _OLD_SUMMARY = "_summary.json", "sumary.json"


def refuse_clashes(reads: Iterable[PathLike], writes: Iterable[PathLike] = (), fills: Iterable[PathLike] = ()) -> None:
    """Holds the files that are written, and the folders that are filled, against all that is read.

    Raises ArgumentError where the name of one that is written or filled is no UTF-8, in which reports and records name
    it; where two files written are one, where one is read in the same call, lies in a folder that the
    call fills, or is there already in a folder that is read; and where a folder that is filled is one that is read, or
    lies in it. Links and hard links are seen through. Raises PipelineError where a file written is there and no plain
    file. What lies beside a file that is read, and is read with it, counts as read.
    """
    files, folders = list(writes), list(fills)
    for path in (*files, *folders):
        _refuse_no_text(path)
    sources = [each for path in reads for each in (Path(path), *_beside(Path(path)))] if files or folders else []
    for number, path in enumerate(files):
        check_plain(path)
        _refuse_twice(path, files[:number])
        _refuse_in_filled(path, folders)
        _refuse_read(path, sources)
    for folder in folders:
        for source in sources:
            if os.path.isdir(source) and lies_in(folder, source):
                raise ArgumentError(f"{folder}: is {source} or lies in it, which is read; name another folder")


def _refuse_no_text(path: PathLike) -> None:
    try:
        os.fspath(path).encode("utf-8")
    except UnicodeEncodeError:
        raise ArgumentError(f"{os.fspath(path)!a}: is not UTF-8, as what is written has to be; name another") from None
    if re.search(r"[\x00-\x1f\x7f]", os.fspath(path)):
        raise ArgumentError(f"{os.fspath(path)!a}: holds a control character, such as a line's end; name another")


def _refuse_twice(path: PathLike, others: Iterable[PathLike]) -> None:
    for other in others:
        if _identity(path) == _identity(other):
            raise ArgumentError(f"{path}: would be written twice, also as {other}; name two files")


def _refuse_in_filled(path: PathLike, folders: Iterable[PathLike]) -> None:
    for folder in folders:
        if lies_in(path, folder):
            raise ArgumentError(f"{path}: lies in {folder}, which this command fills; name a file elsewhere")


def _refuse_read(path: PathLike, sources: Iterable[Path]) -> None:
    identity, there = _identity(path), os.path.exists(path)
    for source in sources:
        if identity == _identity(source):
            raise ArgumentError(f"{path}: would be overwritten and is read, too (as {source}); name another file")
        if there and source.is_dir() and lies_in(path, source):
            raise ArgumentError(f"{path}: is there already, in {source}, which is read; name another, or delete it")


def lies_in(path: PathLike, folder: PathLike) -> bool:
    """Whether `path` is `folder` or lies in it, links seen through; neither has to be there."""
    return _identity(path) == _identity(folder) or _real(folder) in _real(path).parents


def as_argument(path: PathLike) -> str:
    """The path in words that no command line takes for an option: -x is ./-x."""
    text = os.fspath(path)
    return f"./{text}" if text.startswith("-") else text


def _real(path: PathLike) -> Path:
    return Path(os.path.realpath(path))


def _identity(path: PathLike) -> Identity:
    """The same for all names of a file or folder; the path itself where nothing is there."""
    try:
        status = os.stat(path)
    except OSError:
        return os.path.realpath(path)
    return status.st_dev, status.st_ino


def _beside(path: Path) -> list[Path]:
    """What may be read with `path`: a model's record, weights and card, the results of a summary."""
    if path.name in ("", "..") or path.is_dir():
        return []
    found = [path.with_name(path.name + suffix) for suffix in (".json", ".data")]
    if path.suffix in {".xml", ".param"}:
        found.append(path.with_suffix(".bin"))
    if path.suffix not in _NO_CARD_BESIDE:
        found.append(path.with_suffix(".json"))
    if path.name.endswith(_SUMMARY):
        found.append(path.with_name(path.name[: -len(_SUMMARY)] or "."))
    if path.name == _OLD_SUMMARY:
        found.append(path.parent)
    return found
