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


@dataclasses.dataclass(frozen=True)
class Network:
    """An image classifier: float32 (N, 3, height, width) -> (N, classes); `info` is its metadata, without prefix.

    `mean` and `std` are of RGB values scaled to 0..1; ImageNet's where the file does not say.
    """

    path: Path
    input_name: str
    height: int
    width: int
    mean: Tuple[float, ...]
    std: Tuple[float, ...]
    info: Dict[str, str]

    def shape(self, batch: int) -> List[int]:
        """Input shape at `batch`, NCHW."""
        return [batch, 3, self.height, self.width]


def read(path: PathLike) -> Network:
    """The network in the ONNX file at `path`; raises PipelineError unless it is one.

    The batch axis may be free or set: onnxsim's --input-shape sets it, and the compilers set it anew.
    """
    header = onnx_header.read(path)
    if header.external:
        # Whoever made the file chose those paths, and the compilers would follow them anywhere.
        raise PipelineError(f"{path}: its weights lie in other files; save it as one file, as resnest_pth2onnx.py does")
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
