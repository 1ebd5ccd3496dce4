"""Names of compiled models, and the batch sizes that a user types."""

from __future__ import annotations

import operator
from collections.abc import Iterable

from ResNeSt.common.arguments import LARGEST_BATCH
from ResNeSt.common.errors import ArgumentError
from ResNeSt.convert import chips


def compiled_name(stem: str, batch: int, chip: str) -> str:
    """File name of the model of `stem`.onnx compiled for `batch` images on `chip` (a name of `chips.resolve`)."""
    return f"{stem}_bs{batch}.{'xml' if chip == chips.CPU else 'om'}"


def check_batches(batches: Iterable[int]) -> list[int]:
    """Batch sizes as plain numbers, each once; raises ArgumentError where there is none, or one is not above 0."""
    given = list(batches)
    try:
        sizes = [operator.index(batch) for batch in given if not isinstance(batch, bool)]
    except TypeError:
        sizes = []
    if len(sizes) < max(len(given), 1) or min(sizes) < 1:
        raise ArgumentError(f"batch sizes must be whole numbers above 0, like [1, 4, 8]; found {given}")
    if max(sizes) > LARGEST_BATCH:
        raise ArgumentError(f"a batch of {max(sizes)} images, expected at most {LARGEST_BATCH:,}")
    return list(dict.fromkeys(sizes))


def parse_batches(text: str) -> list[int]:
    """`1,4,8` -> [1, 4, 8], duplicates dropped; raises ArgumentError for anything but whole numbers above 0."""
    batches = []
    for part in text.split(","):
        # isdigit alone takes digits like a superscript two, which int refuses
        if not (part.isascii() and part.isdigit() and len(part) < 20 and int(part) > 0):
            raise ArgumentError(f"batch sizes must be whole numbers above 0, like 1,4,8; found {part[:40]!r}")
        batches.append(int(part))
    return check_batches(batches)
