"""What a model is on disk: its file and those that belong to it, told apart by their content."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import List

from ResNeSt import onnx_header
from ResNeSt.files import PathLike, sha256


def model_files(path: PathLike) -> List[Path]:
    """The model file at `path` and those that hold its weights: the `.bin` of a `.xml`, data files of a `.onnx`.

    Raises PipelineError where an ONNX file or its weights are damaged or missing.
    """
    path = Path(path)
    if path.suffix == ".xml":
        return [path, path.with_suffix(".bin")]
    if path.suffix == ".onnx":
        return [path, *(path.parent / name for name in onnx_header.read(path).data_files)]
    return [path]


def sha256_of_model(path: PathLike) -> str:
    """Hex SHA-256 of a model: of its file, or, where weights lie in others, of the digests of all."""
    digests = [sha256(file) for file in model_files(path)]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
