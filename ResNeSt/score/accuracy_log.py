"""What LoadGen's accuracy mode writes, `mlperf_log_accuracy.json`: an entry for every answer, its bytes in hex.

A sample is asked for by number, and some of them twice (MultiStream fills its last query up). As MLPerf's own scorer
does, the first answer to a sample counts, and its data is one little-endian float32: the class.
"""

from __future__ import annotations

import math
import os
import struct
from typing import Any

from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import PathLike, open_plain, read_json

LARGEST_CLASS = 1 << 24  # whole numbers that float32 holds


def is_accuracy_log(path: PathLike) -> bool:
    """Whether a file is one: a list in JSON; a client's summary is an object."""
    if not os.path.isfile(path):
        return False
    with open_plain(path) as file:
        return file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"[" and isinstance(read_json(path), list)


def read_answers(path: PathLike, problems: dict[str, list[str]]) -> dict[int, int]:
    """Class by sample number; what cannot be read goes to `problems`, and so do answers that differ from the first.

    Raises PipelineError for a log without an entry, as a performance run writes it.
    """
    entries = read_json(path)
    if not entries:
        raise PipelineError(f"{path}: holds no answers; LoadGen writes them in mode accuracy (--mode accuracy)")
    answers: dict[int, int] = {}
    for place, entry in enumerate(entries):
        try:
            number, answer = _answer(entry)
        except ValueError as error:
            problems["unreadable"].append(f"{path}: entry {place}: {error}")
            continue
        if answers.setdefault(number, answer) != answer:
            problems["duplicate"].append(f"{path}: sample {number}: class {answer}, the first is {answers[number]}")
    return answers


def _answer(entry: Any) -> tuple[int, int]:
    number = entry.get("qsl_idx") if isinstance(entry, dict) else None
    if type(number) is not int or number < 0 or not isinstance(entry.get("data"), str):
        raise ValueError("expected qsl_idx, a number from 0, and data in hex")
    data = bytes.fromhex(entry["data"])
    if len(data) != 4:
        raise ValueError(f"sample {number} has {len(data)} bytes, expected one float32 of 4")
    (value,) = struct.unpack("<f", data)
    if not (math.isfinite(value) and value == int(value) and 0 <= value <= LARGEST_CLASS):
        raise ValueError(
            f"sample {number} has the float32 {value:g}, which is no class; it may be a whole number's bytes"
        )
    return number, int(value)
