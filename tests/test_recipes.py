"""Recipes at every size of a published network: torchvision's crops, and the official one's arithmetic in fractions."""

from __future__ import annotations

from fractions import Fraction
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from ResNeSt.images.recipes import RECIPES, normalisation_table, normalise
from tests.conftest import picture

SIZES = [96, 224, 256, 320, 416]
# Landscape, portrait, square, smaller than the crop, tall and wide.
SHAPES = [(500, 375), (375, 501), (333, 333), (61, 47), (120, 500), (640, 150)]


def crop(recipe: str, image: Image.Image, size: int) -> np.ndarray:
    made = RECIPES[recipe](image, size)
    assert made.size == (size, size)
    return np.asarray(made)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("recipe", ["resize-bicubic", "resize-bilinear", "squash-bilinear"])
def test_resized_crops_are_torchvision_s_at_every_size(recipe: str, size: int, torchvision: ModuleType) -> None:
    from torchvision import transforms

    how = transforms.InterpolationMode.BICUBIC if recipe.endswith("bicubic") else transforms.InterpolationMode.BILINEAR
    side = size * 256 // 224
    reference = transforms.Compose(
        [
            transforms.Resize((side, side) if recipe.startswith("squash") else side, how),
            transforms.CenterCrop(size),
        ]
    )
    for shape in SHAPES:
        image = picture(*shape)
        assert np.array_equal(crop(recipe, image, size), np.asarray(reference(image))), shape


@pytest.mark.parametrize("size", SIZES)
def test_the_official_crop_is_the_centre_of_its_published_share(size: int) -> None:
    for width, height in SHAPES:
        image = picture(width, height)
        side = Fraction(size, size + 32) * min(width, height)
        left, top = round((width - side) / 2), round((height - side) / 2)  # halves to the even number, as Python does
        box = (left, top, round(left + side), round(top + side))
        expected = image.crop(box).resize((size, size), Image.Resampling.BICUBIC)
        assert np.array_equal(crop("ecentercrop-bicubic", image, size), np.asarray(expected)), (width, height)


@pytest.mark.parametrize("recipe", ["resize-bicubic", "resize-bilinear"])
def test_sides_of_100_to_1_are_the_longest_that_are_resized_before_the_crop(recipe: str) -> None:
    for shape in ((200, 2), (2, 200)):
        crop(recipe, picture(*shape), 96)
        with pytest.raises(ValueError, match="more than 100 times as long as wide"):
            crop(recipe, picture(shape[0] + shape[0] // 200, shape[1] + shape[1] // 200), 96)


def test_normalised_levels_are_torchvision_s_bits(torchvision: ModuleType) -> None:
    from torchvision import transforms

    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    levels = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)[None]  # (1, 256, 3)
    expected = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])(levels).numpy()
    table = normalisation_table(mean, std)
    assert table.dtype == np.float32
    assert np.array_equal(table, expected[:, 0])
    out = np.empty((3, 1, 256), np.float32)
    normalise(levels, table, out)
    assert np.array_equal(out, expected)


def test_each_channel_is_normalised_by_its_own_figures() -> None:
    table = normalisation_table((0.0, 0.5, 1.0), (1.0, 0.5, 2.0))
    assert table[:, 0].tolist() == [0.0, -1.0, -0.5]
    assert table[:, 255].tolist() == [1.0, 1.0, 0.0]
