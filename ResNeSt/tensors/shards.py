"""Tensors of many images in one file: `shard_00000.npy`, and beside it `shard_00000.json` with the images' names.

The names come first and the `.npy` gets its name last: a shard whose `.npy` is there is whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import PathLike, read_json, remove_plain, whole, write_json

SHARD_IMAGES = 1024


class Shard(NamedTuple):
    """The images whose tensors a shard holds, in its order, those that were left out, and where the first one starts.

    `offset` is in bytes; the tensors follow each other without gaps.
    """

    images: list[str]
    broken: list[str]
    offset: int


def shard_path(folder: PathLike, number: int) -> Path:
    """Where the shard of the images from 1,024 * `number` on lies."""
    return Path(folder) / f"shard_{number:05d}.npy"


def list_shards(folder: PathLike) -> list[Path]:
    """The shards of `folder` that are whole, in order."""
    return sorted(Path(folder).glob("shard_*.npy"))


def write_shard(path: Path, shape: Sequence[int], dtype: str, tensors: Iterable[tuple[str, np.ndarray | None]]) -> None:
    """Writes named tensors of `shape` and `dtype`, each as it comes; one that is None is left out and recorded so."""
    images: list[str] = []
    broken: list[str] = []
    remove_plain(path)  # these names are not those of an older shard's tensors
    with whole(path) as temporary, open(temporary, "wb") as file:
        _write_header(file, SHARD_IMAGES, shape, dtype)
        for name, tensor in tensors:
            if tensor is None:
                broken.append(name)
            else:
                images.append(name)
                file.write(tensor.data)
        file.seek(0)
        _write_header(file, len(images), shape, dtype)
        write_json(path.with_suffix(".json"), {"images": images, "broken": broken})


def _write_header(file: BinaryIO, count: int, shape: Sequence[int], dtype: str) -> None:
    """A .npy header; NumPy pads it to 64 bytes, which makes it 128 bytes for any `count`."""
    descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
    fields = {"descr": descr, "fortran_order": False, "shape": (count, *shape)}
    np.lib.format.write_array_header_1_0(file, fields)


def read_shard(path: Path, shape: Sequence[int], dtype: str) -> Shard:
    """What a shard of tensors of `shape` and `dtype` holds; raises PipelineError where it is not that, or cut short."""
    fields = read_json(path.with_suffix(".json"))
    try:
        images, broken = [str(name) for name in fields["images"]], [str(name) for name in fields["broken"]]
        tensors = np.lib.format.open_memmap(path, mode="r")  # takes no archive and no pickle for one
    except Exception as error:  # a damaged header makes NumPy raise nearly anything, tokenize.TokenError among it
        raise PipelineError(f"{path}: not a shard of tensors ({error}); {_REMEDY}") from None
    if (tensors.shape, tensors.dtype) != ((len(images), *shape), np.dtype(dtype)):
        raise PipelineError(
            f"{path}: holds {tensors.dtype} {list(tensors.shape)}, {dtype} {[len(images), *shape]} was expected; "
            f"{_REMEDY}"
        )
    return Shard(images, broken, int(tensors.offset))


_REMEDY = "run the same resnest_preprocess.py command again to make it anew"
