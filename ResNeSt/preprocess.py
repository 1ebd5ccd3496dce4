"""Stage 1: a folder of images becomes a folder of tensors, one file per image or packed into few.

Threads do the work: Pillow's decoder and resizer and NumPy's look-ups release the interpreter lock, so they scale over
cores without the start-up time and the memory of processes.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import threading
import time
from pathlib import Path
from typing import Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Tuple, TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from ResNeSt.errors import PipelineError
from ResNeSt.files import PathLike, natural_key, sole_writer, stem, whole
from ResNeSt.parallel import cores, in_parallel
from ResNeSt.recipes import RECIPES, normalisation_table, normalise
from ResNeSt.shards import SHARD_IMAGES, Shard, list_shards, read_shard, shard_path, write_shard
from ResNeSt.tensors import TensorFormat, TensorSet, list_tensors, read_index, tensor_name, write_index

IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")
Result = TypeVar("Result")


class BrokenImageError(PipelineError):
    """An image file that Pillow cannot decode."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a run did: tensors written, tensors kept from an earlier run, why images failed, seconds."""

    written: int
    kept: int
    broken: Dict[str, str]
    seconds: float


class Row(NamedTuple):
    """An image on its way into a shard, and the array that takes its tensor."""

    shard: Path
    image: str
    tensor: np.ndarray


def find_images(source: PathLike) -> List[str]:
    """Paths of the image files of a flat folder, or of one with a sub-folder per class, in natural order.

    Raises PipelineError where there is none, or where two would get the same name up to the first dot, since ais_bench
    would let one overwrite the other's result.
    """
    found = list_images(source)
    _refuse_same_names(found)
    return found


def list_images(source: PathLike) -> List[str]:
    """The same, whatever their names are up to the first dot."""
    if not os.path.isdir(source):
        raise PipelineError(f"{source}: no such folder; expected the folder that holds the images")
    found = [entry.path for entry in _entries(source) if _is_image(entry.name)]
    if not found:
        raise PipelineError(f"{source}: no image files ({' '.join(IMAGE_SUFFIXES)}) here or one folder below")
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


def preprocess(
    source: PathLike, target: PathLike, made: TensorFormat, workers: Optional[int] = None, packed: bool = False
) -> Outcome:
    """Writes `<target>/<name>.bin` for every image of `source`, or shards (ResNeSt.shards), and `tensors.json`.

    Files that an interrupted run left are kept if they are whole and not older than their images. Raises PipelineError
    where `target` holds anything else.
    """
    images = find_images(source)
    target = Path(target)
    target.mkdir(parents=True, exist_ok=True)
    workers = workers or cores()
    begun = TensorSet(made, images=len(images), count=0, complete=False, packed=packed)
    started = time.perf_counter()
    with sole_writer(target):
        _refuse_foreign_tensors(target, begun)
        shards = _missing_shards(images, source, target, made) if packed else {}
        missing = list(itertools.chain(*shards.values())) if packed else _missing_images(images, target, made)
        write_index(target, begun)
        broken = _write_shards(shards, made, workers) if packed else _write_files(missing, target, made, workers)
        count = len(images) - len(broken)
        write_index(target, dataclasses.replace(begun, count=count, complete=True, broken=tuple(broken)))
    kept = len(images) - len(missing)
    return Outcome(len(missing) - len(broken), kept, broken, time.perf_counter() - started)


def tensor_path(target: Path, image: PathLike) -> Path:
    """Where the tensor of `image` goes."""
    return target / tensor_name(image)


def _refuse_foreign_tensors(target: Path, making: TensorSet) -> None:
    index = read_index(target)
    if list_tensors(target) and (index is None or (index.format, index.packed) != (making.format, making.packed)):
        held = index or "tensors of another program"
        raise PipelineError(f"{target}: holds {held}, this run makes {making}; choose another folder or delete it")


def _missing_images(images: List[str], target: Path, made: TensorFormat) -> List[str]:
    """The images whose tensor is yet to be made; raises PipelineError where `target` holds tensors of others."""
    expected = {tensor_name(image) for image in images}
    foreign = [name for name in list_tensors(target) if name not in expected]
    if foreign:
        raise PipelineError(
            f"{target}: holds {len(foreign)} tensors without an image, such as {foreign[0]}; "
            "choose another folder or delete them"
        )
    return [image for image in images if not _is_current(image, target, made.nbytes)]


def _is_current(image: PathLike, target: Path, nbytes: int) -> bool:
    try:
        tensor = tensor_path(target, image).stat()
    except FileNotFoundError:
        return False
    return tensor.st_size == nbytes and tensor.st_mtime_ns >= os.stat(image).st_mtime_ns


def _write_files(images: List[str], target: Path, made: TensorFormat, workers: int) -> Dict[str, str]:
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

    bar = _bar(in_parallel(work, images, workers), len(images))
    return {os.path.basename(image): reason for image, reason in bar if reason is not None}


def _bar(results: Iterable[Result], images: int) -> Iterable[Result]:
    # disable=None: a bar on a terminal, nothing in a log file.
    return tqdm(results, total=images, unit="img", desc="preprocess", disable=None)


def _missing_shards(images: List[str], source: PathLike, target: Path, made: TensorFormat) -> Dict[Path, List[str]]:
    """The shards that are yet to be made, with their images; raises PipelineError where one holds other images.

    A shard that lacks broken images is made anew, since they may have been repaired.
    """
    starts = range(0, len(images), SHARD_IMAGES)
    shards = {shard_path(target, number): images[start : start + SHARD_IMAGES] for number, start in enumerate(starts)}
    for path in list_shards(target):
        found = _whole_shard(path, made)
        group = shards.get(path, [])
        names = {os.path.basename(image) for image in group}
        if not names or (found and {*found.images, *found.broken} != names):
            raise PipelineError(
                f"{path}: holds other images than {source} has in its place now; choose another folder or delete it"
            )
        if found and not found.broken and path.stat().st_mtime_ns >= max(os.stat(image).st_mtime_ns for image in group):
            del shards[path]
    return shards


def _whole_shard(path: Path, made: TensorFormat) -> Optional[Shard]:
    try:
        return read_shard(path, made.shape, made.dtype)
    except PipelineError:
        return None


def _write_shards(shards: Dict[Path, List[str]], made: TensorFormat, workers: int) -> Dict[str, str]:
    make = tensor_maker(made)
    ahead = 2 * workers
    # One for each image that is begun and not yet written, filled in turn.
    tensors = itertools.cycle(np.empty((ahead + 1, *made.shape), made.dtype))
    rows = (Row(path, image, next(tensors)) for path, images in shards.items() for image in images)
    broken: Dict[str, str] = {}

    def work(row: Row) -> Optional[str]:
        try:
            make(row.image, row.tensor)
        except BrokenImageError as error:
            return str(error)
        return None

    def named(results: Iterable[Tuple[Row, Optional[str]]]) -> Iterator[Tuple[str, Optional[np.ndarray]]]:
        for row, reason in results:
            name = os.path.basename(row.image)
            if reason is not None:
                broken[name] = reason
            yield name, row.tensor if reason is None else None

    bar = _bar(in_parallel(work, rows, workers, ahead), sum(map(len, shards.values())))
    for path, results in itertools.groupby(bar, key=lambda result: result[0].shard):
        write_shard(path, made.shape, made.dtype, named(results))
    return broken
