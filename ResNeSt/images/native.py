"""Crops of JPEG files by native/, where `bash native/build.sh` has built it: the bits that Pillow gives, sooner.

It takes baseline and progressive YCbCr and grey files without a flaw. Every other file is Pillow's, and so are all
where the library is not there, is of other sources than those of native/, or has given another pixel than this Pillow
in a trial on first use. `RESNEST_NATIVE=0` in the environment switches it off.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import numpy as np
import PIL
from PIL import Image

from ResNeSt.common.arguments import variable
from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import PathLike
from ResNeSt.images.archives import open_picture
from ResNeSt.images.recipes import RECIPES, filler, normalisation_table
from ResNeSt.tensors.format import TensorFormat

SOURCES = Path(__file__).resolve().parent.parent.parent / "native"
SWITCH = "RESNEST_NATIVE"
PILLOW = f"Pillow {PIL.__version__}"

# Of crops.h: what became of a file, and the numbers of the recipes.
DONE, LEFT, ASK = range(3)
NUMBERS = {"ecentercrop-bicubic": 0, "resize-bicubic": 1, "resize-bilinear": 2, "squash-bilinear": 3}

MOST_BYTES = 1 << 26  # of a file that is read at once
JPEG = b"\xff\xd8\xff"

# Fills an array with the tensor of an image file, or says that Pillow must. The second argument tells whether Pillow
# takes the file, by its metadata, for a JPEG that stays as it lies; it is asked where they leave a doubt.
Maker = Callable[[PathLike, Callable[[PathLike], bool], np.ndarray], bool]


class _Order(ctypes.Structure):
    """crops_order of crops.h."""

    _fields_ = [
        ("recipe", ctypes.c_int),
        ("size", ctypes.c_int),
        ("tall_first", ctypes.c_int),
        ("looked", ctypes.c_int),
        ("any_processor", ctypes.c_int),
        ("table", ctypes.c_void_p),
    ]


class Library:
    """The built library at a path; raises OSError or AttributeError where it is not one."""

    def __init__(self, path: PathLike) -> None:
        self.tall_first, self.any_processor = _sums_rows_of_tall_pictures_first(), False
        self._library = ctypes.CDLL(str(path))
        self._make = self._library.crops_make
        self._make.argtypes = [ctypes.POINTER(_Order), ctypes.c_char_p, ctypes.c_size_t, ctypes.c_void_p]
        for name in ("crops_library", "crops_instructions"):
            getattr(self._library, name).restype = ctypes.c_char_p
        self.title = f"native ({self._library.crops_library().decode()}, {self._library.crops_instructions().decode()})"

    def crop(
        self, content: bytes, recipe: str, size: int, table: np.ndarray | None, looked: bool, out: np.ndarray
    ) -> int:
        """DONE, LEFT or ASK (crops.h) for the content of a file; the first has filled `out`, which is contiguous."""
        pointer = None if table is None else table.ctypes.data
        order = _Order(NUMBERS[recipe], size, self.tall_first, looked, self.any_processor, pointer)
        return int(self._make(ctypes.byref(order), content, len(content), out.ctypes.data))

    def maker(self, tensor_format: TensorFormat) -> Maker:
        """How to make tensors of a format; safe to call from several threads at once, which it lets run."""
        recipe, size, dtype = tensor_format.recipe, tensor_format.size, tensor_format.dtype
        table = normalisation_table(tensor_format.mean, tensor_format.std) if dtype == "float32" else None
        # What is neither the crop nor its table's values is made of the crop as for Pillow.
        fill = None if dtype in {"float32", "uint8"} else filler(dtype, tensor_format.mean, tensor_format.std)

        def make(path: PathLike, as_it_lies: Callable[[PathLike], bool], out: np.ndarray) -> bool:
            # The library writes where it is told to; what NumPy would refuse, it refuses.
            fits = out.shape == tensor_format.shape and out.dtype == tensor_format.element and out.flags.carray
            content = _jpeg(path) if fits else None
            if content is None:
                return False
            crop = np.empty((size, size, 3), np.uint8) if fill else out
            made = self.crop(content, recipe, size, table, False, crop)
            if made == ASK and as_it_lies(path):
                made = self.crop(content, recipe, size, table, True, crop)
            if made == DONE and fill:
                fill(crop, out)
            return made == DONE

        return make


def library() -> Library | None:
    """The library in use, or none; raises ArgumentError for a RESNEST_NATIVE that is neither 0 nor 1."""
    return _found()[0] if variable(SWITCH, 1, 0, 1) else None


def decoder() -> str:
    """Who decodes images here, for people: the library or, in brackets, why not, and Pillow."""
    if not variable(SWITCH, 1, 0, 1):
        return f"{PILLOW} ({SWITCH}=0)"
    found, reason = _found()
    return f"{found.title}, else {PILLOW}" if found else f"{PILLOW} ({reason})"


@functools.lru_cache(maxsize=1)
def _found() -> tuple[Library | None, str]:
    """The library that was built of the sources as they are, once it has passed its trial; else why there is none."""
    if not (SOURCES / "CMakeLists.txt").is_file():
        return None, "installed without native/"
    try:
        path = SOURCES / "build" / f"crops-{digest()}.so"
        if not path.is_file():
            return None, "native/ is not built"
        if not _is_whole(path):
            return None, f"{path} is damaged; bash native/build.sh builds it anew"
        found = Library(path)
        return (found, "") if agrees(found) else (None, "native/ gives other pixels here")
    except Exception as error:  # of another machine, without its libjpeg, or Pillow has no JPEG
        return None, f"native/ does not run here: {error}; bash native/build.sh builds it anew"


def digest() -> str:
    """Of the sources, as native/build.sh has it."""
    kinds = [sorted(SOURCES.glob(pattern)) for pattern in ("[!.]*.cpp", "[!.]*.h", "[!.]*.inc", "CMakeLists.txt")]
    return _short_digest(b"".join(path.read_bytes() for paths in kinds for path in paths))


def _is_whole(path: Path) -> bool:
    """Whether a library ends in the digest of the rest, as native/build.sh leaves it; to load half of one kills."""
    body, _, seal = path.read_bytes().rstrip(b"\n").rpartition(b"\n")
    return _short_digest(body) == seal.decode("ascii", "replace")


def _short_digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _jpeg(path: PathLike) -> bytes | None:
    """The content of a file that begins as a JPEG; none of any other, which Pillow then says."""
    with contextlib.suppress(OSError, PipelineError), open_picture(path) as file:
        if file.read(len(JPEG)) == JPEG and file.seek(0, os.SEEK_END) <= MOST_BYTES:
            file.seek(0)
            return file.read()
    return None


def agrees(found: Library) -> bool:
    """Whether every recipe gives Pillow's pixels on a few pictures: versions of libjpeg-turbo could differ."""
    size = 24
    for content in _trials():
        with Image.open(io.BytesIO(content)) as image:
            picture = image.convert("RGB")
        for recipe, crop in RECIPES.items():
            made = np.zeros((size, size, 3), np.uint8)
            if found.crop(content, recipe, size, None, False, made) != DONE:
                return False
            if not np.array_equal(made, np.asarray(crop(picture, size))):
                return False
    return True


