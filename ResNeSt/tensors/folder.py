"""A folder of tensors and the small JSON beside them that says what they are.

`tensors.json` is written when a run starts and again when it ends, so that a later stage can tell a finished data set
from one that is still missing pictures.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import BinaryIO, NamedTuple, TypeVar

import numpy as np

from ResNeSt.common.ais_bench_names import natural_key, stem
from ResNeSt.common.ais_bench_paths import TENSOR_SUFFIXES
from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import PathLike, open_plain
from ResNeSt.tensors import npz
from ResNeSt.tensors.format import TensorFormat, dtype_of, read_index
from ResNeSt.tensors.shards import list_shards, read_shard

Item = TypeVar("Item")
_WITH_HEADER = (".npy", npz.SUFFIX)


class TensorFile(NamedTuple):
    """One tensor: the path that stands for it in results, and, where it is packed, the part of a shard that it is.

    A packed tensor goes by the path that its own file would have.
    """

    path: str
    shard: str | None = None
    offset: int = 0
    nbytes: int = 0


def tensor_name(image: PathLike, suffix: str = ".bin") -> str:
    """Name of the tensor of `image`."""
    return f"{stem(image)}{suffix}"


def list_tensors(folder: PathLike) -> list[str]:
    """Names of the tensor files of `folder`, in ais_bench's order; it does not read those that end in `.npz`."""
    names = [entry.name for entry in os.scandir(folder) if entry.name.lower().endswith((*TENSOR_SUFFIXES, npz.SUFFIX))]
    return sorted(names, key=natural_key)


def find_tensors(folder: PathLike) -> list[TensorFile]:
    """The tensors of `folder`, in ais_bench's order, in a file each or packed."""
    index = read_index(folder)
    if index is None or not index.packed:
        return [TensorFile(os.path.join(folder, name)) for name in list_tensors(folder)]
    return sorted(_packed_tensors(folder, index.format), key=lambda tensor: natural_key(tensor.path))


def _packed_tensors(folder: PathLike, tensor_format: TensorFormat) -> Iterator[TensorFile]:
    for path in list_shards(folder):
        shard = read_shard(path, tensor_format.shape, tensor_format.element)
        for row, image in enumerate(shard.images):
            offset = shard.offset + row * tensor_format.nbytes
            yield TensorFile(os.path.join(folder, tensor_name(image)), str(path), offset, tensor_format.nbytes)


def tensor_files(source: PathLike) -> list[TensorFile]:
    """The tensors of a folder in ais_bench's order, or the one file that `source` is.

    Raises PipelineError where there are none, or where two would give results of one name.
    """
    if os.path.isfile(source):
        return [TensorFile(os.fspath(source))]
    if not os.path.isdir(source):
        raise PipelineError(f"{source}: no such folder; resnest_preprocess.py makes it")
    tensors = find_tensors(source)
    if not tensors:
        raise PipelineError(f"{source}: holds no .bin, .npy or .npz files; resnest_preprocess.py makes them")
    if len({stem(tensor.path) for tensor in tensors}) < len(tensors):
        raise PipelineError(
            f"{source}: two files share a name up to the first dot, their results would too; rename one"
        )
    return tensors


def read_bytes(tensor: TensorFile, dtype: str | None = None, shape: Sequence[int] = ()) -> bytes:
    """The values of a tensor, without the header of a `.npy` or `.npz`; `dtype` and `shape` must be its own, if given.

    Raises PipelineError where one of these is damaged, or of another dtype or order of axes, which no size would tell.
    """
    if tensor.shard is not None:
        with open(tensor.shard, "rb") as file:
            file.seek(tensor.offset)
            return file.read(tensor.nbytes)
    if tensor.path.lower().endswith(_WITH_HEADER):
        return _values_of(tensor.path, dtype, shape)
    with open_plain(tensor.path) as file:
        return file.read()


def _values_of(path: str, dtype: str | None, shape: Sequence[int]) -> bytes:
    with _whole(path) as file:
        values = npz.read(file) if _is_npz(path) else np.lib.format.read_array(file, allow_pickle=False)
    if dtype is not None:
        _check_header(path, values, dtype, shape)
    return bytes(values.tobytes())


@contextlib.contextmanager
def _whole(path: str) -> Iterator[BinaryIO]:
    """A `.npy` or `.npz` file, open; whatever NumPy makes of a damaged one is a PipelineError."""
    try:
        with open_plain(path) as file:
            yield file
    except PipelineError:
        raise
    except Exception as error:  # a damaged header makes NumPy raise nearly anything, tokenize.TokenError among it
        suffix = npz.SUFFIX if _is_npz(path) else ".npy"
        raise PipelineError(f"{path}: not a whole {suffix} file ({error}); make the tensor again") from None


def _is_npz(path: PathLike) -> bool:
    return os.fspath(path).lower().endswith(npz.SUFFIX)


