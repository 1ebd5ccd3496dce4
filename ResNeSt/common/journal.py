"""A file of records that grows as they come, so that a run that dies can go on where it stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Callable

from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import PathLike, check_plain, lock, naming
from ResNeSt.common.made_of import differing

Record = dict[str, Any]


def _is_dict(place: int, record: Any) -> bool:
    return isinstance(record, dict)


def _open_no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


class Journal:
    """JSON Lines: a head that says what the records are of, then a record a line.

    While it grows it is called `<path>.unfinished`; `finish` gives it its name. What an earlier run of the same head
    left is kept as far as whole groups of `group` records go, and as `is_record` takes them, by the place, from 0,
    and what stands there. Raises PipelineError where another process is writing it, where records of a run with another
    head would be lost, or where one of both files is there and no plain file.
    """

    def __init__(
        self, path: PathLike, head: Record, group: int = 1, is_record: Callable[[int, Any], bool] = _is_dict
    ) -> None:
        self._path = Path(path)
        self._unfinished = self._path.with_name(self._path.name + ".unfinished")
        self._is_record = is_record
        for file in (self._path, self._unfinished):
            check_plain(file)
        self._file = open(self._unfinished, "a+b", opener=_open_no_link)  # noqa: SIM115 (closed by __exit__)
        try:
            lock(self._file.fileno(), path)
            self._refuse_other(head)
            self._keep_whole(_line(head), group)
        except BaseException:
            self._file.close()
            raise

    def _refuse_other(self, head: Record) -> None:
        self._file.seek(0)
        first, second = self._file.readline(), self._file.readline()
        if first == _line(head) or not second.endswith(b"\n"):
            return
        try:
            theirs, ours = dict(json.loads(first)), json.loads(_line(head))
            other = ", ".join(differing(theirs, ours))
        except (TypeError, ValueError, RecursionError):
            other = "program"
        raise PipelineError(
            f"{self._unfinished}: is of a run with another {other}; repeat that run to finish it, move the file away, "
            "or name another"
        )

    def _keep_whole(self, head: bytes, group: int) -> None:
        end = place = 0
        self._file.seek(0)
        for number, line in enumerate(self._file):
            if not line.endswith(b"\n") or not (self._is_whole(number - 1, line) if number else line == head):
                break
            place += len(line)
            if number % group == 0:
                end = place
        self._file.truncate(end)
        if end == 0:
            self._file.write(head)
            self._file.flush()

    def _is_whole(self, place: int, line: bytes) -> bool:
        try:
            return self._is_record(place, json.loads(line))
        except (ValueError, RecursionError):
            return False

    def __iter__(self) -> Iterator[Record]:
        """The records that an earlier run left."""
        with open(self._unfinished, "rb") as file:
            next(file, None)
            for line in file:
                yield json.loads(line)

    def write(self, records: Iterable[Record]) -> None:
        """Adds records and hands them to the system, where they survive this process."""
        with naming(self._path):
            self._file.write(b"".join(map(_line, records)))
            self._file.flush()

    def finish(self) -> None:
        """Gives the file its name."""
        os.replace(self._unfinished, self._path)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with naming(self._path):
            self._file.close()


def _line(record: Record) -> bytes:
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"
