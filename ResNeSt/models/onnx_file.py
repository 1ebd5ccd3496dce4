"""The network that stage 3 compiles, as its ONNX file describes it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import PathLike
from ResNeSt.formats import onnx_header
from ResNeSt.formats.onnx_weights import in_one_piece, write_one_file
from ResNeSt.models import model_info
from ResNeSt.models.cards import IMAGENET_MEAN, IMAGENET_STD


@dataclasses.dataclass(frozen=True)
class Network:
    """An image classifier: float32 (N, 3, height, width) -> (N, classes); `info` is its metadata, without prefix.

    `mean` and `std` are of RGB values scaled to 0..1; ImageNet's where the file does not say. `data_files` are the
    names of the files beside `path` that hold weights.
    """

    path: Path
    input_name: str
    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    info: dict[str, str]
    data_files: tuple[str, ...] = ()

    @property
    def files(self) -> list[Path]:
        """All files that the network is."""
        return [self.path, *(self.path.parent / name for name in self.data_files)]

    @property
    def one_file(self) -> str:
        """What a compiler that wants a single file is given, in a scratch folder after `write_one_file`."""
        return self.path.name if self.data_files else str(self.path.absolute())

    def write_one_file(self, scratch: Path) -> None:
        """Makes `one_file` in the scratch folder; nothing to do where the network is a single file."""
        if self.data_files:
            write_one_file(self.path, scratch / self.one_file)

    def shape(self, batch: int) -> list[int]:
        """Input shape at `batch`, NCHW."""
        return [batch, 3, self.height, self.width]


def read(path: PathLike) -> Network:
    """The network in the ONNX file at `path`; raises PipelineError unless it is one.

    The batch axis may be free or set: onnxsim's --input-shape sets it, and the compilers set it anew.
    """
    header = onnx_header.read(path)
    actual = ", ".join(f"{tensor.name} {tensor.dtype} {list(tensor.shape)}" for tensor in header.inputs)
    if len(header.inputs) != 1 or not _is_images(header.inputs[0]):
        raise PipelineError(
            f"{path}: inputs are [{actual}], expected one of float32 [N, 3, height, width]; "
            "export it with resnest_pth2onnx.py"
        )
    (images,) = header.inputs
    info = model_info.of_onnx(header.metadata)
    return Network(
        path=Path(path),
        input_name=images.name,
        height=int(images.shape[2]),
        width=int(images.shape[3]),
        mean=_channels(path, info.get("mean"), IMAGENET_MEAN),
        std=_channels(path, info.get("std"), IMAGENET_STD),
        info=info,
        data_files=header.data_files,
    )


def load(path: PathLike) -> Any:
    """The onnx.ModelProto in the file at `path`, its weights inside, whatever the file itself says of where they lie.

    Needs the onnx package. Raises PipelineError where the file or its weights are damaged, or larger than 2 GB.
    """
    import onnx

    return onnx.load_model_from_string(in_one_piece(path))


def holds(path: PathLike, made_of: Mapping[str, str | None]) -> bool:
    """Whether the ONNX file at `path` is there and its metadata say all of `made_of`; None is what they must not say.

    Raises PipelineError where it is damaged.
    """
    if not Path(path).is_file():
        return False
    metadata = onnx_header.read(path).metadata
    return all(metadata.get(key) == value for key, value in made_of.items())


def _is_images(tensor: onnx_header.Tensor) -> bool:
    if tensor.dtype != "float32" or len(tensor.shape) != 4:
        return False
    _, channels, height, width = tensor.shape
    return channels == 3 and isinstance(height, int) and isinstance(width, int)


def _channels(path: PathLike, text: str | None, default: tuple[float, ...]) -> tuple[float, ...]:
    if text is None:
        return default
    try:
        red, green, blue = (float(value) for value in json.loads(text))
    except (TypeError, ValueError):
        raise PipelineError(f"{path}: its metadata says {text!r}, expected three numbers; export it again") from None
    return red, green, blue