def _trials() -> Iterator[bytes]:
    """JPEG files, small and large enough to be cropped, of the kinds that Pillow writes."""
    for number, (width, height) in enumerate([(131, 67), (58, 139), (20, 23)]):
        for progressive in (False, True):
            levels = np.arange(width * height * 3, dtype=np.uint32) * np.uint32(2654435761)
            noise = (levels >> np.uint32(26)).astype(np.uint8).reshape(height, width, 3)
            slope = (np.arange(width) * 190 // width).astype(np.uint8)[None, :, None]
            image = Image.fromarray(noise + slope)
            file = io.BytesIO()
            image.save(file, "JPEG", quality=90, subsampling=2 - number, progressive=progressive)
            yield file.getvalue()
    for mode in ("L", "CMYK"):
        file = io.BytesIO()
        image.convert(mode).save(file, "JPEG")
        yield file.getvalue()


def _sums_rows_of_tall_pictures_first() -> bool:
    """Whether this Pillow (13.0 and newer) resizes a tall picture down before it resizes it across."""
    levels = np.arange(40 * 10, dtype=np.uint32) * np.uint32(2654435761)
    tall = Image.fromarray((levels >> np.uint32(24)).astype(np.uint8).reshape(40, 10))
    by = Image.Resampling.BILINEAR
    down_first = tall.resize((10, 8), by).resize((8, 8), by)
    return bool(np.array_equal(np.asarray(tall.resize((8, 8), by)), np.asarray(down_first)))
