"""Tensors of stage 1 as an engine takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable, NamedTuple

import numpy as np

from ResNeSt.common.ais_bench_names import stem
from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import PathLike
from ResNeSt.engines.engine import TensorSpec
from ResNeSt.images.recipes import filler
from ResNeSt.tensors import nv12
from ResNeSt.tensors.folder import TensorFile, check_tensors, read_tensor, tensor_files
from ResNeSt.tensors.format import LAYOUTS, dtype_of, read_index

Adapter = Callable[[np.ndarray], np.ndarray]


class Normalisation(NamedTuple):
    """Mean and standard deviation, a channel each, of RGB values scaled to 0..1."""

    mean: Sequence[float]
    std: Sequence[float]


def stack(files: Sequence[TensorFile], shape: Sequence[int], dtype: str) -> np.ndarray:
    """(N, *shape) of tensors; raises PipelineError where one is of another size."""
    return np.stack([read_tensor(file, shape, dtype) for file in files])


def adapter(shape: Sequence[int], dtype: str, takes: TensorSpec, normalisation: Normalisation | None) -> Adapter | None:
    """From tensors of `shape` (without the batch axis) and NumPy `dtype` to those that a model takes; None without one.

    Those of another dtype (tensors.format.LAYOUTS) become the levels that they were made of, and these the model's.
    """
    if (tuple(shape), dtype) == (takes.shape[1:], takes.dtype):
        return lambda images: images
    given, wanted = dtype_of(shape, dtype), dtype_of(takes.shape[1:], takes.dtype)
    if given is None or wanted is None or shape[1] != takes.shape[2] or normalisation is None:
        return None
    to_levels = {
        "float32": lambda images: _levels(images, normalisation),
        "uint8": lambda images: images,
        "yuv420sp": nv12.to_rgb,
    }[given]
    fill, element = filler(wanted, *normalisation), LAYOUTS[wanted].element

    def adapt(images: np.ndarray) -> np.ndarray:
        out = np.empty((len(images), *takes.shape[1:]), element)
        for pixels, tensor in zip(to_levels(images), out):
            fill(pixels, tensor)
        return out

    return adapt


def _levels(images: np.ndarray, normalisation: Normalisation) -> np.ndarray:
    """float32 (N, 3, H, W) -> uint8 (N, H, W, 3)."""
    levels = (images.transpose(0, 2, 3, 1) * normalisation.std + normalisation.mean) * 255
    return np.ascontiguousarray(np.rint(levels).clip(0, 255).astype(np.uint8))


class TensorFolder:
    """The tensors of stage 1 in `folder`, by image name; one without `tensors.json` holds what a model like it takes.

    Raises PipelineError where there are none, or not all.
    """

    def __init__(self, folder: PathLike, like: TensorSpec) -> None:
        self.folder = folder
        self.files = {stem(tensor.path): tensor for tensor in tensor_files(folder)}
        index = read_index(folder)
        self.shape = index.format.shape if index else like.shape[1:]
        self.dtype = index.format.element if index else like.dtype
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
            held = dtype_of(self.shape, self.dtype) or self.dtype
            raise PipelineError(
                f"{self.folder}: holds {held} tensors of shape {list(self.shape)}, {model} takes {takes.kind} "
                f"{list(takes.shape[1:])}; give tensors that resnest_preprocess.py made at its size, of any --dtype"
            )
        return adapt
