"""A folder of tensors and the small JSON beside them that says what they are.

`tensors.json` is written when a run starts and again when it ends, so that a later stage can tell a finished data set
from one that is still missing pictures.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple, TypeVar

import numpy as np

from ResNeSt.errors import PipelineError
from ResNeSt.files import PathLike, natural_key, read_json, stem, write_json
from ResNeSt.shards import list_shards, read_shard

Item = TypeVar("Item")

LAYOUTS = {"float32": "NCHW", "uint8": "NHWC"}
SUFFIXES = (".bin", ".npy")  # what ais_bench reads from a folder, in any case; everything else it ignores


@dataclasses.dataclass(frozen=True)
class TensorFormat:
    """What one tensor file holds: float32 NCHW, normalised, or uint8 NHWC, the bare crop; without the batch axis."""

    recipe: str
    size: int
    dtype: str
    mean: Tuple[float, ...]
    std: Tuple[float, ...]

    @property
    def layout(self) -> str:
        """NCHW or NHWC."""
        return LAYOUTS[self.dtype]

    @property
    def shape(self) -> Tuple[int, int, int]:
        """Shape of one tensor."""
        return (3, self.size, self.size) if self.layout == "NCHW" else (self.size, self.size, 3)

    @property
    def nbytes(self) -> int:
        """Bytes of one tensor file."""
        return 3 * self.size * self.size * (4 if self.dtype == "float32" else 1)

    def __str__(self) -> str:
        return f"{self.recipe} {self.size}, {self.dtype} {self.layout}"


@dataclasses.dataclass(frozen=True)
class TensorSet:
    """A folder of tensors: their format, the images of the source, the tensors made, the images that failed.

    `packed` is whether they lie in shards (ResNeSt.shards), not in a file each.
    """

    format: TensorFormat
    images: int
    count: int
    complete: bool
    broken: Tuple[str, ...] = ()
    packed: bool = False

    def __str__(self) -> str:
        return f"{self.format}, {'packed' if self.packed else 'a file each'}"


class TensorFile(NamedTuple):
    """One tensor: the path that stands for it in results, and, where it is packed, the part of a shard that it is.

    A packed tensor goes by the path that its own file would have.
    """

    path: str
    shard: Optional[str] = None
    offset: int = 0
    nbytes: int = 0


def index_path(folder: PathLike) -> Path:
    """Where the JSON of `folder` lies."""
    return Path(folder) / "tensors.json"


def write_index(folder: PathLike, tensors: TensorSet) -> None:
    """Writes `tensors.json`, whole or not at all."""
    fields = dataclasses.asdict(tensors)
    made = fields.pop("format")
    write_json(index_path(folder), {**made, "layout": tensors.format.layout, **fields})


def read_index(folder: PathLike) -> Optional[TensorSet]:
    """What `tensors.json` says, or None where there is none; raises PipelineError where it makes no sense."""
    path = index_path(folder)
    if not path.exists():
        return None
    fields = read_json(path)
    try:
        return _tensor_set(fields)
    except (KeyError, TypeError, ValueError) as error:
        raise PipelineError(
            f"{path}: not an index of tensors ({error!r}); run resnest_preprocess.py into a new folder"
        ) from None


def _tensor_set(fields: Any) -> TensorSet:
    made = TensorFormat(
        recipe=str(fields["recipe"]),
        size=int(fields["size"]),
        dtype=str(fields["dtype"]),
        mean=tuple(float(value) for value in fields["mean"]),
        std=tuple(float(value) for value in fields["std"]),
    )
    if fields["layout"] != made.layout:
        raise ValueError(f"layout {fields['layout']} for {made.dtype}")
    return TensorSet(
        format=made,
        images=int(fields["images"]),
        count=int(fields["count"]),
        complete=bool(fields["complete"]),
        broken=tuple(str(name) for name in fields["broken"]),
        packed=bool(fields.get("packed", False)),
    )


def tensor_name(image: PathLike) -> str:
    """Name of the tensor of `image`."""
    return f"{stem(image)}.bin"


def list_tensors(folder: PathLike) -> List[str]:
    """Names of the tensor files of `folder`, in ais_bench's order."""
    found = [entry.name for entry in os.scandir(folder) if entry.name.lower().endswith(SUFFIXES)]
    return sorted(found, key=natural_key)


