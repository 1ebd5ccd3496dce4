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
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from tqdm import tqdm

from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import PathLike, sole_writer, whole
from ResNeSt.common.parallel import cores, in_parallel
from ResNeSt.images.decode import BrokenImageError, tensor_maker
from ResNeSt.images.listing import find_images
from ResNeSt.tensors.folder import list_tensors, tensor_name
from ResNeSt.tensors.format import TensorFormat, TensorSet, read_index, write_index
from ResNeSt.tensors.shards import SHARD_IMAGES, Shard, list_shards, read_shard, shard_path, write_shard

Item = TypeVar("Item")


@dataclasses.dataclass(frozen=True)
class Preprocessed:
    """What a run did: tensors written, tensors kept from an earlier run, why images failed, seconds."""

    written: int
    kept: int
    broken: dict[str, str]
    seconds: float


class ShardRow(NamedTuple):
    """An image on its way into a shard, and the array that takes its tensor."""

    shard: Path
    image: str
    tensor: np.ndarray


def preprocess(
    source: PathLike, target: PathLike, tensor_format: TensorFormat, workers: int | None = None, packed: bool = False
) -> Preprocessed:
    """Writes `<target>/<name>.bin` for every image of `source`, or shards (ResNeSt.tensors.shards), and `tensors.json`.

    Files that an interrupted run left are kept if they are whole and not older than their images. Raises PipelineError
    where `target` holds anything else.
    """
    images = find_images(source)
    target = Path(target)
    target.mkdir(parents=True, exist_ok=True)
    workers = workers or cores()
    begun = TensorSet(tensor_format, images=len(images), count=0, complete=False, packed=packed)
    started = time.perf_counter()
    with sole_writer(target):
        _refuse_foreign_tensors(target, begun)
        shards = _missing_shards(images, source, target, tensor_format) if packed else {}
        missing = list(itertools.chain(*shards.values())) if packed else _missing_images(images, target, tensor_format)
        write_index(target, begun)
        broken = (
            _write_shards(shards, tensor_format, workers)
            if packed
            else _write_files(missing, target, tensor_format, workers)
        )
        count = len(images) - len(broken)
        write_index(target, dataclasses.replace(begun, count=count, complete=True, broken=tuple(broken)))
    kept = len(images) - len(missing)
    return Preprocessed(len(missing) - len(broken), kept, broken, time.perf_counter() - started)


def tensor_path(target: Path, image: PathLike) -> Path:
    """Where the tensor of `image` goes."""
    return target / tensor_name(image)


def _refuse_foreign_tensors(target: Path, making: TensorSet) -> None:
    index = read_index(target)
    if list_tensors(target) and (index is None or (index.format, index.packed) != (making.format, making.packed)):
        held = index or "tensors of another program"
        raise PipelineError(f"{target}: holds {held}, this run makes {making}; choose another folder or delete it")


def _missing_images(images: list[str], target: Path, tensor_format: TensorFormat) -> list[str]:
    """The images whose tensor is yet to be made; raises PipelineError where `target` holds tensors of others."""
    expected = {tensor_name(image) for image in images}
    foreign = [name for name in list_tensors(target) if name not in expected]
    if foreign:
        raise PipelineError(
            f"{target}: holds {len(foreign)} tensors without an image, such as {foreign[0]}; "
            "choose another folder or delete them"
        )
    return [image for image in images if not _is_current(image, target, tensor_format.nbytes)]


def _is_current(image: PathLike, target: Path, nbytes: int) -> bool:
    try:
        tensor = tensor_path(target, image).stat()
    except FileNotFoundError:
        return False
    return tensor.st_size == nbytes and tensor.st_mtime_ns >= os.stat(image).st_mtime_ns


def _write_files(images: list[str], target: Path, tensor_format: TensorFormat, workers: int) -> dict[str, str]:
    make = tensor_maker(tensor_format)
    own = threading.local()  # a tensor per thread, since fresh memory costs more than filling it

    def work(image: str) -> str | None:
        path = tensor_path(target, image)
        if not hasattr(own, "tensor"):
            own.tensor = np.empty(tensor_format.shape, tensor_format.dtype)
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


def _bar(results: Iterable[Item], images: int) -> Iterable[Item]:
    # disable=None: a bar on a terminal, nothing in a log file.
    bar: Iterable[Item] = tqdm(results, total=images, unit="img", desc="preprocess", disable=None)
    return bar


def _missing_shards(
    images: list[str], source: PathLike, target: Path, tensor_format: TensorFormat
) -> dict[Path, list[str]]:
    """The shards that are yet to be made, with their images; raises PipelineError where one holds other images.

    A shard that lacks broken images is made anew, since they may have been repaired.
    """
    starts = range(0, len(images), SHARD_IMAGES)
    shards = {shard_path(target, number): images[start : start + SHARD_IMAGES] for number, start in enumerate(starts)}
    for path in list_shards(target):
        shard = _whole_shard(path, tensor_format)
        group = shards.get(path, [])
        names = {os.path.basename(image) for image in group}
        if not names or (shard and {*shard.images, *shard.broken} != names):
            raise PipelineError(
                f"{path}: holds other images than {source} has in its place now; choose another folder or delete it"
            )
        if shard and not shard.broken and path.stat().st_mtime_ns >= max(os.stat(image).st_mtime_ns for image in group):
            del shards[path]
    return shards


def _whole_shard(path: Path, tensor_format: TensorFormat) -> Shard | None:
    try:
        return read_shard(path, tensor_format.shape, tensor_format.dtype)
    except PipelineError:
        return None


def _write_shards(shards: dict[Path, list[str]], tensor_format: TensorFormat, workers: int) -> dict[str, str]:
    make = tensor_maker(tensor_format)
    ahead = 2 * workers
    # One for each image that is begun and not yet written, filled in turn.
    tensors = itertools.cycle(np.empty((ahead + 1, *tensor_format.shape), tensor_format.dtype))
    rows = (ShardRow(path, image, next(tensors)) for path, images in shards.items() for image in images)
    broken: dict[str, str] = {}

    def work(row: ShardRow) -> str | None:
        try:
            make(row.image, row.tensor)
        except BrokenImageError as error:
            return str(error)
        return None

    def named(results: Iterable[tuple[ShardRow, str | None]]) -> Iterator[tuple[str, np.ndarray | None]]:
        for row, reason in results:
            name = os.path.basename(row.image)
            if reason is not None:
                broken[name] = reason
            yield name, row.tensor if reason is None else None

    bar = _bar(in_parallel(work, rows, workers, ahead), sum(map(len, shards.values())))
    for path, results in itertools.groupby(bar, key=lambda result: result[0].shard):
        write_shard(path, tensor_format.shape, tensor_format.dtype, named(results))
    return broken
