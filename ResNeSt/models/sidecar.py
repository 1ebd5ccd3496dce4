"""The `.json` beside a file that convert.sh made: what it was made of and how."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import read_json, remove_plain, write_json


def path_of(model: Path) -> Path:
    """Where the record of `model` lies."""
    return model.with_name(f"{model.name}.json")


def read(model: Path) -> dict[str, Any]:
    """What the record says; empty where there is none, or something else. Raises PipelineError where it is damaged."""
    path = path_of(model)
    record = read_json(path) if path.is_file() else None
    return record if isinstance(record, dict) else {}


def info_of(model: Path) -> dict[str, str]:
    """What the record says that the model is (ResNeSt.models.model_info); empty where it does not."""
    info = read(model).get("info")
    return info if isinstance(info, dict) else {}


def is_of(record: Mapping[str, Any], digests: Mapping[str, str]) -> bool:
    """Whether it is the record of files of these digests (ResNeSt.models.files), whatever they are called by now."""
    files = record.get("files")
    return isinstance(files, dict) and sorted(map(str, files.values())) == sorted(digests.values())


def sizes_of(model: Path) -> tuple[int, ...]:
    """The batch sizes that the record says the model takes, ascending; empty where it does not.

    One compiled for a single size has that one.
    """
    batch = read(model).get("batch")
    sizes: list[Any] = batch if isinstance(batch, list) else [batch]
    return tuple(sorted(sizes)) if all(type(size) is int and size > 0 for size in sizes) else ()


def recorded(model: Path, keys: Iterable[str]) -> dict[str, Any]:
    """What the record says of `keys`, as far as it does; a damaged one says nothing."""
    with contextlib.suppress(OSError, PipelineError):
        record = read(model)
        return {key: record[key] for key in keys if key in record}
    return {}


def write(model: Path, record: Mapping[str, Any]) -> None:
    """Writes the record, whole or not at all."""
    write_json(path_of(model), record)


def remove(model: Path) -> None:
    """Takes the record away, before the model that it is of."""
    remove_plain(path_of(model))


def holds(model: Path, made_of: Mapping[str, Any]) -> bool:
    """Whether the model is there, with a record that says all of `made_of`; a damaged one says nothing."""
    with contextlib.suppress(OSError, PipelineError):
        return model.is_file() and made_of.items() <= read(model).items()
    return False
