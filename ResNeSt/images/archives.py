"""Pictures in archives, which are read where they lie: tar files (WebDataset's too) and parquet files.

A picture in an archive goes by a path that continues the archive's own, `val.tar/n01/a.JPEG`, as if that were a folder.
No file can have such a path, so whoever takes paths of pictures takes these, too, in any thread or process: an archive
is listed once in a process, and listed again where it has changed. Nothing is unpacked to disk.
"""

from __future__ import annotations

import errno
import glob
import io
import itertools
import os
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO, Callable, Protocol

from ResNeSt.common.ais_bench_names import natural_key
from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import PathLike, open_plain
from ResNeSt.common.made_of import FileState, file_above, state_of
from ResNeSt.images.parquet import Parquet
from ResNeSt.images.tar import Tar

COMPRESSED = re.compile(r"\.(tar\.\w+|tgz|tbz2?|txz|tzst|zip|7z|rar|gz|bz2|xz|zst)$", re.IGNORECASE)
_PATTERN = re.compile(r"[{*?\[]")
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"([0-9]{1,9})\.\.([0-9]{1,9})")
MOST_ARCHIVES = 100_000


class Archive(Protocol):
    """What an archive holds; `skipped` says why some of it is left out.

    `only_pictures` is whether every member is meant as a picture, whatever its name.
    """

    skipped: dict[str, str]
    only_pictures: bool

    @property
    def names(self) -> Sequence[str]:
        """Of the members, in the archive's order."""

    def read(self, name: str) -> bytes:
        """The content of a member; raises PipelineError, or what reading a file raises."""

    def sample(self, name: str) -> str:
        """What the class of a member is of; members of one sample share it."""

    def label(self, name: str) -> int | None:
        """The class of a member, where the archive tells it."""


KINDS: dict[str, Callable[[str], Archive]] = {".tar": Tar, ".parquet": Parquet}

_opened: dict[str, tuple[FileState, Archive]] = {}
_opening = threading.Lock()


def is_pattern(source: PathLike) -> bool:
    """Whether a path stands for several: with braces, or with `*`, `?`, `[`, and nothing is called so."""
    return bool(_PATTERN.search(os.fspath(source))) and not os.path.lexists(source)


def root(source: PathLike) -> str:
    """What the names of pictures within `source` are counted from: itself, or the folder that a pattern begins in."""
    path = os.fspath(source)
    return os.path.dirname(_PATTERN.split(path)[0]) if is_pattern(path) else path


def archives_of(source: PathLike) -> list[str]:
    """The archives that `source` names: one, those of a pattern, or those in a folder, in natural order.

    None for a folder that holds none, or for what is no archive. Raises PipelineError for a compressed one, and where
    a pattern names a file that is not there.
    """
    path = os.fspath(source)
    if os.path.isdir(path):
        found = [entry.path for entry in os.scandir(path) if _is_archive(entry.name) and entry.is_file()]
        return sorted((each for each in found if not os.path.basename(each).startswith(".")), key=natural_key)
    if is_pattern(path):
        found = list(_expanded(path))
        for each in found:
            if not _is_archive(each):
                raise PipelineError(f"{each}: named by {path}, expected .tar or .parquet files")
            if not os.path.isfile(each):
                raise PipelineError(f"{each}: no such file, and {path} names it; complete the shards, or name others")
        return found
    if os.path.isfile(path) and COMPRESSED.search(path):
        raise PipelineError(
            f"{path}: compressed, so no picture in it can be read without all before it; make it a plain .tar "
            "(gunzip, unzstd), or unpack it"
        )
    return [path] if _is_archive(path) and os.path.isfile(path) else []


def _is_archive(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in KINDS


def _expanded(pattern: str) -> Iterator[str]:
    """The paths of a pattern, in natural order; braces name files that have to be there, the others those that are."""
    paths = list(itertools.islice(_without_braces(pattern), MOST_ARCHIVES + 1))
    if len(paths) > MOST_ARCHIVES:
        raise PipelineError(f"{pattern}: names more than {MOST_ARCHIVES:,} files; name fewer")
    for path in paths:
        found = sorted(glob.glob(path), key=natural_key) if re.search(r"[*?\[]", path) else [path]
        if not found:
            raise PipelineError(f"{path}: no file is called so; expected .tar or .parquet files")
        yield from found


def _without_braces(pattern: str) -> Iterator[str]:
    """As a shell has them: `{000..146}`, `{a,b}`, also several."""
    match = _BRACES.search(pattern)
    if match is None:
        yield pattern
        return
    ends = _RANGE.fullmatch(match[1])
    if ends:
        first, last = int(ends[1]), int(ends[2])
        step = 1 if first <= last else -1
        words: Iterator[str] = (f"{number:0{len(ends[1])}}" for number in range(first, last + step, step))
    else:
        words = iter(match[1].split(","))
    for word in words:
        yield from _without_braces(pattern[: match.start()] + word + pattern[match.end() :])


def listed(archive: PathLike) -> Archive:
    """An archive as it is now; raises PipelineError where it is damaged, MissingRuntimeError without pyarrow."""
    path = os.path.abspath(archive)
    with _opening:
        state = state_of(path)
        if path not in _opened or _opened[path][0] != state:
            kind = KINDS.get(os.path.splitext(path)[1].lower())
            if kind is None:
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), os.fspath(archive))
            _opened[path] = state, kind(os.fspath(archive))
        return _opened[path][1]


def open_picture(path: PathLike) -> BinaryIO:
    """Opens a picture, a plain file or a member of an archive, for reading.

    Raises PipelineError where it is neither, or the archive is damaged, and OSError where it cannot be read.
    """
    try:
        return open_plain(path)
    except NotADirectoryError:
        archive, name = _place(path)
    try:
        return io.BytesIO(archive.read(name))
    except KeyError:
        raise PipelineError(f"{path}: its archive holds no such file") from None


def carried_labels(paths: Iterable[str]) -> dict[str, int]:
    """The class of each picture that was listed, of those that lie in an archive that tells it.

    Raises PipelineError where what it tells is no class, or is told of two of the pictures at once: of a photograph and
    its mask, say.
    """
    told: dict[str, int] = {}
    of_sample: dict[tuple[Archive, str], str] = {}
    for path in paths:
        if file_above(path) is None:
            continue
        archive, name = _place(path)
        if (label := archive.label(name)) is None:
            continue
        other = of_sample.setdefault((archive, archive.sample(name)), path)
        if other != path:
            raise PipelineError(
                f"{other} and {path}: two pictures of one sample, whose class {label} may be of either; leave one of "
                "them out of the archive"
            )
        told[path] = label
    return told


def _place(path: PathLike) -> tuple[Archive, str]:
    """The archive that a picture lies in, and its name there."""
    above = file_above(path)
    if above is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(path))
    return listed(above), os.fspath(path)[len(above) + 1 :]
