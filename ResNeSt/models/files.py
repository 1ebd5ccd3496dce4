"""What a model is on disk: its file and those that belong to it."""

from __future__ import annotations

from pathlib import Path

from ResNeSt.common.files import PathLike
from ResNeSt.formats import onnx_header


def model_files(path: PathLike) -> list[Path]:
    """The model file at `path` and those that hold its weights: the `.bin` of a `.xml`, data files of a `.onnx`.

    Raises PipelineError where an ONNX file or its weights are damaged or missing.
    """
    path = Path(path)
    if path.suffix == ".xml":
        return [path, path.with_suffix(".bin")]
    if path.suffix == ".onnx":
        return [path, *(path.parent / name for name in onnx_header.read(path).data_files)]
    return [path]
