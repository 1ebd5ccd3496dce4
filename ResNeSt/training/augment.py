"""Random pictures out of one: crop, flip, AutoAugment's policy for ImageNet, RandAugment, colour jitter, PCA lighting.

Every function draws from the generator it is given, so that the same generator gives the same picture in any thread and
in any process; torchvision's and timm's transforms draw from one for all threads. Pillow does the work, as it does
there.
"""

from __future__ import annotations

import math
from random import Random
from typing import Callable, Optional

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from ResNeSt.training.settings import Settings

Box = tuple[int, int, int, int]
Operation = tuple[str, float, Optional[int]]
Change = Callable[[Image.Image, Random], Image.Image]

ASPECT_RATIOS = (3 / 4, 4 / 3)
ATTEMPTS = 10
GREY = (128, 128, 128)  # what comes in from outside the picture
LEVELS = 9
FARTHEST = 150 / 331  # of a side, that a picture is moved by

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

# How many of RANDOM are applied in turn, and how strongly; RandAugment(2, 12) of the official PyTorch trainer.
PICKED, STRENGTH = 2, 12 / 30
# Cubuk et al., arXiv 1909.13719, figure 2.
RANDOM = (
    *("AutoContrast", "Brightness", "Color", "Contrast", "Equalize", "Identity", "Posterize", "Rotate", "Sharpness"),
    *("ShearX", "ShearY", "Solarize", "TranslateX", "TranslateY"),
)
# Directions and lengths in which ImageNet's pixels vary, R, G and B from 0 to 1 (Krizhevsky et al., NIPS 2012); the
# numbers are those of the official trainers.
DIRECTIONS = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
LENGTHS = np.array([0.2175, 0.0188, 0.0045])

# Each takes an RGB image and a strength from -1 to 1; the ranges are those of AutoAugment's table 6.
OPERATIONS: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "AutoContrast": lambda image, _: ImageOps.autocontrast(image),
    "Brightness": lambda image, strength: ImageEnhance.Brightness(image).enhance(1 + 0.9 * strength),
    "Color": lambda image, strength: ImageEnhance.Color(image).enhance(1 + 0.9 * strength),
    "Contrast": lambda image, strength: ImageEnhance.Contrast(image).enhance(1 + 0.9 * strength),
    "Equalize": lambda image, _: ImageOps.equalize(image),
    "Identity": lambda image, _: image,
    "Invert": lambda image, _: ImageOps.invert(image),
    "Posterize": lambda image, strength: ImageOps.posterize(image, 8 - round(4 * abs(strength))),
    "Rotate": lambda image, strength: image.rotate(30 * strength, fillcolor=GREY),
    "Sharpness": lambda image, strength: ImageEnhance.Sharpness(image).enhance(1 + 0.9 * strength),
    "ShearX": lambda image, strength: _moved(image, (1, 0.3 * strength, 0, 0, 1, 0)),
    "ShearY": lambda image, strength: _moved(image, (1, 0, 0, 0.3 * strength, 1, 0)),
    "Solarize": lambda image, strength: ImageOps.solarize(image, math.ceil(255 - 255 * abs(strength))),
    "TranslateX": lambda image, strength: _moved(image, (1, 0, -int(FARTHEST * image.width * strength), 0, 1, 0)),
    "TranslateY": lambda image, strength: _moved(image, (1, 0, 0, 0, 1, -int(FARTHEST * image.height * strength))),
}


def _moved(image: Image.Image, affine: tuple[float, ...]) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, affine, fillcolor=GREY)


def random_picture(image: Image.Image, size: int, settings: Settings, draw: Random) -> Image.Image:
    """An RGB image of (size, size) for training: random crop and flip, and the changes that `settings` ask for."""
    change = CHANGES[settings.augment]
    if settings.augment_whole:
        image = change(image, draw)
    box = random_box(image.width, image.height, settings.min_area, draw)
    picture = image.resize((size, size), Image.Resampling.BICUBIC, box=box)
    if settings.flip and draw.random() < 0.5:
        picture = ImageOps.mirror(picture)
    if not settings.augment_whole:
        picture = change(picture, draw)
    return jittered(picture, settings.jitter, draw) if settings.jitter else picture


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


def rand_augment(image: Image.Image, draw: Random) -> Image.Image:
    """Applies some of RANDOM, each in a direction drawn anew."""
    for name in draw.choices(RANDOM, k=PICKED):
        image = OPERATIONS[name](image, draw.choice((-1, 1)) * STRENGTH)
    return image


# By the `augment` of Settings.
CHANGES: dict[str, Change] = {"auto": auto_augment, "rand": rand_augment, "crop": lambda image, _: image}


def jittered(image: Image.Image, most: float, draw: Random) -> Image.Image:
    """Brightness, contrast and saturation, in a random order, each times 1 - most to 1 + most."""
    for enhance in draw.sample((ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color), 3):
        image = enhance(image).enhance(draw.uniform(1 - most, 1 + most))
    return image


def lighting(deviation: float, draw: Random) -> np.ndarray:
    """What is added to all R, G and B, pixels being from 0 to 1: float64 (3,), noise along ImageNet's directions."""
    noise = np.array([draw.gauss(0, deviation) for _ in LENGTHS])
    shift: np.ndarray = DIRECTIONS @ (LENGTHS * noise)
    return shift
