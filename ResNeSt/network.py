"""The network that stage 3 compiles, as its ONNX file describes it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Dict, List, Optional, Tuple

from ResNeSt import metadata, onnx_header
from ResNeSt.cards import IMAGENET_MEAN, IMAGENET_STD
from ResNeSt.errors import PipelineError
from ResNeSt.files import PathLike
from ResNeSt.onnx_weights import in_one_file


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
    mean: Tuple[float, ...]
    std: Tuple[float, ...]
    info: Dict[str, str]
    data_files: Tuple[str, ...] = ()

    @property
    def files(self) -> List[Path]:
        """All files that the network is."""
        return [self.path, *(self.path.parent / name for name in self.data_files)]

    @property
    def one_file(self) -> Path:
        """The file with all weights inside: its own, or the one that `write_one_file` makes beside it."""
        return self.path.with_name(f"{self.path.stem}_one_file.onnx") if self.data_files else self.path

    def write_one_file(self) -> None:
        """Makes `one_file`, for compilers that want a single one; nothing to do where the network is that already."""
        if self.data_files:
            in_one_file(self.path, self.one_file)

    def shape(self, batch: int) -> List[int]:
        """Input shape at `batch`, NCHW."""
        return [batch, 3, self.height, self.width]


def read(path: PathLike) -> Network:
    """The network in the ONNX file at `path`; raises PipelineError unless it is one.

    The batch axis may be free or set: onnxsim's --input-shape sets it, and the compilers set it anew.
    """
    header = onnx_header.read(path)
    found = ", ".join(f"{tensor.name} {tensor.dtype} {list(tensor.shape)}" for tensor in header.inputs)
    if len(header.inputs) != 1 or not _is_images(header.inputs[0]):
        raise PipelineError(
            f"{path}: inputs are [{found}], expected one of float32 [N, 3, height, width]; "
            "export it with resnest_pth2onnx.py"
        )
    (images,) = header.inputs
    info = metadata.of_onnx(header.metadata)
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


def _is_images(tensor: onnx_header.Tensor) -> bool:
    if tensor.dtype != "float32" or len(tensor.shape) != 4:
        return False
    _, channels, height, width = tensor.shape
    return channels == 3 and isinstance(height, int) and isinstance(width, int)


def _channels(path: PathLike, text: Optional[str], default: Tuple[float, ...]) -> Tuple[float, ...]:
    if text is None:
        return default
    try:
        red, green, blue = (float(value) for value in json.loads(text))
    except (TypeError, ValueError):
        raise PipelineError(f"{path}: its metadata says {text!r}, expected three numbers; export it again") from None
    return red, green, blue
