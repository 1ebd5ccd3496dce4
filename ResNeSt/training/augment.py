"""Random pictures out of one: crop, flip, and AutoAugment's policy for ImageNet.

Every function draws from the generator it is given, so that the same generator gives the same picture.
"""

from __future__ import annotations

import math
from random import Random
from typing import Callable, Optional

from PIL import Image, ImageEnhance, ImageOps

from ResNeSt.training.settings import Settings

Box = tuple[int, int, int, int]
Operation = tuple[str, float, Optional[int]]

ASPECT_RATIOS = (3 / 4, 4 / 3)
ATTEMPTS = 10
GREY = (128, 128, 128)  # what comes in from outside the picture
LEVELS = 9

# 25 pairs of (operation, probability, level of 0..9); Cubuk et al., arXiv 1805.09501, table 9.
POLICY: tuple[tuple[Operation, Operation], ...] = (
    (("Posterize", 0.4, 8), ("Rotate", 0.6, 9)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, None)),
    (("Equalize", 0.8, None), ("Equalize", 0.6, None)),
    (("Posterize", 0.6, 7), ("Posterize", 0.6, 6)),
    (("Equalize", 0.4, None), ("Solarize", 0.2, 4)),
    (("Equalize", 0.4, None), ("Rotate", 0.8, 8)),
    (("Solarize", 0.6, 3), ("Equalize", 0.6, None)),
    (("Posterize", 0.8, 5), ("Equalize", 1.0, None)),
    (("Rotate", 0.2, 3), ("Solarize", 0.6, 8)),
    (("Equalize", 0.6, None), ("Posterize", 0.4, 6)),
    (("Rotate", 0.8, 8), ("Color", 0.4, 0)),
    (("Rotate", 0.4, 9), ("Equalize", 0.6, None)),
    (("Equalize", 0.0, None), ("Equalize", 0.8, None)),
    (("Invert", 0.6, None), ("Equalize", 1.0, None)),
    (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Rotate", 0.8, 8), ("Color", 1.0, 2)),
    (("Color", 0.8, 8), ("Solarize", 0.8, 7)),
    (("Sharpness", 0.4, 7), ("Invert", 0.6, None)),
    (("ShearX", 0.6, 5), ("Equalize", 1.0, None)),
    (("Color", 0.4, 0), ("Equalize", 0.6, None)),
    (("Equalize", 0.4, None), ("Solarize", 0.2, 4)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, None)),
    (("Invert", 0.6, None), ("Equalize", 1.0, None)),
    (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Equalize", 0.8, None), ("Equalize", 0.6, None)),
)

# Each takes an RGB image and a strength from -1 to 1; the ranges are those of the paper's table 6.
OPERATIONS: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "AutoContrast": lambda image, _: ImageOps.autocontrast(image),
    "Color": lambda image, strength: ImageEnhance.Color(image).enhance(1 + 0.9 * strength),
    "Contrast": lambda image, strength: ImageEnhance.Contrast(image).enhance(1 + 0.9 * strength),
    "Equalize": lambda image, _: ImageOps.equalize(image),
    "Invert": lambda image, _: ImageOps.invert(image),
    "Posterize": lambda image, strength: ImageOps.posterize(image, 8 - round(4 * abs(strength))),
    "Rotate": lambda image, strength: image.rotate(30 * strength, fillcolor=GREY),
    "Sharpness": lambda image, strength: ImageEnhance.Sharpness(image).enhance(1 + 0.9 * strength),
    "ShearX": lambda image, strength: _shear(image, 0.3 * strength),
    "Solarize": lambda image, strength: ImageOps.solarize(image, math.ceil(255 - 255 * abs(strength))),
}


def _shear(image: Image.Image, slope: float) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, (1, slope, 0, 0, 1, 0), fillcolor=GREY)


def random_picture(image: Image.Image, size: int, settings: Settings, draw: Random) -> Image.Image:
    """An RGB image of (size, size) for training: random crop, flip and, where `augment` is auto, AutoAugment."""
    box = random_box(image.width, image.height, settings.min_area, draw)
    picture = image.resize((size, size), Image.Resampling.BICUBIC, box=box)
    if settings.flip and draw.random() < 0.5:
        picture = ImageOps.mirror(picture)
    return auto_augment(picture, draw) if settings.augment == "auto" else picture


def random_box(width: int, height: int, min_area: float, draw: Random) -> Box:
    """A part of the picture with an area from `min_area` of it to all, and a ratio of sides from 3/4 to 4/3.

    Source: Szegedy et al., arXiv 1409.4842, section 6. Where no draw fits, the largest centred part of such a ratio.
    """
    for _ in range(ATTEMPTS):
        area = width * height * draw.uniform(min_area, 1)
        ratio = math.exp(draw.uniform(*map(math.log, ASPECT_RATIOS)))
        wide, high = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= width and 0 < high <= height:
            left, top = draw.randint(0, width - wide), draw.randint(0, height - high)
            return left, top, left + wide, top + high
    least, most = ASPECT_RATIOS
    wide, high = min(width, max(1, round(height * most))), min(height, max(1, round(width / least)))
    left, top = (width - wide) // 2, (height - high) // 2
    return left, top, left + wide, top + high


def auto_augment(image: Image.Image, draw: Random) -> Image.Image:
    """Applies one pair of POLICY, each of the two with its probability, in a direction drawn anew."""
    for name, probability, level in draw.choice(POLICY):
        strength = draw.choice((-1, 1)) * (level or 0) / LEVELS
        if draw.random() < probability:
            image = OPERATIONS[name](image, strength)
    return image