def refuse_for_ais_bench(folder: PathLike) -> None:
    """Raises PipelineError where `folder` holds packed tensors or `.npz` files, which ais_bench cannot read."""
    index = read_index(folder)
    names = list_tensors(folder) if os.path.isdir(folder) else [os.fspath(folder)]
    if found := next(filter(_is_npz, names), None):
        raise PipelineError(
            f"{folder}: holds {os.path.basename(found)}, ais_bench reads .bin and .npy alone; "
            "run resnest_preprocess.py without --tensor-format npz into another folder"
        )
    if index and index.packed:
        raise PipelineError(
            f"{folder}: holds packed tensors, which ais_bench cannot read; "
            "run resnest_preprocess.py without --pack into another folder"
        )


def read_tensor(tensor: TensorFile, shape: Sequence[int], dtype: str) -> np.ndarray:
    """A tensor as an array of `shape`, without the batch axis; raises PipelineError where its size or dtype differs."""
    content = read_bytes(tensor, dtype, shape)
    expected = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if len(content) != expected:
        raise PipelineError(
            f"{tensor.path}: {len(content)} bytes, {dtype} {list(shape)} takes {expected}; make the tensor again"
        )
    return np.frombuffer(content, dtype).reshape(shape)


def check_files(source: PathLike, shape: Sequence[int], dtype: str) -> None:
    """Raises PipelineError unless every tensor file is one image of `shape` and `dtype`; reads no more than headers."""
    expected = int(np.prod(shape)) * np.dtype(dtype).itemsize
    for tensor in tensor_files(source):
        if tensor.path.lower().endswith(_WITH_HEADER):
            found = _size_of(tensor.path, dtype, shape)
        else:
            found = tensor.nbytes or os.path.getsize(tensor.path)
        if found != expected:
            raise PipelineError(
                f"{tensor.path}: {found} bytes, an image takes {expected} ({dtype} {list(shape)}); a tensor file holds "
                "one image, make it with resnest_preprocess.py"
            )


def _size_of(path: str, dtype: str, shape: Sequence[int]) -> int:
    """Bytes of the values of such a file, which must be of `dtype`, and of `shape` where it has as many values."""
    values: np.ndarray | npz.Header
    with _whole(path) as file:
        values = npz.read_header(file) if _is_npz(path) else np.load(path, mmap_mode="r", allow_pickle=False)
    _check_header(path, values, dtype, shape)
    return int(values.nbytes)


def _check_header(path: str, values: np.ndarray | npz.Header, dtype: str, shape: Sequence[int]) -> None:
    """Raises PipelineError for another dtype, and for other axes of as many values; axes of one do not count."""
    if values.dtype != np.dtype(dtype):
        raise PipelineError(f"{path}: holds {values.dtype.str}, the model takes {dtype}; make the tensor again")
    sides = [side for side in values.shape if side > 1]
    if len(sides) > 1 and values.size == np.prod(shape) and sides != [side for side in shape if side > 1]:
        raise PipelineError(
            f"{path}: of shape {list(values.shape)}, the model takes {list(shape)}; turn its axes, or make it again"
        )


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """`count` of `items` at even distances, first and last among them; all where there are no more."""
    places = np.linspace(0, len(items) - 1, min(len(items), count)).astype(int)
    return [items[place] for place in places]


def check_tensors(folder: PathLike, shape: Sequence[int], dtype: str, info: Mapping[str, str]) -> None:
    """Raises PipelineError unless the tensors of `folder` fit a model's input and are all there.

    `shape` is the model's input with its batch axis, `dtype` that of its values for NumPy, `info` what the model says
    of itself (ResNeSt.models.model_info), from which float32 tensors must not differ in mean and std; another recipe is
    the user's choice. A folder without `tensors.json` (made by another program) is left to the size check that every
    client does.
    """
    tensors = read_index(folder)
    if tensors is None:
        return
    tensor_format = tensors.format
    if (tuple(shape[1:]), dtype) != (tensor_format.shape, tensor_format.element):
        raise PipelineError(
            f"{folder}: holds {tensor_format} tensors of shape {list(tensor_format.shape)}, the model takes "
            f"{dtype_of(shape[1:], dtype) or dtype} {list(shape[1:])}; run resnest_preprocess.py with the model's size "
            "and dtype, or compile the model for these tensors"
        )
    for key, values in {"mean": tensor_format.mean, "std": tensor_format.std}.items():
        said = json.dumps(values)  # as ResNeSt.models.model_info writes them
        if dtype == "float32" and info.get(key, said) != said:
            raise PipelineError(
                f"{folder}: tensors are normalised with {key} {said}, the model wants {info[key]}; run "
                "resnest_preprocess.py with --arch and the model's card"
            )
    here = len(find_tensors(folder))
    if not tensors.complete or here != tensors.count:
        raise PipelineError(
            f"{folder}: {here} tensors of {tensors.count if tensors.complete else tensors.images} are there; "
            "run the same resnest_preprocess.py command again to finish them"
        )
