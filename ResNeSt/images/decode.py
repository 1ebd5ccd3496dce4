"""From an image file to its tensor."""

from __future__ import annotations

from typing import Callable

import numpy as np
from PIL import Image, UnidentifiedImageError

from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import PathLike
from ResNeSt.images.recipes import RECIPES, normalisation_table, normalise
from ResNeSt.tensors.format import TensorFormat


class BrokenImageError(PipelineError):
    """An image file that Pillow cannot decode."""


def decode(path: PathLike) -> Image.Image:
    """The image as RGB, EXIF orientation left alone, as the official recipe reads it; raises BrokenImageError."""
    try:
        with Image.open(path) as image:
            image.load()
            return image if image.mode == "RGB" else image.convert("RGB")
    except UnidentifiedImageError:
        raise BrokenImageError(f"{path}: not an image in a format that Pillow knows") from None
    except Exception as error:  # Pillow's plugins raise nearly anything on damaged files
        raise BrokenImageError(f"{path}: cannot be decoded ({type(error).__name__}: {error})") from None


def tensor_maker(tensor_format: TensorFormat) -> Callable[[PathLike, np.ndarray], None]:
    """A function that fills an array of `tensor_format`'s shape and dtype with the tensor of an image file."""
    crop, size = RECIPES[tensor_format.recipe], tensor_format.size
    table = normalisation_table(tensor_format.mean, tensor_format.std)

    def make(path: PathLike, out: np.ndarray) -> None:
        pixels = np.asarray(crop(decode(path), size))
        if tensor_format.dtype == "uint8":
            out[:] = pixels
        else:
            normalise(pixels, table, out)

    return make
