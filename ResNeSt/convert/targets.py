"""Names of compiled models, and the batch sizes that a user types."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Union

from ResNeSt.common.arguments import LARGEST_BATCH
from ResNeSt.common.errors import ArgumentError
from ResNeSt.convert import chips

DYNAMIC = "dyn"  # ends the name of a model that takes several batch sizes
# What a model is compiled for: one batch size, or the sizes among which whoever runs it chooses (--dynamic-batch).
Batch = Union[int, tuple[int, ...]]
FEWEST_SIZES, MOST_SIZES = 2, 100  # of a dynamic batch, by ATC (contract ATC)


def compiled_name(stem: str, batch: Batch, chip: str) -> str:
    """File name of the model of `stem`.onnx compiled for `batch` images on `chip` (a name of `chips.resolve`)."""
    size = f"bs{batch}" if isinstance(batch, int) else DYNAMIC
    return f"{stem}_{size}.{chips.SUFFIXES.get(chip, 'om')}"


def models(batches: Sequence[int], dynamic: bool) -> list[Batch]:
    """What each model is compiled for: one a batch size or, where it is `dynamic`, one for all of them."""
    return [tuple(batches)] if dynamic else list(batches)


def sizes_of(batch: Batch) -> tuple[int, ...]:
    """The batch sizes that a model takes."""
    return (batch,) if isinstance(batch, int) else batch


def in_words(batch: Batch) -> str:
    """`8`, or `1, 4, 8`."""
    return ", ".join(map(str, sizes_of(batch)))


def recorded(batch: Batch) -> int | list[int]:
    """As a model's record says it (ResNeSt.models.sidecar)."""
    return batch if isinstance(batch, int) else list(batch)


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


def check_taken(chip: str, batches: Iterable[int], dtype: str = "float32", dynamic: bool = False) -> None:
    """Raises ArgumentError for what `ncnn` does not take of all that other chips do."""
    others = [str(batch) for batch in batches if batch != 1]
    if chip != chips.NCNN:
        return
    if others or dynamic:
        found = "--dynamic-batch" if dynamic else f"batch {', '.join(others)}"
        raise ArgumentError(
            f"{found} is not for {chip}, which runs one image at a time: name batch 1, whose model takes any number of "
            "images one after the other"
        )
    if dtype != "float32":
        raise ArgumentError(f"--dtype {dtype} is not for {chip}; it takes float32")


def check_dynamic(batches: Iterable[int], chip: str, precision: str) -> list[int]:
    """The sizes of a dynamic batch, in ascending order.

    Raises ArgumentError unless they are 2 to 100 batch sizes, and for int8 on an Ascend chip.
    """
    if precision == "int8" and chips.is_ascend(chip):
        raise ArgumentError(f"--dynamic-batch is not for int8 on {chip}: ATC takes no dynamic batch for AMCT's models")
    sizes = sorted(check_batches(batches))
    if not FEWEST_SIZES <= len(sizes) <= MOST_SIZES:
        raise ArgumentError(
            f"--dynamic-batch takes {FEWEST_SIZES} to {MOST_SIZES} batch sizes, found {len(sizes)}: "
            f"{','.join(map(str, sizes))[:40]}; leave it out for a model of one batch size"
        )
    return sizes


def parse_batches(text: str) -> list[int]:
    """`1,4,8` -> [1, 4, 8], duplicates dropped; raises ArgumentError for anything but whole numbers above 0."""
    batches = []
    for part in text.split(","):
        # isdigit alone takes digits like a superscript two, which int refuses
        if not (part.isascii() and part.isdigit() and len(part) < 20 and int(part) > 0):
            raise ArgumentError(f"batch sizes must be whole numbers above 0, like 1,4,8; found {part[:40]!r}")
        batches.append(int(part))
    return check_batches(batches)
