"""Recipes: ways to turn an image into the uint8 crop that a network was measured with, and the crop into a tensor.

Every recipe takes a Pillow image in mode RGB and a size, and returns the (size, size) RGB crop. The rounding is that of
the sources named, since accuracy is compared image by image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable

import numpy as np
from PIL import Image

from ResNeSt.tensors import nv12

Crop = Callable[[Image.Image, int], Image.Image]
Fill = Callable[[np.ndarray, np.ndarray], None]

# Side of the resized image for a crop of 224: 256. Other crops keep the ratio.
CROP_RATIO = 224 / 256

# Of a picture's long side to its short one, for the recipes that resize before they crop: they make such a picture
# 100 times as large as others, and a longer one as much larger.
LONGEST = 100


def ecentercrop_bicubic(image: Image.Image, size: int) -> Image.Image:
    """The official recipe: the centre square of size/(size+32) of the short side, resized once.

    Source: ECenterCrop of the official ResNeSt repository. The crop box is a float square at rounded offsets, which
    Pillow rounds again; `resize(box=...)` would not be bit-identical.
    """
    width, height = image.size
    side = size / (size + 32) * min(width, height)
    top = round((height - side) / 2.0)
    left = round((width - side) / 2.0)
    # Pillow crops at float bounds and rounds them itself, though its annotations speak of integers.
    box: tuple[int, int, int, int] = (left, top, left + side, top + side)  # type: ignore[assignment]
    return image.crop(box).resize((size, size), Image.Resampling.BICUBIC)


def _resize_short_side(image: Image.Image, size: int, filter: Image.Resampling) -> Image.Image:
    """torchvision's Resize(short side) and CenterCrop(size); raises ValueError for a picture longer than LONGEST."""
    width, height = image.size
    if max(image.size) > LONGEST * min(image.size):
        raise ValueError(f"{width} x {height} pixels, more than {LONGEST} times as long as wide; crop it")
    short = int(size / CROP_RATIO)
    if width <= height:
        resized = image.resize((short, int(short * height / width)), filter)
    else:
        resized = image.resize((int(short * width / height), short), filter)
    return _center_crop(resized, size)


def _center_crop(image: Image.Image, size: int) -> Image.Image:
    left = round((image.width - size) / 2.0)
    top = round((image.height - size) / 2.0)
    return image.crop((left, top, left + size, top + size))


def resize_bicubic(image: Image.Image, size: int) -> Image.Image:
    """Short side to 256/224 of the crop, bicubic, then the centre (Open Model Zoo)."""
    return _resize_short_side(image, size, Image.Resampling.BICUBIC)


def resize_bilinear(image: Image.Image, size: int) -> Image.Image:
    """Short side to 256/224 of the crop, bilinear, then the centre (timm's resnest50d)."""
    return _resize_short_side(image, size, Image.Resampling.BILINEAR)


def squash_bilinear(image: Image.Image, size: int) -> Image.Image:
    """Both sides to 256/224 of the crop, whatever the aspect ratio, bilinear, then the centre (the Ascend sample)."""
    side = int(size / CROP_RATIO)
    return _center_crop(image.resize((side, side), Image.Resampling.BILINEAR), size)


RECIPES: dict[str, Crop] = {
    "ecentercrop-bicubic": ecentercrop_bicubic,
    "resize-bicubic": resize_bicubic,
    "resize-bilinear": resize_bilinear,
    "squash-bilinear": squash_bilinear,
}


def normalisation_table(mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """float32 (3, 256): the normalised value of every uint8 level of every channel.

    Computed in float32 in torchvision's order, (level / 255 - mean) / std, so that looking values up gives the same
    bits as ToTensor and Normalize.
    """
    levels = np.arange(256, dtype=np.float32) / np.float32(255)
    scale, shift = (np.array(values, dtype=np.float32)[:, None] for values in (std, mean))
    return np.asarray((levels[None, :] - shift) / scale, dtype=np.float32)


def normalise(crop: np.ndarray, table: np.ndarray, out: np.ndarray) -> None:
    """uint8 (H, W, 3) -> float32 (3, H, W) in `out`, by `table` of `normalisation_table`."""
    for channel in range(3):
        np.take(table[channel], crop[:, :, channel], out=out[channel], mode="clip")


def filler(dtype: str, mean: Sequence[float], std: Sequence[float]) -> Fill:
    """A function of uint8 pixels (H, W, 3) that fills an array with their tensor of `dtype` (tensors.format.LAYOUTS).

    `mean` and `std` are for float32 alone.
    """
    if dtype == "float32":
        table = normalisation_table(mean, std)
        return lambda pixels, out: normalise(pixels, table, out)
    return {"uint8": _keep, "yuv420sp": nv12.from_rgb}[dtype]


def _keep(pixels: np.ndarray, out: np.ndarray) -> None:
    out[:] = pixels
