"""What a result depends on: written down beside it, and compared by equality before an earlier one is taken for it.

Every stage that keeps what an earlier run left does it in this way, and what is kept nowhere is measured anew:

- a tensor: a line of `sources.jsonl` has its picture's path, size and times, and its own file's size and time
- a tensor folder: `tensors.json` has recipe, size, dtype, mean and std
- an exported ONNX file: its metadata have network, size, recipe, form, and the digest of the weights
- a simplified or an int8 one: its metadata, or `<file>.json`, have the digests of its source and of the tensors
- a compiled model: `<model>.json` has what convert.sh was asked for, how this release compiles (`form`: ATC's options,
  or the digest of the code for cpu), and the digests of its source and its own files
- what AOE found for one: `<model>_aoe_bank.json` has the same, what was tuned, and the digests of the bank's files
- a run that `bench.sh auto` takes: `bench.json` has the digests of the model, what was asked, the machine and versions
- predictions of `evaluate`: the journal's head has the digest of the model, engine, batch, recipe, every picture
- a training's `last.pth` has every setting, the pictures and the start weights

Where a record differs the result is made anew; where that would cost what nobody asked to lose (a model compiled for
another question, an unfinished journal), the run is refused and says what differs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import TracebackType
from typing import Any, NamedTuple

from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import PathLike


class FileState(NamedTuple):
    """A file as it was found: its absolute path, bytes, and two times in ns: of its content, which copies may set, and
    of its entry in the file system, which they cannot.
    """

    path: str
    size: int
    mtime_ns: int
    ctime_ns: int


def state_of(path: PathLike) -> FileState:
    """The state of a file now; of a picture in an archive (ResNeSt.images.archives) that of the archive."""
    try:
        status = os.stat(path)
    except NotADirectoryError:
        status = os.stat(file_above(path) or path)
    return FileState(os.path.abspath(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def file_above(path: PathLike) -> str | None:
    """The plain file that a path continues as if it were a folder; None for any other path."""
    above = os.path.dirname(os.fspath(path))
    while above and not os.path.exists(above):
        below, above = above, os.path.dirname(above)
        if below == above:
            return None
    return above if os.path.isfile(above) else None


class Unchanged:
    """Files that are read more than once, to be hashed and to be used; at the end of a `with` they are checked, too."""

    def __init__(self, *paths: PathLike) -> None:
        self._states = {path: state_of(path) for path in paths}

    def check(self) -> None:
        """Raises PipelineError where a file is not the one that it was at first."""
        for path, state in self._states.items():
            if not os.path.exists(path) or state_of(path) != state:
                raise PipelineError(f"{path}: changed while it was being read; run the same command again")

    def __enter__(self) -> Unchanged:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.check()


def differing(recorded: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """The keys that one of the two lacks, or that have another value there, in alphabetical order."""
    return sorted(key for key in {*recorded, *asked} if recorded.get(key) != asked.get(key))
