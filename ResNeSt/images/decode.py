"""From an image file to its tensor."""

from __future__ import annotations

import contextlib
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
    return _decode(path, exif)[0]


def _decode(path: PathLike, exif: bool) -> tuple[Image.Image, bool]:
    """The same, and whether the picture `carries_orientation`."""
    with _broken_if_it_fails(path), open_image(path) as image:
        image.load()
        turned = carries_orientation(image)
        upright = ImageOps.exif_transpose(image) if exif else image
        return as_rgb(upright, image), turned


def carries_orientation(image: Image.Image) -> bool:
    """Whether an opened picture lies turned or mirrored unless its EXIF part is heeded."""
    try:  # of a TIFF Pillow heeds it in any case
        return image.format != "TIFF" and image.getexif().get(ORIENTATION, 1) in range(2, 9)
    except Exception:  # damaged, which hinders nobody who leaves it alone
        return False


def orientation_notes(unturned: int, images: int, example: str = "") -> list[str]:
    """A line where some of the images were left as they lie against their EXIF orientation."""
    such_as = f", such as {example}" if example else ""
    told = f"{unturned} of {images} images carry an EXIF orientation{such_as}; they were left as they lie, as the "
    return [f"{told}recipes were measured; --exif turns them as it says"] if unturned else []


def tensor_maker(tensor_format: TensorFormat) -> Callable[[PathLike, np.ndarray], bool]:
    """A function that fills an array of `tensor_format`'s shape and dtype with the tensor of an image file.

    It returns whether the picture was left as it lies against its EXIF orientation. It raises BrokenImageError for a
    file that no tensor can be made of; the array is then as it was.
    """
    crop, size = RECIPES[tensor_format.recipe], tensor_format.size
    fill = filler(tensor_format.dtype, tensor_format.mean, tensor_format.std)
    library = native.library()
    sooner = library.maker(tensor_format) if library else None

    def make(path: PathLike, out: np.ndarray) -> bool:
        turned: list[bool] = []  # told of files with metadata alone, which are few

        def as_it_lies(path: PathLike) -> bool:
            is_jpeg, turn = _look(path)
            turned.append(turn)
            return is_jpeg and not (turn and tensor_format.exif)

        if not (sooner and sooner(path, as_it_lies, out)):
            image, turn = _decode(path, tensor_format.exif)
            turned.append(turn)
            with _broken_if_it_fails(path):
                pixels = np.asarray(crop(image, size))
            fill(pixels, out)
        return any(turned) and not tensor_format.exif

    return make


def _look(path: PathLike) -> tuple[bool, bool]:
    """Whether Pillow opens a file as JPEG, and whether it `carries_orientation`."""
    try:
        with open_image(path) as image:
            return image.format == "JPEG", carries_orientation(image)
    except Exception:  # damaged; who decodes it says so
        return False, False


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
