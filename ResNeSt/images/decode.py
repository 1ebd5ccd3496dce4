"""From an image file to its tensor."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Iterator
from typing import Callable

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import PathLike
from ResNeSt.images import native
from ResNeSt.images.archives import open_picture
from ResNeSt.images.listing import picture_formats
from ResNeSt.images.recipes import RECIPES, filler
from ResNeSt.tensors.format import TensorFormat

ORIENTATION = 0x0112  # tag of EXIF; 1 is upright
BITS_PER_SAMPLE, PHOTOMETRIC = 258, 262  # tags of TIFF
# Formats whose modes I and I;16 hold levels from 0 to 65535, whatever the file's own maximum.
SIXTEEN_BITS = {"JPEG2000", "PNG", "PPM"}

# Pillow decodes pictures of 89 to 179 million pixels, with a warning; it refuses larger ones by an error.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class BrokenImageError(PipelineError):
    """An image file that no tensor can be made of."""


def decode(path: PathLike, exif: bool = False) -> Image.Image:
    """The first picture of a file as RGB; raises BrokenImageError.

    `exif` turns it as its EXIF orientation says; the official recipe leaves that alone. Transparency is dropped, as
    Pillow does. Of 16-bit grey levels the high byte is kept, as Pillow does with 16-bit RGB; levels whose range the
    file does not tell are refused.
    """
    with _broken_if_it_fails(path), open_image(path) as image:
        image.load()
        upright = ImageOps.exif_transpose(image) if exif else image
        return as_rgb(upright, image)


def carries_orientation(path: PathLike) -> bool:
    """Whether `decode` leaves a picture turned or mirrored unless told to heed its EXIF part."""
    try:
        with open_image(path) as image:  # of a TIFF Pillow heeds it in any case
            return image.format != "TIFF" and image.getexif().get(ORIENTATION, 1) in range(2, 9)
    except Exception:  # damaged; who decodes it says so
        return False


def tensor_maker(tensor_format: TensorFormat) -> Callable[[PathLike, np.ndarray], None]:
    """A function that fills an array of `tensor_format`'s shape and dtype with the tensor of an image file.

    It raises BrokenImageError for a file that no tensor can be made of; the array is then as it was.
    """
    crop, size = RECIPES[tensor_format.recipe], tensor_format.size
    fill = filler(tensor_format.dtype, tensor_format.mean, tensor_format.std)
    library = native.library()
    sooner = library.maker(tensor_format) if library else None
    is_upright = functools.partial(_is_upright_jpeg, exif=tensor_format.exif)

    def make(path: PathLike, out: np.ndarray) -> None:
        if sooner and sooner(path, is_upright, out):
            return
        image = decode(path, tensor_format.exif)
        with _broken_if_it_fails(path):
            pixels = np.asarray(crop(image, size))
        fill(pixels, out)

    return make


def _is_upright_jpeg(path: PathLike, exif: bool) -> bool:
    """Whether Pillow opens a file as JPEG and, with `exif`, does not turn it."""
    try:
        with open_image(path) as image:
            return image.format == "JPEG" and not (exif and image.getexif().get(ORIENTATION, 1) in range(2, 9))
    except Exception:  # as in carries_orientation
        return False


@contextlib.contextmanager
def open_image(path: PathLike) -> Iterator[Image.Image]:
    """A plain file, or a member of an archive, of one of the formats that count, not yet decoded."""
    with open_picture(path) as file, Image.open(file, formats=picture_formats()) as image:
        yield image


@contextlib.contextmanager
def _broken_if_it_fails(path: PathLike) -> Iterator[None]:
    try:
        yield
    except PipelineError as error:
        raise BrokenImageError(str(error)) from None
    except UnidentifiedImageError:
        raise BrokenImageError(f"{path}: not an image in a format that Pillow knows") from None
    except Exception as error:  # Pillow's plugins raise nearly anything on damaged files, and memory may run out
        raise BrokenImageError(f"{path}: cannot be decoded ({type(error).__name__}: {error})") from None


def as_rgb(image: Image.Image, file: Image.Image) -> Image.Image:
    """`image`, of the opened `file`, in mode RGB; raises ValueError where the range of its levels is unknown."""
    if image.mode == "RGB":
        return image
    if image.mode in {"I", "F"} or image.mode.startswith("I;16"):
        bits, zero_is_white = _grey_levels(image.mode, file)
        levels = (np.asarray(image) >> (bits - 8)).astype(np.uint8)
        return Image.fromarray(255 - levels if zero_is_white else levels).convert("RGB")
    return image.convert("RGB")


def _grey_levels(mode: str, file: Image.Image) -> tuple[int, bool]:
    """Bits of the grey levels, 8 at least, of a file that Pillow reads in `mode`, and whether their 0 is white."""
    if mode != "F" and file.format in SIXTEEN_BITS:
        return 16, False
    if mode not in {"I", "F"} and isinstance(file, TiffImageFile):
        return file.tag_v2[BITS_PER_SAMPLE][0], file.tag_v2.get(PHOTOMETRIC) == 0
    raise ValueError(f"mode {mode}: nothing says which level is white; save it with 8 bits a channel")
