"""A folder of tensors and the small JSON beside them that says what they are.

`tensors.json` is written when a run starts and again when it ends, so that a later stage can tell a finished data set
from one that is still missing pictures.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import PathLike, read_json, write_json

LAYOUTS = {"float32": "NCHW", "uint8": "NHWC"}


@dataclasses.dataclass(frozen=True)
class TensorFormat:
    """What one tensor file holds: float32 NCHW, normalised, or uint8 NHWC, the bare crop; without the batch axis.

    `exif` is whether pictures are turned as their EXIF orientation says.
    """

    recipe: str
    size: int
    dtype: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    exif: bool = False

    @property
    def layout(self) -> str:
        """NCHW or NHWC."""
        return LAYOUTS[self.dtype]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one tensor."""
        return (3, self.size, self.size) if self.layout == "NCHW" else (self.size, self.size, 3)

    @property
    def nbytes(self) -> int:
        """Bytes of one tensor file."""
        return 3 * self.size * self.size * (4 if self.dtype == "float32" else 1)

    def __str__(self) -> str:
        return f"{self.recipe} {self.size}{', by EXIF' if self.exif else ''}, {self.dtype} {self.layout}"


@dataclasses.dataclass(frozen=True)
class TensorSet:
    """A folder of tensors: their format, the images of the source, the tensors made, the images that failed.

    `packed` is whether they lie in shards (ResNeSt.tensors.shards), not in a file each.
    """

    format: TensorFormat
    images: int
    count: int
    complete: bool
    broken: tuple[str, ...] = ()
    packed: bool = False

    def __str__(self) -> str:
        return f"{self.format}, {'packed' if self.packed else 'a file each'}"


def index_path(folder: PathLike) -> Path:
    """Where the JSON of `folder` lies."""
    return Path(folder) / "tensors.json"


def write_index(folder: PathLike, tensors: TensorSet) -> None:
    """Writes `tensors.json`, whole or not at all."""
    fields = dataclasses.asdict(tensors)
    format_fields = fields.pop("format")
    write_json(index_path(folder), {**format_fields, "layout": tensors.format.layout, **fields})


def read_index(folder: PathLike) -> TensorSet | None:
    """What `tensors.json` says, or None where there is none; raises PipelineError where it makes no sense."""
    path = index_path(folder)
    if not path.exists():
        return None
    fields = read_json(path)
    try:
        return _tensor_set(fields)
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise PipelineError(
            f"{path}: not an index of tensors ({error!r}); run resnest_preprocess.py into a new folder"
        ) from None


def _tensor_set(fields: Any) -> TensorSet:
    tensor_format = TensorFormat(
        recipe=str(fields["recipe"]),
        size=int(fields["size"]),
        dtype=str(fields["dtype"]),
        mean=tuple(float(value) for value in fields["mean"]),
        std=tuple(float(value) for value in fields["std"]),
        exif=bool(fields.get("exif", False)),
    )
    if fields["layout"] != tensor_format.layout:
        raise ValueError(f"layout {fields['layout']} for {tensor_format.dtype}")
    return TensorSet(
        format=tensor_format,
        images=int(fields["images"]),
        count=int(fields["count"]),
        complete=bool(fields["complete"]),
        broken=tuple(str(name) for name in fields["broken"]),
        packed=bool(fields.get("packed", False)),
    )
