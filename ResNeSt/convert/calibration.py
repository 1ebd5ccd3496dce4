"""Which tensors calibrate an int8 network, which judge it, and which of its layers stay in floating point."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import PathLike
from ResNeSt.common.progress import Say, silent
from ResNeSt.formats.onnx_weights import sha256_of_onnx
from ResNeSt.models.cards import IMAGENET_MEAN, IMAGENET_STD
from ResNeSt.models.model_info import SECTION
from ResNeSt.models.onnx_file import Network
from ResNeSt.tensors.folder import TensorFile, check_tensors, find_tensors, read_bytes, read_tensor, spread
from ResNeSt.tensors.format import read_index

CALIBRATED, HELD_OUT = 128, 64
FEWEST = 12
# In levels of 0 to 255. Pictures that differ by less in the means of GRID by GRID blocks are one and the same (the
# demo's differ by 13 and more), those that vary by less are one colour; bicubic sampling without clipping overshoots.
SAME, FLAT, GRID = 2.0, 1.0, 8
OVERSHOOT = 64
QUANTIZED = f"{SECTION}.quantized"
NOISE = (
    0.9  # squared differences of neighbours, relative to those of any two pixels; 0.02 in the demo, 0.35 in photographs
)
ROUNDING = 0.1  # mean distance from whole levels: 0.25 for any values, next to 0 for those of 8-bit pictures
# Mean and std that tensors have by mistake: none at all, those of -1 to 1, ImageNet's.
USUAL = ((0.0,) * 3, (1.0,) * 3), ((0.5,) * 3, (0.5,) * 3), (IMAGENET_MEAN, IMAGENET_STD)
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


def choose(folder: PathLike, network: Network, say: Say = silent) -> CalibrationTensors:
    """192 tensors at even distances over the folder, or all if it has fewer: two to calibrate, one held out, in turn.

    Those that repeat another one, exactly or nearly, or that show one colour alone, are left out; `say` hears of it,
    and of tensors of another recipe or normalisation. Raises PipelineError unless the folder holds float32 tensors of
    the network's size, at least 12 of them of different pictures.
    """
    check_tensors(folder, network.shape(1), "float32", network.info)
    files = find_tensors(folder) if Path(folder).is_dir() else []
    if len(files) < FEWEST:
        raise PipelineError(
            f"{folder}: {len(files)} tensors, calibration takes {FEWEST} and better {CALIBRATED + HELD_OUT}; "
            "make float32 tensors with resnest_preprocess.py"
        )
    index, recipe = read_index(folder), network.info.get("recipe")
    if index is not None and recipe not in (None, index.format.recipe):
        say(f"note: {folder}: tensors are {index.format.recipe}, the model's recipe is {recipe}")
    chosen = _different(folder, spread(files, CALIBRATED + HELD_OUT), network, say)
    return CalibrationTensors([file for index, file in enumerate(chosen) if index % 3 != 2], chosen[2::3])


def _different(folder: PathLike, files: Sequence[TensorFile], network: Network, say: Say) -> list[TensorFile]:
    """Those of `files` that show a picture and not that of another one; raises PipelineError for less than 12."""
    kept: list[TensorFile] = []
    blocks = np.empty((len(files), 3 * GRID * GRID))
    unlike = 0
    for file in files:
        values = read_tensor(file, network.shape(1)[1:], "float32")
        levels = _levels(values, network.mean or IMAGENET_MEAN, network.std or IMAGENET_STD)
        if not _are_whole(levels):
            _check_range(file, values, levels, network)
            unlike += network.mean is not None
        means = _block_means(levels)
        differences = np.sqrt(np.square(blocks[: len(kept)] - means).mean(axis=1))
        if _shows_something(levels) and differences.min(initial=np.inf) >= SAME:
            blocks[len(kept)] = means
            kept.append(file)
    left_out = f"{len(files) - len(kept)} of {len(files)} tensors repeat another one, or show one colour or noise alone"
    if len(kept) < FEWEST:
        raise PipelineError(
            f"{folder}: {left_out}; calibration takes {FEWEST} different pictures and better {CALIBRATED + HELD_OUT}, "
            "such as the model will see"
        )
    if len(kept) < len(files):
        say(f"note: {folder}: {left_out}; they are left out")
    if unlike:
        say(
            f"note: {folder}: {unlike} of {len(files)} tensors are not 8-bit pictures normalised with "
            f"{_wanted(network)}; make them with resnest_preprocess.py if they should be"
        )
    return kept


def _shows_something(levels: np.ndarray) -> bool:
    """Whether pixels differ, and neighbours less than any two, which are as unlike in noise."""
    spread = 2 * levels.var(axis=(1, 2)).sum()
    steps = [np.square(np.diff(levels, axis=axis)).mean(axis=(1, 2)).sum() for axis in (1, 2)]
    return bool(levels.std(axis=(1, 2)).max() >= FLAT and np.mean(steps) < NOISE * spread)


def _levels(values: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Values of a tensor, (3, height, width), as those of its picture on a scale of 0 to 255."""
    scale, shift = (np.array(each, np.float32)[:, None, None] for each in (std, mean))
    return np.asarray((values * scale + shift) * 255)


