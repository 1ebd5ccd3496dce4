"""Tensors of stage 1 as an engine takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable, NamedTuple

import numpy as np

from ResNeSt.common.ais_bench_names import stem
from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import PathLike
from ResNeSt.engines.engine import TensorSpec
from ResNeSt.images.recipes import normalisation_table, normalise
from ResNeSt.tensors.folder import TensorFile, check_tensors, read_tensor, tensor_files
from ResNeSt.tensors.format import read_index

Adapter = Callable[[np.ndarray], np.ndarray]


class Normalisation(NamedTuple):
    """Mean and standard deviation, a channel each, of RGB values scaled to 0..1."""

    mean: Sequence[float]
    std: Sequence[float]


def stack(files: Sequence[TensorFile], shape: Sequence[int], dtype: str) -> np.ndarray:
    """(N, *shape) of tensors; raises PipelineError where one is of another size."""
    return np.stack([read_tensor(file, shape, dtype) for file in files])


def adapter(shape: Sequence[int], dtype: str, takes: TensorSpec, normalisation: Normalisation | None) -> Adapter | None:
    """From tensors of `shape` (without the batch axis) and `dtype` to those that a model takes; None where none can be.

    uint8 NHWC is normalised for a model of float32 NCHW; the other way round become the levels that it was made of.
    """
    wanted = (takes.shape[1:], takes.dtype)
    if (tuple(shape), dtype) == wanted:
        return lambda images: images
    if normalisation is None:
        return None
    if dtype == "uint8" and wanted == ((3, *shape[:2]), "float32"):
        table = normalisation_table(*normalisation)
        return lambda images: _normalised(images, table)
    if dtype == "float32" and wanted == ((*shape[1:], 3), "uint8"):
        return lambda images: _levels(images, normalisation)
    return None


def _normalised(images: np.ndarray, table: np.ndarray) -> np.ndarray:
    """uint8 (N, H, W, 3) -> float32 (N, 3, H, W)."""
    out = np.empty((len(images), 3, *images.shape[1:3]), np.float32)
    for image, tensor in zip(images, out):
        normalise(image, table, tensor)
    return out


def _levels(images: np.ndarray, normalisation: Normalisation) -> np.ndarray:
    """float32 (N, 3, H, W) -> uint8 (N, H, W, 3)."""
    levels = (images.transpose(0, 2, 3, 1) * normalisation.std + normalisation.mean) * 255
    return np.ascontiguousarray(np.rint(levels).astype(np.uint8))


class TensorFolder:
    """The tensors of stage 1 in `folder`, by image name; one without `tensors.json` holds what a model like it takes.

    Raises PipelineError where there are none, or not all.
    """

    def __init__(self, folder: PathLike, like: TensorSpec) -> None:
        self.folder = folder
        self.files = {stem(tensor.path): tensor for tensor in tensor_files(folder)}
        index = read_index(folder)
        self.shape = index.format.shape if index else like.shape[1:]
        self.dtype = index.format.dtype if index else like.dtype
        self.recipe = index.format.recipe if index else None
        self._normalisation = Normalisation(index.format.mean, index.format.std) if index else None
        check_tensors(folder, (1, *self.shape), self.dtype, {})

    def load(self, names: Sequence[str]) -> np.ndarray:
        """(N, ...): the tensors as they are."""
        return stack([self.files[name] for name in names], self.shape, self.dtype)

    def adapter(self, model: PathLike, takes: TensorSpec) -> Adapter:
        """From tensors of `load` to what `model` takes; raises PipelineError where they cannot be adapted."""
        adapt = adapter(self.shape, self.dtype, takes, self._normalisation)
        if adapt is None:
            raise PipelineError(
                f"{self.folder}: holds {self.dtype} tensors of shape {list(self.shape)}, {model} takes {takes.dtype} "
                f"{list(takes.shape[1:])}; give tensors of its size (resnest_preprocess.py), of --dtype uint8 where "
                "one of the models takes uint8: for the other they are normalised"
            )
        return adapt
