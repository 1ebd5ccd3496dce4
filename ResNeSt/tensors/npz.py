"""A tensor in a `.npz` file: one array, called as the exported model's input, (1, ...) with the batch axis.

So the file is what a program feeds to the model that takes inputs by their names. It is not compressed.
"""

from __future__ import annotations

import math
import zipfile
from typing import BinaryIO, NamedTuple

import numpy as np

SUFFIX = ".npz"
KEY = "actual_input_1"  # of ResNeSt.models.model_info
LARGEST = 1 << 30  # bytes of an array that is read


class Header(NamedTuple):
    """What an array is, without its values."""

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the values."""
        return self.size * self.dtype.itemsize


def write(file: BinaryIO, tensor: np.ndarray) -> None:
    """Writes a tensor of one image, without its batch axis; the same bytes for the same values."""
    np.savez(file, **{KEY: tensor[None]})  # type: ignore[arg-type]


def read_header(file: BinaryIO) -> Header:
    """Of the array called KEY, or the only one; raises ValueError, or nearly anything, for what is no such file."""
    with zipfile.ZipFile(file) as archive, archive.open(_name(archive)) as member:
        version = np.lib.format.read_magic(member)
        read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}[version[0]]
        shape, _, dtype = read(member)
        return Header(shape, dtype)


def read(file: BinaryIO) -> np.ndarray:
    """The values of that array; raises what `read_header` does, and ValueError for one of more bytes than LARGEST."""
    header = read_header(file)
    if header.nbytes > LARGEST:
        raise ValueError(f"{header.nbytes:,} bytes, expected {LARGEST:,} at most")
    with zipfile.ZipFile(file) as archive, archive.open(_name(archive)) as member:
        values: np.ndarray = np.lib.format.read_array(member, allow_pickle=False)
        member.read(1)  # to its end, where its checksum is held against it
        return values


def _name(archive: zipfile.ZipFile) -> str:
    names = archive.namelist()
    if f"{KEY}.npy" in names:
        return f"{KEY}.npy"
    if len(names) != 1:
        raise ValueError(f"{len(names)} arrays, expected one, or one called {KEY}")
    return names[0]
