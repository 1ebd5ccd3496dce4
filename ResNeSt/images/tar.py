"""The members of an uncompressed tar file, read at their places; of a WebDataset, the classes as well.

A WebDataset's shard is a tar file in which `KEY.jpg` and `KEY.cls`, the class as a number, stand side by side, or
`KEY.json`, an object with a `label`; the suffix in any case, as a picture's. A key is a path up to the first dot of
its file name.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Sequence
from typing import Any, NamedTuple

from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import open_plain

BLOCK = 512
LARGEST_HEADER = 1 << 20  # bytes of a name, or of what else stands before a member
LARGEST = 1 << 30  # bytes of a picture
LARGEST_LABEL = 1 << 16
LABEL_SUFFIXES = (".cls", ".json")


class Member(NamedTuple):
    """Where the content of a member lies, in bytes."""

    offset: int
    size: int


class _Headers(io.FileIO):
    """A file of which tarfile reads no more at once than a header takes, whatever a damaged one asks for."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= LARGEST_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return super().read(size)


class Tar:
    """The plain files of a tar file; raises PipelineError where it is none, cut short or has two of one name.

    Hard links to them count, since tar makes them of its own accord; symbolic links, devices and sparse files do not.
    """

    only_pictures = False

    def __init__(self, path: str) -> None:
        self.path, self.skipped = path, dict[str, str]()
        with open_plain(path) as file:
            if file.read(2) in (b"\x1f\x8b", b"BZ", b"\xfd7", b"\x28\xb5"):
                raise PipelineError(f"{path}: compressed, whatever it is called; make it a plain .tar, or unpack it")
        self._size = os.path.getsize(path)
        self._members: dict[str, Member] = {}
        self._odd_labels: dict[str, list[str]] = {}  # by key those with capitals in their suffix
        try:
            self._list()
        except PipelineError:
            raise
        except Exception as error:  # damaged headers make tarfile raise nearly anything
            raise PipelineError(f"{path}: not a whole tar file ({error}); copy it again") from None

    @property
    def names(self) -> Sequence[str]:
        """Of the members, in the order of the file."""
        return list(self._members)

    def read(self, name: str) -> bytes:
        """The content of a member; raises KeyError where there is none, PipelineError where it is no picture's."""
        return self._read(name, LARGEST)

    def sample(self, name: str) -> str:
        """What the class is of: in a WebDataset every member of one key."""
        return _key(name)

    def label(self, name: str) -> int | None:
        """The class that a WebDataset gives the picture `name`; raises PipelineError where it is none."""
        key = _key(name)
        names = [key + suffix for suffix in LABEL_SUFFIXES if key + suffix in self._members]
        told = {file: self._label_in(file) for file in (*names, *self._odd_labels.get(key, ()))}
        told = {file: label for file, label in told.items() if label is not None}
        found = set(told.values())
        if len(found) > 1:
            said = ", ".join(f"{label} by its {file[len(key) :]}" for file, label in told.items())
            raise PipelineError(f"{self.path}/{name}: class {said}; correct one")
        return found.pop() if found else None

    def _label_in(self, name: str) -> int | None:
        content = self._read(name, LARGEST_LABEL)
        try:
            said: Any = json.loads(content)
        except (ValueError, RecursionError):
            said = content[:40].decode("utf-8", "replace")
        is_json = name.lower().endswith(".json")
        if is_json and isinstance(said, dict):
            said = said.get("label")
            if not isinstance(said, (int, float)):
                return None  # of a caption, or what else people keep there
        elif is_json:
            return None
        if type(said) is not int or not 0 <= said < 10**9:
            raise PipelineError(f"{self.path}/{name}: holds {str(said)[:40]!a}, expected the number of a class from 0")
        return said

    def _read(self, name: str, most: int) -> bytes:
        member = self._members[name]
        if member.size > most:
            raise PipelineError(f"{self.path}/{name}: {member.size:,} bytes, expected {most:,} at most")
        with open_plain(self.path) as file:
            file.seek(member.offset)
            content = file.read(member.size)
        if len(content) < member.size:
            raise PipelineError(f"{self.path}/{name}: cut short since it was listed; run the same command again")
        return content

    def _list(self) -> None:
        with _Headers(self.path) as file:
            tar = tarfile.TarFile(fileobj=file, encoding="utf-8", errors="surrogateescape")
            behind = -1
            while (entry := tar.next()) is not None:
                if entry.offset_data <= behind or entry.size < 0:
                    raise tarfile.ReadError(f"{entry.name[:80]!a} has a size that leads back")
                behind = entry.offset_data
                self._add(entry)
                tar.members = []  # type: ignore[attr-defined]  # it would keep them all, a kilobyte each
            self._check_end(file, tar.offset)

    def _add(self, entry: tarfile.TarInfo) -> None:
        name = "/".join(part for part in entry.name.split("/") if part not in ("", "."))
        if entry.isdir() or not name:
            return
        linked = "/".join(part for part in entry.linkname.split("/") if part not in ("", "."))
        if entry.name.startswith("/") or ".." in name.split("/") or "\0" in name:
            self.skipped[entry.name] = "with a path that leads out of the archive"
        elif entry.islnk() and linked in self._members:
            self._put(name, self._members[linked])
        elif entry.issym() or entry.islnk():
            self.skipped[name] = "a link"
        elif entry.issparse() or not entry.isreg():
            self.skipped[name] = "no plain file"
        else:
            self._put(name, Member(entry.offset_data, entry.size))

    def _put(self, name: str, member: Member) -> None:
        if member.offset + member.size > self._size:
            raise tarfile.ReadError(f"{name!a} ends behind its end at {self._size:,} bytes")
        if name in self._members:
            raise PipelineError(f"{self.path}: holds {name} twice, and which one counts it does not say; make it anew")
        self._members[name] = member
        key = _key(name)
        suffix = name[len(key) :]
        if suffix not in LABEL_SUFFIXES and suffix.lower() in LABEL_SUFFIXES:
            self._odd_labels.setdefault(key, []).append(name)

    def _check_end(self, file: io.FileIO, offset: int) -> None:
        """tarfile takes any end for one; here the mark has to be there, and nothing behind it."""
        file.seek(offset)
        end = file.read(LARGEST_HEADER)
        if len(end) < BLOCK:
            raise tarfile.ReadError(f"its end mark is missing at {offset:,} of {self._size:,} bytes")
        if end.strip(b"\0"):
            raise tarfile.ReadError(f"no header but other bytes at {offset:,} of {self._size:,}")


def _key(name: str) -> str:
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.split(".", 1)[0]
