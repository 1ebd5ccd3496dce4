"""Which tensors calibrate an int8 network, which judge it, and which of its layers stay in floating point."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import PathLike
from ResNeSt.formats.onnx_weights import sha256_of_onnx
from ResNeSt.models.model_info import SECTION
from ResNeSt.models.onnx_file import Network
from ResNeSt.tensors.folder import TensorFile, check_tensors, find_tensors, read_bytes, spread

CALIBRATED, HELD_OUT = 128, 64
FEWEST = 12
# The attention branches: a rewritten one as a whole (WeighedSum of ResNeSt.export.rewrites), of
# others the two convolutions.
FLOAT_BRANCHES = [".*/weigh/.*", ".*/fc[12]/.*"]


def is_float_branch(node: str) -> bool:
    """Whether a node of this name is of an attention branch."""
    return any(re.fullmatch(pattern, node) for pattern in FLOAT_BRANCHES)


class CalibrationTensors(NamedTuple):
    """Tensors to calibrate with, and others to judge the result by."""

    calibration: list[TensorFile]
    held_out: list[TensorFile]


def choose(folder: PathLike, network: Network) -> CalibrationTensors:
    """192 tensors at even distances over the folder, or all if it has fewer: two to calibrate, one held out, in turn.

    Raises PipelineError unless the folder holds float32 tensors of the network's size, at least 12.
    """
    check_tensors(folder, network.shape(1), "float32", network.info)
    files = find_tensors(folder) if Path(folder).is_dir() else []
    if len(files) < FEWEST:
        raise PipelineError(
            f"{folder}: {len(files)} tensors, calibration takes {FEWEST} and better {CALIBRATED + HELD_OUT}; "
            "make float32 tensors with resnest_preprocess.py"
        )
    chosen = spread(files, CALIBRATED + HELD_OUT)
    return CalibrationTensors([file for index, file in enumerate(chosen) if index % 3 != 2], chosen[2::3])


def describe(source: Path, tensors: CalibrationTensors) -> dict[str, str]:
    """What a quantized file is made of, as it says itself."""
    folder = Path(tensors.calibration[0].path).parent
    calibration = f"{len(tensors.calibration)} tensors of {folder.name} sha256:{sha256_of(tensors.calibration)}"
    return {
        f"{SECTION}.quantized": f"{source.name} sha256:{sha256_of_onnx(source)}",
        f"{SECTION}.calibration": calibration,
    }


def sha256_of(tensors: Sequence[TensorFile]) -> str:
    """Hex SHA-256 of the tensors, one after the other."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(read_bytes(tensor))
    return digest.hexdigest()
