"""Pictures in a parquet file as Hugging Face keeps them: a column `image` of their bytes, and a `label`.

`image` is a struct of `bytes` and `path`, or the bare bytes. A group of rows is read at once, and a few are kept, so
pictures are best asked for in their order.
"""

from __future__ import annotations

import bisect
import os
import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from ResNeSt.common.ais_bench_names import stem
from ResNeSt.common.errors import MissingRuntimeError, PipelineError

KEPT = 2  # groups of rows
LARGEST_GROUP = 1 << 29  # bytes
REMEDY = "write it again with pyarrow.parquet.write_table(..., row_group_size=100)"


class Parquet:
    """The rows of a parquet file; raises PipelineError where it has no pictures, MissingRuntimeError without pyarrow.

    A row is called by the file name in its `path` where all rows have one of their own, else by the file's name and its
    number.
    """

    only_pictures = True

    def __init__(self, path: str) -> None:
        self.path = path
        self.skipped: dict[str, str] = {}
        self._lock = threading.Lock()
        self._groups: OrderedDict[int, Any] = OrderedDict()
        self._file, self._pyarrow = _opened(path)
        columns = self._columns()
        self._starts = self._group_starts()
        try:
            table = self._file.read(columns=columns) if columns else None
        except Exception as error:  # pyarrow raises its own kinds and those of Python
            raise _damaged(path, error) from None
        rows = self._file.metadata.num_rows
        self._labels = table.column("label").to_pylist() if table and "label" in table.column_names else [None] * rows
        paths = _paths(table) if table and "image" in table.column_names else [None] * rows
        self._rows = {name: row for row, name in enumerate(self._names(paths))}
        self.names = list(self._rows)

    def read(self, name: str) -> bytes:
        """The content of a picture; raises KeyError where there is none."""
        row = self._rows[name]
        group = bisect.bisect_right(self._starts, row) - 1
        with self._lock:
            if group not in self._groups:
                self._groups[group] = self._read_group(group)
                if len(self._groups) > KEPT:
                    self._groups.popitem(last=False)
                    self._pyarrow.default_memory_pool().release_unused()  # which it would keep, many times as much
            self._groups.move_to_end(group)
            value = self._groups[group][row - self._starts[group]].as_py()
        if value is None:
            raise PipelineError(f"{self.path}/{name}: row {row} holds no bytes of a picture")
        return bytes(value)

    def sample(self, name: str) -> str:
        """What the class is of: a row."""
        return name

    def label(self, name: str) -> int | None:
        """The class of a picture; None where it is null or, as in a test set, -1."""
        label = self._labels[self._rows[name]]
        if label is None or label == -1:
            return None
        if type(label) is not int or label < 0:
            raise PipelineError(f"{self.path}/{name}: label {str(label)[:40]!r}, expected the number of a class from 0")
        return label

    def _columns(self) -> list[str]:
        """Those that are read at once: the paths and the labels."""
        schema, types = self._file.schema_arrow, self._pyarrow.types
        image = schema.field("image").type if "image" in schema.names else None
        parts = [image.field(number) for number in range(image.num_fields)] if image and types.is_struct(image) else []
        content = next((part.type for part in parts if part.name == "bytes"), None if parts else image)
        if content is None or not (types.is_binary(content) or types.is_large_binary(content)):
            raise PipelineError(
                f"{self.path}: its columns are {', '.join(map(str, schema))[:200]!r}; expected image, of bytes or of a "
                "struct of bytes and path, and label"
            )
        self._column = "image.bytes" if parts else "image"
        if "label" in schema.names and not types.is_integer(schema.field("label").type):
            raise PipelineError(
                f"{self.path}: its column label holds {schema.field('label').type}, expected whole numbers of classes"
            )
        has_path = any(part.name == "path" and types.is_string(part.type) for part in parts)
        return ["image.path"] * has_path + ["label"] * ("label" in schema.names)

    def _group_starts(self) -> list[int]:
        """The first row of each group; raises PipelineError where one is too large to be held."""
        starts, row, metadata = [], 0, self._file.metadata
        for number in range(metadata.num_row_groups):
            group = metadata.row_group(number)
            if group.total_byte_size > LARGEST_GROUP:
                raise PipelineError(
                    f"{self.path}: its rows {row} to {row + group.num_rows - 1} are one group of "
                    f"{group.total_byte_size:,} bytes, which is read at once, expected {LARGEST_GROUP:,} at most; "
                    f"{REMEDY}"
                )
            starts.append(row)
            row += group.num_rows
        return starts

    def _read_group(self, group: int) -> Any:
        try:
            table = self._file.read_row_group(group, columns=[self._column], use_threads=False)
            column = table.column("image").combine_chunks()
        except Exception as error:
            raise _damaged(self.path, error) from None
        if self._pyarrow.types.is_struct(column.type):
            column = self._pyarrow.compute.struct_field(column, "bytes")
        return column

    def _names(self, paths: Iterable[str | None]) -> list[str]:
        names = [os.path.basename(path or "") for path in paths]
        told = all(name and not name.startswith(".") and "\0" not in name for name in names)
        if told and len(set(names)) == len(names):
            return names
        return [f"{stem(self.path)}_{row:08}" for row in range(len(names))]


def _opened(path: str) -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.parquet
    except ImportError:
        raise MissingRuntimeError(
            f"{path}: pyarrow, which reads parquet files, is not installed here: "
            "pip install -r requirements/parquet.txt"
        ) from None
    try:
        return pyarrow.parquet.ParquetFile(path), pyarrow
    except Exception as error:
        raise _damaged(path, error) from None


def _paths(table: Any) -> list[str | None]:
    return [value and value.get("path") for value in table.column("image").to_pylist()]


def _damaged(path: str, error: Exception) -> PipelineError:
    return PipelineError(f"{path}: not a whole parquet file ({' '.join(str(error).split())[:200]}); copy it again")