def _are_whole(levels: np.ndarray) -> bool:
    """Whether these are the levels of an 8-bit picture, but for rounding; those with NaN among them are not."""
    inside = levels.min() >= -ROUNDING and levels.max() <= 255 + ROUNDING
    return bool(inside and np.abs(levels - np.rint(levels)).mean() <= ROUNDING)


def _check_range(file: TensorFile, values: np.ndarray, levels: np.ndarray, network: Network) -> None:
    """Raises PipelineError where no picture has these values with the network's mean and std, or one with others.

    Where the network does not say them, all is taken that is a number.
    """
    if network.mean is None:
        if not np.isfinite(values).all():
            raise PipelineError(f"{file.path}: holds NaN or infinity; make it with resnest_preprocess.py")
        return
    remedy = f"the model wants {_wanted(network)}; make it with resnest_preprocess.py"
    for mean, std in USUAL:
        if _are_whole(_levels(values, mean, std)):
            raise PipelineError(f"{file.path}: is normalised with mean {list(mean)} and std {list(std)}, {remedy}")
    if not (levels.min() >= -OVERSHOOT and levels.max() <= 255 + OVERSHOOT):  # NaN is refused, too
        raise PipelineError(
            f"{file.path}: holds values from {values.min():g} to {values.max():g}, which no picture has, {remedy}"
        )


def _wanted(network: Network) -> str:
    mean, std = network.normalisation
    return f"mean {list(mean)} and std {list(std)}"


def _block_means(levels: np.ndarray) -> np.ndarray:
    """(3, height, width) -> means of GRID x GRID blocks of each channel, in a row."""
    rows, columns = (np.linspace(0, side, GRID, endpoint=False).astype(int) for side in levels.shape[1:])
    sums = np.add.reduceat(np.add.reduceat(levels, rows, axis=1), columns, axis=2)
    sizes = [np.maximum(np.diff([*edges, side]), 1) for edges, side in zip((rows, columns), levels.shape[1:])]
    return np.asarray(sums / np.outer(*sizes)).ravel()


def scored_too(tensors: CalibrationTensors, scored: PathLike) -> int:
    """How many of the tensors to calibrate with are among those of the folder `scored`, by their content."""
    calibration = {hashlib.sha256(read_bytes(tensor)).digest() for tensor in tensors.calibration}
    if Path(tensors.calibration[0].path).parent.resolve() == Path(scored).resolve():
        return len(calibration)
    return len(calibration & {hashlib.sha256(read_bytes(tensor)).digest() for tensor in find_tensors(scored)})


def describe(source: Path, tensors: CalibrationTensors) -> dict[str, str]:
    """What a quantized file is made of, as it says itself."""
    folder = Path(tensors.calibration[0].path).parent
    calibration = f"{len(tensors.calibration)} tensors of {folder.name} sha256:{sha256_of(tensors.calibration)}"
    return {
        QUANTIZED: f"{source.name} sha256:{sha256_of_onnx(source)}",
        f"{SECTION}.calibration": calibration,
    }


def check_described(made_of: dict[str, str], source: Path, tensors: CalibrationTensors) -> None:
    """Raises PipelineError where `describe` no longer says `made_of`, since files changed while they were used."""
    if describe(source, tensors) != made_of:
        raise PipelineError(
            f"{source}: it or the calibration tensors changed while they were being read; run the same command again"
        )


def sha256_of(tensors: Sequence[TensorFile]) -> str:
    """Hex SHA-256 of the tensors, one after the other."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(read_bytes(tensor))
    return digest.hexdigest()
