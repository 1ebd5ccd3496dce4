"""What each tensor of a folder was made of: `sources.jsonl`, a line each, written as soon as the tensor has its name.

A tensor is kept by a later run only if its image is the same file, of the same size and times, and if the file that
holds the tensor is as it was left; anything else is made again. Times alone would not tell: a picture that was unpacked
or copied keeps its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from ResNeSt.common.files import PathLike, naming, whole
from ResNeSt.common.made_of import FileState, state_of
from ResNeSt.tensors.folder import tensor_name

NAME = "sources.jsonl"


class SourceLog:
    """The record of one folder; while it is open, tensors can be added to it."""

    def __init__(self, folder: PathLike) -> None:
        self._path = Path(folder) / NAME
        self._records = _read(self._path)

    def holds(self, name: str, image: PathLike, file: Path) -> bool:
        """Whether `file` holds the tensor of `image`, called `name`, both as they are now."""
        try:
            return self._records.get(tensor_name(name)) == _record(state_of(image), state_of(file))
        except OSError:  # one of them is not there, or cannot be reached, which making it tells
            return False

    def begin(self, kept: Iterable[str]) -> None:
        """Forgets all but the tensors of the images called `kept`."""
        names = map(tensor_name, kept)
        with whole(self._path) as temporary:
            temporary.write_bytes(b"".join(_line(name, self._records[name]) for name in names))
        self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115 (closed by __exit__)

    def add(self, sources: Iterable[tuple[str, FileState]], file: Path) -> None:
        """The tensors of images are in `file` now; `sources` has names, and states before they were read."""
        self.record(sources, state_of(file))

    def record(self, sources: Iterable[tuple[str, FileState]], file: FileState) -> None:
        """The same of a file whose state is known: another machine's is not always seen at once, as over NFS."""
        with naming(self._path):
            self._file.write(b"".join(_line(tensor_name(name), _record(source, file)) for name, source in sources))

    def __enter__(self) -> SourceLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if hasattr(self, "_file"):
            self._file.close()


def _record(source: FileState, tensor: FileState) -> list[object]:
    # Of the tensor's file not its entry: `chmod -R go-w`, which ais_bench wants, changes that.
    return [*source, tensor.size, tensor.mtime_ns]


def _line(name: str, record: list[object]) -> bytes:
    return json.dumps([name, *record], separators=(",", ":")).encode() + b"\n"


def _read(path: Path) -> dict[str, list[object]]:
    """Records by tensor name; a line that is damaged says nothing, so its tensor is made again."""
    records: dict[str, list[object]] = {}
    if not path.is_file():
        return records
    for line in path.read_bytes().split(b"\n"):
        try:
            name, *record = json.loads(line)
            records[str(name)] = record
        except (TypeError, ValueError, RecursionError):
            continue
    return records
