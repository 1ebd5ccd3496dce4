"""A client's summary and the output files that it lists."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import PathLike, read_json


def read_summary(path: PathLike) -> dict[str, Any]:
    """A client's summary; raises PipelineError where it lacks the times."""
    summary = read_json(path)
    times = summary.get("npu_compute_time_list") if isinstance(summary, dict) else None
    if not times or not all(isinstance(value, (int, float)) for value in times):
        raise PipelineError(f"{path}: holds no npu_compute_time_list; was it written by ais_bench or ResNeSt.infer?")
    return dict(summary)


OUTPUT_NAME = re.compile(r"(.+)_[0-9]+\.\w+")  # contract: ais_bench, output file
_OLD_SUMMARY = "sumary.json"  # until November 2022 it lay among the outputs, spelled like this


class OutputError(PipelineError):
    """An output file that cannot be read; `kind` is one of KINDS."""

    kind = "unreadable"


class NotFiniteError(OutputError):
    """Logits with NaN or infinity in them, which no ranking can be made of."""

    kind = "not-finite"


def list_outputs(path: PathLike) -> list[str]:
    """Paths of all output files that a summary JSON lists, in its order.

    The client writes paths as seen from the directory where it ran. The directory beside the summary goes first, so
    that a copied result is scored and not the one it was copied from; then the path as it stands.
    Raises PipelineError where the file is no summary or lists nothing.
    """
    recorded = [file for entry in _entries(path) for file in _outfiles(entry, path)]
    if not recorded:
        raise PipelineError(f"{path}: lists no output files; run the client without --pipeline, which leaves them out")
    folders = {folder: _find_folder(folder, Path(path)) for folder in set(map(os.path.dirname, recorded))}
    return [os.path.join(folders[os.path.dirname(file)], os.path.basename(file)) for file in recorded]


def _entries(path: PathLike) -> Iterable[Any]:
    summary = read_json(path)
    entries = summary.get("filesinfo") if isinstance(summary, dict) else None
    if not isinstance(entries, dict):
        raise PipelineError(f"{path}: not a summary of ais_bench: no object called filesinfo in it")
    return entries.values()


def _outfiles(entry: Any, path: PathLike) -> list[str]:
    files = entry.get("outfiles") if isinstance(entry, dict) else None
    # Unprintable characters: no path of the client's has them, and they would not survive a look-up or a report.
    if not isinstance(files, list) or not all(isinstance(file, str) and file.isprintable() for file in files):
        raise PipelineError(
            f"{path}: not a summary of ais_bench: an entry of filesinfo is {str(entry)[:80]!a}, expected an object "
            "whose outfiles are a list of paths"
        )
    return files


def _find_folder(recorded: str, summary: Path) -> str:
    beside = summary.parent if summary.name == _OLD_SUMMARY else summary.parent / os.path.basename(recorded)
    return os.fspath(beside) if os.path.isdir(beside) else recorded


def read_output(path: PathLike) -> np.ndarray:
    """float32 [C]: the values of one output file: .bin (bare float32), .npy, or .txt (numbers apart by blanks).

    Raises OutputError that names the file where it cannot be read or is cut short, NotFiniteError (one, too) where it
    holds NaN or infinity.
    """
    read = _READERS.get(os.path.splitext(path)[1])
    if read is None:
        raise OutputError(f"{path}: expected a file that ends in .bin, .npy or .txt")
    try:
        values = read(path)
    except Exception as error:  # NumPy's readers raise nearly anything on damaged files
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
        raise OutputError(f"{path}: {reason}") from None
    if not values.size:
        raise OutputError(f"{path}: empty")
    if not np.isfinite(values).all():
        raise NotFiniteError(f"{path}: {np.sum(~np.isfinite(values))} of {values.size} values")
    return values


_ONE_ROW = "a result has one; the tensor file held several images, which nothing can be joined to"


def _read_bin(path: PathLike) -> np.ndarray:
    content = Path(path).read_bytes()
    if len(content) % 4:
        raise ValueError(f"cut short, {len(content)} bytes are no whole number of float32 values")
    return np.frombuffer(content, dtype="<f4")


def _read_npy(path: PathLike) -> np.ndarray:
    with open(path, "rb") as file:
        values = np.lib.format.read_array(file, allow_pickle=False)
    if values.dtype.kind != "f":
        raise ValueError(f"holds {values.dtype}, expected floating-point numbers")
    if sum(side > 1 for side in values.shape) > 1:
        raise ValueError(f"is of shape {list(values.shape)}, {_ONE_ROW}")
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, which is reported
        return values.astype(np.float32).ravel()


def _read_txt(path: PathLike) -> np.ndarray:
    with open(path, "rb") as file:
        text = file.read()
    if text and not text.endswith(b"\n"):
        raise ValueError("cut short, the last line does not end")
    rows = text.count(b"\n")
    if rows > 1 and len(text.split(b"\n", 1)[0].split()) > 1:
        raise ValueError(f"holds {rows} rows, {_ONE_ROW}")
    # As fast as np.fromstring, which takes damaged text for numbers in NumPy 1.x.
    return np.array(text.split(), dtype=np.float32)


_READERS = {".bin": _read_bin, ".npy": _read_npy, ".txt": _read_txt}
