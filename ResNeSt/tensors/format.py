"""A folder of tensors and the small JSON beside them that says what they are.

`tensors.json` is written when a run starts and again when it ends, so that a later stage can tell a finished data set
from one that is still missing pictures.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable, NamedTuple

import numpy as np

from ResNeSt.common.errors import ArgumentError, PipelineError
from ResNeSt.common.files import PathLike, read_json, write_json


class Layout(NamedTuple):
    """How a tensor of one dtype holds an image: the order of its values, their NumPy dtype, the shape.

    `shape` takes the side of a square image, which `step` divides.
    """

    order: str
    element: str
    shape: Callable[[int], tuple[int, ...]]
    step: int = 1

    def nbytes(self, side: int) -> int:
        """Bytes of the tensor of an image of that side."""
        return int(np.prod(self.shape(side))) * np.dtype(self.element).itemsize


FILES = ("bin", "npz")  # what a tensor's own file is: its bare values, or as ResNeSt.tensors.npz writes it

# By what --dtype calls them: normalised RGB, the bare RGB crop, and the crop as a JPEG decoder's NV12 (tensors.nv12).
LAYOUTS = {
    "float32": Layout("NCHW", "float32", lambda side: (3, side, side)),
    "uint8": Layout("NHWC", "uint8", lambda side: (side, side, 3)),
    "yuv420sp": Layout("NV12", "uint8", lambda side: (side * 3 // 2, side), step=2),
}


def check_dtype(dtype: str, side: int = 0) -> None:
    """Raises ArgumentError for a dtype that tensors do not have, and for a side that it cannot have."""
    if dtype not in LAYOUTS:
        raise ArgumentError(f"dtype {dtype!r}, expected one of {', '.join(LAYOUTS)}")
    if side % LAYOUTS[dtype].step:
        raise ArgumentError(
            f"dtype {dtype} takes images of an even side, found {side} pixels; use --dtype uint8, or a model exported "
            "with an even --size"
        )


def dtype_of(shape: Sequence[int], element: str) -> str | None:
    """The dtype whose tensors of one image have this shape and NumPy dtype; None where there is none."""
    for dtype, layout in LAYOUTS.items():
        sides = [side for side in shape if side > 0 and side % layout.step == 0]
        if layout.element == element and tuple(shape) in map(layout.shape, sides):
            return dtype
    return None


@dataclasses.dataclass(frozen=True)
class TensorFormat:
    """What one tensor file holds, without the batch axis; `dtype` is one of LAYOUTS.

    `exif` is whether pictures are turned as their EXIF orientation says. Raises ArgumentError as `check_dtype` does.
    """

    recipe: str
    size: int
    dtype: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    exif: bool = False

    def __post_init__(self) -> None:
        check_dtype(self.dtype, self.size)

    @property
    def layout(self) -> str:
        """NCHW, NHWC or NV12."""
        return LAYOUTS[self.dtype].order

    @property
    def element(self) -> str:
        """NumPy dtype of the values."""
        return LAYOUTS[self.dtype].element

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one tensor."""
        return LAYOUTS[self.dtype].shape(self.size)

    @property
    def nbytes(self) -> int:
        """Bytes of one tensor file."""
        return LAYOUTS[self.dtype].nbytes(self.size)

    def __str__(self) -> str:
        return f"{self.recipe} {self.size}{', by EXIF' if self.exif else ''}, {self.dtype} {self.layout}"


@dataclasses.dataclass(frozen=True)
class TensorSet:
    """A folder of tensors: their format, the images of the source, the tensors made, the images that failed.

    `packed` is whether they lie in shards (ResNeSt.tensors.shards), not in a file each, which is one of FILES.
    `decoder` says who decoded the images of the last run that made any (ResNeSt.images.native); since all give the same
    bits, runs of several go on. `unturned` counts the images that the same run left as they lie against their EXIF
    orientation.
    """

    format: TensorFormat
    images: int
    count: int
    complete: bool
    broken: tuple[str, ...] = ()
    packed: bool = False
    decoder: str = ""
    files: str = "bin"
    unturned: int = 0

    def __str__(self) -> str:
        each = "a file each" if self.files == "bin" else f"a .{self.files} file each"
        return f"{self.format}, {'packed' if self.packed else each}"


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
    except (ArgumentError, ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
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
        decoder=str(fields.get("decoder", "")),
        files=str(fields.get("files", "bin")),
        unturned=int(fields.get("unturned", 0)),
    )
