"""A file of records that grows as they come, so that a run that dies can go on where it stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import PathLike, lock, naming
from ResNeSt.common.made_of import differing

Record = dict[str, Any]


class Journal:
    """JSON Lines: a head that says what the records are of, then a record a line.

    While it grows it is called `<path>.unfinished`; `finish` gives it its name. What an earlier run of the same head
    left is kept as far as whole groups of `group` records go. Raises PipelineError where another process is writing it,
    or where records of a run with another head would be lost.
    """

    def __init__(self, path: PathLike, head: Record, group: int = 1) -> None:
        self._path = Path(path)
        self._unfinished = self._path.with_name(self._path.name + ".unfinished")
        self._file = open(self._unfinished, "a+b")  # noqa: SIM115 (closed by __exit__)
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
            if not line.endswith(b"\n") or (number == 0 and line != head):
                break
            place += len(line)
            if number % group == 0:
                end = place
        self._file.truncate(end)
        if end == 0:
            self._file.write(head)
            self._file.flush()

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