def find_tensors(folder: PathLike) -> List[TensorFile]:
    """The tensors of `folder`, in ais_bench's order, in a file each or packed."""
    index = read_index(folder)
    if index is None or not index.packed:
        return [TensorFile(os.path.join(folder, name)) for name in list_tensors(folder)]
    return sorted(_packed_tensors(folder, index.format), key=lambda tensor: natural_key(tensor.path))


def _packed_tensors(folder: PathLike, made: TensorFormat) -> Iterator[TensorFile]:
    for path in list_shards(folder):
        shard = read_shard(path, made.shape, made.dtype)
        for row, image in enumerate(shard.images):
            offset = shard.offset + row * made.nbytes
            yield TensorFile(os.path.join(folder, tensor_name(image)), str(path), offset, made.nbytes)


def tensor_files(source: PathLike) -> List[TensorFile]:
    """The tensors of a folder in ais_bench's order, or the one file that `source` is.

    Raises PipelineError where there are none, or where two would give results of one name.
    """
    if os.path.isfile(source):
        return [TensorFile(os.fspath(source))]
    if not os.path.isdir(source):
        raise PipelineError(f"{source}: no such folder; resnest_preprocess.py makes it")
    found = find_tensors(source)
    if not found:
        raise PipelineError(f"{source}: holds no .bin or .npy files; resnest_preprocess.py makes them")
    if len({stem(tensor.path) for tensor in found}) < len(found):
        raise PipelineError(
            f"{source}: two files share a name up to the first dot, their results would too; rename one"
        )
    return found


def read_bytes(tensor: TensorFile) -> bytes:
    """The values of a tensor, without the header that a `.npy` has."""
    if tensor.shard is not None:
        with open(tensor.shard, "rb") as file:
            file.seek(tensor.offset)
            return file.read(tensor.nbytes)
    if tensor.path.lower().endswith(".npy"):
        return np.load(tensor.path, allow_pickle=False).tobytes()
    return Path(tensor.path).read_bytes()


def refuse_packed(folder: PathLike) -> None:
    """Raises PipelineError where `folder` holds packed tensors, which ais_bench cannot read."""
    index = read_index(folder)
    if index and index.packed:
        raise PipelineError(
            f"{folder}: holds packed tensors, which ais_bench cannot read; "
            "run resnest_preprocess.py without --pack into another folder"
        )


def read_tensor(tensor: TensorFile, shape: Sequence[int], dtype: str) -> np.ndarray:
    """A tensor as an array of `shape`, without the batch axis; raises PipelineError where its size is another."""
    content = read_bytes(tensor)
    expected = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if len(content) != expected:
        raise PipelineError(
            f"{tensor.path}: {len(content)} bytes, {dtype} {list(shape)} takes {expected}; make the tensor again"
        )
    return np.frombuffer(content, dtype).reshape(shape)


def spread(items: Sequence[Item], count: int) -> List[Item]:
    """`count` of `items` at even distances, first and last among them; all where there are no more."""
    places = np.linspace(0, len(items) - 1, min(len(items), count)).astype(int)
    return [items[place] for place in places]


def check_tensors(folder: PathLike, shape: Sequence[int], dtype: str, info: Mapping[str, str]) -> None:
    """Raises PipelineError unless the tensors of `folder` fit a model's input and are all there.

    `shape` is the model's input with its batch axis, `dtype` its NumPy name, `info` what the model says of itself
    (ResNeSt.metadata), from which float32 tensors must not differ in mean and std; another recipe is the user's choice.
    A folder without `tensors.json` (made by another program) is left to the size check that every client does.
    """
    tensors = read_index(folder)
    if tensors is None:
        return
    made = tensors.format
    if (tuple(shape[1:]), dtype) != (made.shape, made.dtype):
        raise PipelineError(
            f"{folder}: holds {made} tensors of shape {list(made.shape)}, the model takes {dtype} {list(shape[1:])}; "
            "run resnest_preprocess.py with the model's size and dtype, or compile the model for these tensors"
        )
    for key, values in {"mean": made.mean, "std": made.std}.items():
        said = json.dumps(values)  # as ResNeSt.metadata writes them
        if dtype == "float32" and info.get(key, said) != said:
            raise PipelineError(
                f"{folder}: tensors are normalised with {key} {said}, the model wants {info[key]}; run "
                "resnest_preprocess.py with --model and the model's card"
            )
    here = len(find_tensors(folder))
    if not tensors.complete or here != tensors.count:
        raise PipelineError(
            f"{folder}: {here} tensors of {tensors.count if tensors.complete else tensors.images} are there; "
            "run the same resnest_preprocess.py command again to finish them"
        )
