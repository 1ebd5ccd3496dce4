"""Stage 1: a folder of images becomes a folder of tensors, one file per image.

Threads do the work: Pillow's decoder and resizer and NumPy's look-ups release the interpreter lock, so they scale over
cores without the start-up time and the memory of processes.
"""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from pathlib import Path
from typing import Callable, Dict, Iterable, Iterator, List, Optional

import numpy as np
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from ResNeSt.errors import PipelineError
from ResNeSt.files import PathLike, natural_key, sole_writer, stem, whole
from ResNeSt.parallel import cores, in_parallel
from ResNeSt.recipes import RECIPES, normalisation_table, normalise
from ResNeSt.tensors import TensorFormat, TensorSet, list_tensors, read_index, write_index

IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")


class BrokenImageError(PipelineError):
    """An image file that Pillow cannot decode."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a run did: tensors written, tensors kept from an earlier run, why images failed, seconds."""

    written: int
    kept: int
    broken: Dict[str, str]
    seconds: float


def find_images(source: PathLike) -> List[str]:
    """Paths of the image files of a flat folder, or of one with a sub-folder per class, in natural order.

    Raises PipelineError where there is none, or where two would get the same name up to the first dot, since ais_bench
    would let one overwrite the other's result.
    """
    if not os.path.isdir(source):
        raise PipelineError(f"{source}: no such folder; the first argument is the folder that holds the images")
    found = [entry.path for entry in _entries(source) if _is_image(entry.name)]
    if not found:
        raise PipelineError(f"{source}: no image files ({' '.join(IMAGE_SUFFIXES)}) here or one folder below")
    _refuse_same_names(found)
    return sorted(found, key=natural_key)


def _is_image(name: str) -> bool:
    """By its suffix; hidden files, such as the ._ files of macOS archives, are not."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")


def _entries(source: PathLike) -> Iterator[os.DirEntry[str]]:
    for entry in os.scandir(source):
        if entry.is_dir():
            yield from os.scandir(entry.path)
        else:
            yield entry


def _refuse_same_names(images: Iterable[str]) -> None:
    seen: Dict[str, str] = {}
    for image in images:
        other = seen.setdefault(stem(image), image)
        if other is not image:
            raise PipelineError(
                f"{image} and {other} would both become {stem(image)}.bin (ais_bench cuts names at the first dot); "
                "rename one"
            )


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


def tensor_maker(made: TensorFormat) -> Callable[[PathLike, np.ndarray], None]:
    """A function that fills an array of `made`'s shape and dtype with the tensor of an image file."""
    crop, size = RECIPES[made.recipe], made.size
    table = normalisation_table(made.mean, made.std)

    def make(path: PathLike, out: np.ndarray) -> None:
        pixels = np.asarray(crop(decode(path), size))
        if made.dtype == "uint8":
            out[:] = pixels
        else:
            normalise(pixels, table, out)

    return make


def preprocess(source: PathLike, target: PathLike, made: TensorFormat, workers: Optional[int] = None) -> Outcome:
    """Writes `<target>/<name>.bin` for every image of `source`, and `tensors.json`.

    Tensors that an interrupted run left are kept if they are whole and not older than their image. Raises PipelineError
    where `target` holds anything else.
    """
    images = find_images(source)
    target = Path(target)
    target.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    with sole_writer(target):
        _refuse_foreign_tensors(target, images, made)
        write_index(target, TensorSet(made, images=len(images), count=0, complete=False))
        missing = [image for image in images if not _is_current(image, target, made.nbytes)]
        kept = len(images) - len(missing)
        broken = _write_all(missing, target, made, workers or cores())
        count = len(images) - len(broken)
        write_index(target, TensorSet(made, len(images), count, complete=True, broken=tuple(broken)))
    return Outcome(len(missing) - len(broken), kept, broken, time.perf_counter() - started)


def tensor_path(target: Path, image: PathLike) -> Path:
    """Where the tensor of `image` goes."""
    return target / f"{stem(image)}.bin"


def _refuse_foreign_tensors(target: Path, images: List[str], made: TensorFormat) -> None:
    there = list_tensors(target)
    index = read_index(target)
    if there and (index is None or index.format != made):
        held = index.format if index else "tensors of another program"
        raise PipelineError(f"{target}: holds {held}, this run makes {made}; choose another folder or delete it")
    expected = {f"{stem(image)}.bin" for image in images}
    foreign = [name for name in there if name not in expected]
    if foreign:
        raise PipelineError(
            f"{target}: holds {len(foreign)} tensors without an image, such as {foreign[0]}; "
            "choose another folder or delete them"
        )


def _is_current(image: PathLike, target: Path, nbytes: int) -> bool:
    try:
        tensor = tensor_path(target, image).stat()
    except FileNotFoundError:
        return False
    return tensor.st_size == nbytes and tensor.st_mtime_ns >= os.stat(image).st_mtime_ns


def _write_all(images: List[str], target: Path, made: TensorFormat, workers: int) -> Dict[str, str]:
    make = tensor_maker(made)
    own = threading.local()  # a tensor per thread, since fresh memory costs more than filling it

    def work(image: str) -> Optional[str]:
        path = tensor_path(target, image)
        if not hasattr(own, "tensor"):
            own.tensor = np.empty(made.shape, made.dtype)
        try:
            make(image, own.tensor)
        except BrokenImageError as error:
            path.unlink(missing_ok=True)
            return str(error)
        with whole(path) as temporary, open(temporary, "wb") as file:
            file.write(own.tensor.data)
        return None

    results = in_parallel(work, images, workers)
    # disable=None: a bar on a terminal, nothing in a log file.
    bar = tqdm(results, total=len(images), unit="img", desc="preprocess", disable=None)
    return {os.path.basename(image): reason for image, reason in bar if reason is not None}
