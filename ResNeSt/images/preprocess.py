"""Stage 1: a folder of images becomes a folder of tensors, one file per image or packed into few.

Threads do the work: native/, Pillow's decoder and resizer and NumPy's look-ups release the interpreter lock, so they
scale over cores without the start-up time and the memory of processes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import threading
import time
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Callable, ClassVar, NamedTuple, Protocol, TypeVar

import numpy as np
from tqdm import tqdm

from ResNeSt.common.cores import cores
from ResNeSt.common.errors import ArgumentError, PipelineError
from ResNeSt.common.files import PathLike, remove_plain, sole_writer, whole, whole_file
from ResNeSt.common.machines import Machines, broken_by
from ResNeSt.common.made_of import FileState, state_of
from ResNeSt.common.parallel import in_parallel
from ResNeSt.common.paths import lies_in, refuse_clashes
from ResNeSt.common.progress import Say, hidden, silent
from ResNeSt.images.archives import archives_of
from ResNeSt.images.decode import BrokenImageError, tensor_maker
from ResNeSt.images.listing import find_images, image_names, list_images
from ResNeSt.images.native import decoder
from ResNeSt.tensors import npz
from ResNeSt.tensors.folder import list_tensors, tensor_name
from ResNeSt.tensors.format import FILES, TensorFormat, TensorSet, read_index, write_index
from ResNeSt.tensors.shards import SHARD_IMAGES, Shard, list_shards, read_shard, shard_path, write_shard
from ResNeSt.tensors.sources import SourceLog

Item = TypeVar("Item")

# Bytes of a tensor's: a file system takes 255, and results are called <name>_0.bin.
LONGEST_NAME = 253


@dataclasses.dataclass(frozen=True)
class Preprocessed:
    """What a run did: tensors written, tensors kept from an earlier run, why images failed, seconds.

    `decoder` says who decoded the images (ResNeSt.images.native), `unturned` how many were left as they lie against
    their EXIF orientation, by the last run that made any.
    """

    written: int
    kept: int
    broken: dict[str, str]
    seconds: float
    decoder: str
    unturned: int = 0


class ShardRow(NamedTuple):
    """An image on its way into a shard, and the array that takes its tensor."""

    shard: Path
    image: Image
    tensor: np.ndarray


def preprocess(
    source: PathLike,
    target: PathLike,
    tensor_format: TensorFormat,
    workers: int | None = None,
    packed: bool = False,
    distinct: bool = False,
    say: Say = silent,
    machines: Machines | None = None,
    files: str = "bin",
    list_file: PathLike | None = None,
) -> Preprocessed:
    """Writes `<target>/<name>.bin` for every image of `source`, or shards (ResNeSt.tensors.shards), and `tensors.json`.

    `files` is one of tensors.format.FILES; `list_file` gets the path of every tensor, a line each, once all are there.
    `distinct` calls images of one name by their paths (ResNeSt.common.ais_bench_names.distinct_names). What an earlier
    run left is kept where it was made of the very images (ResNeSt.tensors.sources). `say` hears which files are no
    images. `machines`, which see both folders as this one does, do the work (ResNeSt.cluster.ray_tasks), in place of
    this process's threads. Raises PipelineError where `target` holds anything else, and where images have one name
    without `distinct`.
    """
    _check_files(files, packed, list_file)
    images = _named(source, distinct, say, f".{files}")
    target = Path(target)
    refuse_clashes(archives_of(source) or [source], [] if list_file is None else [list_file], fills=[target])
    if lies_in(source, target):
        raise ArgumentError(f"{target}: {source} lies in it, and a folder of tensors holds nothing else; name another")
    target.mkdir(parents=True, exist_ok=True)
    workers = workers or cores()
    begun = TensorSet(
        tensor_format, len(images), count=0, complete=False, packed=packed, decoder=decoder(), files=files
    )
    _begin_list(list_file, images, target)
    started = time.perf_counter()
    with sole_writer(target), SourceLog(target) as log:
        _refuse_foreign_tensors(target, begun)
        shards = _missing_shards(images, source, target, tensor_format, log) if packed else {}
        missing = list(itertools.chain(*shards.values())) if packed else _missing_images(images, target, log)
        if not missing and (index := read_index(target)):
            begun = dataclasses.replace(begun, decoder=index.decoder, unturned=index.unturned)
        write_index(target, begun)
        log.begin(image.name for image in set(images).difference(missing))
        if machines and packed:
            made = _spread_shards(shards, target, tensor_format, machines, log)
        elif machines:
            made = _spread_files(missing, target, tensor_format, machines, log)
        elif packed:
            made = _write_shards(shards, tensor_format, workers, log)
        else:
            made = _write_files(missing, target, tensor_format, workers, log)
        broken, count = made.broken, len(images) - len(made.broken)
        unturned = len(made.unturned) if missing else begun.unturned
        write_index(
            target,
            dataclasses.replace(begun, count=count, complete=True, broken=tuple(broken), unturned=unturned),
        )
        _write_list(list_file, [image.tensor(target) for image in images if image.name not in broken])
    kept = len(images) - len(missing)
    return Preprocessed(
        len(missing) - len(broken), kept, broken, time.perf_counter() - started, begun.decoder, unturned
    )


class Log(Protocol):
    """Hears what the tensors of a file were made of (SourceLog.add)."""

    def add(self, sources: Iterable[tuple[str, FileState]], file: Path) -> None:
        """Images by their names, with their states before they were read; `file` has its name."""
        ...


class Read(NamedTuple):
    """The state of an image before it was read, and whether it was left as it lies against its EXIF orientation."""

    source: FileState
    unturned: bool


class Made(NamedTuple):
    """Why images are broken, by their names, and the names of those left as they lie against their EXIF orientation."""

    broken: dict[str, str]
    unturned: set[str]

    def source(self, name: str, result: Read | str) -> FileState | None:
        """The state of an image that was read; None where `result` says why it is broken. Either is recorded."""
        if isinstance(result, str):
            self.broken[name] = result
            return None
        if result.unturned:
            self.unturned.add(name)
        return result.source


class Image(NamedTuple):
    """An image file, what it is called in the target (its file name, or what says its path), its tensor's suffix."""

    path: str
    name: str
    suffix: str = ".bin"

    def tensor(self, target: Path) -> Path:
        """Where its tensor goes."""
        return target / tensor_name(self.name, self.suffix)


def _check_files(files: str, packed: bool, list_file: PathLike | None) -> None:
    if files not in FILES:
        raise ArgumentError(f"files {files!r}, expected one of {', '.join(FILES)}")
    if packed and (files != "bin" or list_file is not None):
        raise ArgumentError(
            "packed tensors have no files of their own; leave --pack out, or --tensor-format and --list"
        )


def _begin_list(path: PathLike | None, images: list[Image], target: Path) -> None:
    """Removes an older list, since an interrupted run would look finished by it."""
    if path is None:
        return
    for image in images:
        if {"\n", "\r"} & set(f"{target / image.name}"):
            raise PipelineError(f"{image.path!a}: a list of tensors cannot name it, for its line break; rename it")
    remove_plain(path)


def _write_list(path: PathLike | None, tensors: list[Path]) -> None:
    if path is None:
        return
    with whole(path) as temporary:
        temporary.write_bytes(b"".join(os.fsencode(tensor) + b"\n" for tensor in tensors))


def _named(source: PathLike, distinct: bool, say: Say, suffix: str) -> list[Image]:
    if distinct:
        paths = list_images(source, say)
        return [Image(path, name, suffix) for path, name in zip(paths, image_names(paths, source))]
    return [Image(path, os.path.basename(path), suffix) for path in find_images(source, say)]


def _refuse_foreign_tensors(target: Path, making: TensorSet) -> None:
    index = read_index(target)
    kinds = [(each.format, each.packed, each.files) for each in (index, making) if each]
    if list_tensors(target) and (len(kinds) < 2 or kinds[0] != kinds[1]):
        held = index or "tensors of another program"
        raise PipelineError(f"{target}: holds {held}, this run makes {making}; choose another folder or delete it")


def _missing_images(images: list[Image], target: Path, log: SourceLog) -> list[Image]:
    """The images whose tensor is yet to be made; raises PipelineError where `target` holds tensors of others."""
    expected = {image.tensor(target).name for image in images}
    foreign = [name for name in list_tensors(target) if name not in expected]
    if foreign:
        raise PipelineError(
            f"{target}: holds {len(foreign)} tensors without an image, such as {foreign[0]}; "
            "choose another folder or delete them"
        )
    return [image for image in images if not log.holds(image.name, image.path, image.tensor(target))]


def _write_files(images: list[Image], target: Path, tensor_format: TensorFormat, workers: int, log: Log) -> Made:
    make = tensor_maker(tensor_format)
    own = threading.local()  # a tensor per thread, since fresh memory costs more than filling it

    def work(image: Image) -> Read | str:
        path = image.tensor(target)
        if not hasattr(own, "tensor"):
            own.tensor = np.empty(tensor_format.shape, tensor_format.element)
        try:
            read = _read_into(own.tensor, image, make)
        except BrokenImageError as error:
            remove_plain(path)
            return str(error)
        with whole_file(path) as file:
            if image.suffix == npz.SUFFIX:
                npz.write(file, own.tensor)
            else:
                file.write(own.tensor.data)
        return read

    made = Made({}, set())
    for image, result in _bar(in_parallel(work, images, workers), len(images)):
        if source := made.source(image.name, result):
            log.add([(image.name, source)], image.tensor(target))
    return made


def _bar(results: Iterable[Item] | None, images: int) -> Any:
    # disable=hidden(): a bar on a terminal, nothing in a log file.
    return tqdm(results, total=images, unit="img", desc="preprocess", disable=hidden())


def _missing_shards(
    images: list[Image], source: PathLike, target: Path, tensor_format: TensorFormat, log: SourceLog
) -> dict[Path, list[Image]]:
    """The shards that are yet to be made, with their images; raises PipelineError where one holds other images.

    A shard that lacks broken images is made anew, since they may have been repaired.
    """
    starts = range(0, len(images), SHARD_IMAGES)
    shards = {shard_path(target, number): images[start : start + SHARD_IMAGES] for number, start in enumerate(starts)}
    for path in list_shards(target):
        shard = _whole_shard(path, tensor_format)
        group = shards.get(path, [])
        names = {image.name for image in group}
        if not names or (shard and {*shard.images, *shard.broken} != names):
            raise PipelineError(
                f"{path}: holds other images than {source} has in its place now; choose another folder or delete it"
            )
        if shard and not shard.broken and all(log.holds(image.name, image.path, path) for image in group):
            del shards[path]
    return shards


def _whole_shard(path: Path, tensor_format: TensorFormat) -> Shard | None:
    try:
        return read_shard(path, tensor_format.shape, tensor_format.element)
    except PipelineError:
        return None


def _write_shards(
    shards: Mapping[Path, Sequence[Image]],
    tensor_format: TensorFormat,
    workers: int,
    log: Log,
    known: Mapping[str, str] = types.MappingProxyType({}),
) -> Made:
    """Writes shards; images `known` to be broken are not tried."""
    make = tensor_maker(tensor_format)
    ahead = 2 * workers
    # One for each image that is begun and not yet written, filled in turn.
    tensors = itertools.cycle(np.empty((ahead + 1, *tensor_format.shape), tensor_format.element))
    rows = (ShardRow(path, image, next(tensors)) for path, images in shards.items() for image in images)
    made = Made({}, set())
    sources: list[tuple[str, FileState]] = []

    def work(row: ShardRow) -> Read | str:
        if row.image.name in known:
            return known[row.image.name]
        try:
            return _read_into(row.tensor, row.image, make)
        except BrokenImageError as error:
            return str(error)

    def named(results: Iterable[tuple[ShardRow, Read | str]]) -> Iterator[tuple[str, np.ndarray | None]]:
        for row, result in results:
            name = row.image.name
            if source := made.source(name, result):
                sources.append((name, source))
            yield name, row.tensor if source else None

    bar = _bar(in_parallel(work, rows, workers, ahead), sum(map(len, shards.values())))
    for path, results in itertools.groupby(bar, key=lambda result: result[0].shard):
        sources.clear()
        write_shard(path, tensor_format.shape, tensor_format.element, named(results))
        log.add(sources, path)
    return made


def _read_into(tensor: np.ndarray, image: Image, make: Callable[[PathLike, np.ndarray], bool]) -> Read:
    """Fills `tensor`; the state of the image is that before it was read, so that a later change is one.

    Raises BrokenImageError.
    """
    if len(os.fsencode(tensor_name(image.name))) > LONGEST_NAME:
        raise BrokenImageError(f"{image.path}: its name is too long for results to be called by it; rename it")
    try:
        source = state_of(image.path)
    except OSError as error:
        raise BrokenImageError(f"{image.path}: cannot be read ({error.strerror})") from None
    return Read(source, make(image.path, tensor))


class Written(NamedTuple):
    """A file of tensors that another machine wrote: what it was made of, its state there, and as `Made` has it."""

    sources: list[tuple[str, FileState]]
    file: FileState | None
    broken: dict[str, str]
    unturned: set[str]


class _Heard:
    """A log that keeps what it hears."""

    def __init__(self) -> None:
        self.written: dict[Path, tuple[list[tuple[str, FileState]], FileState | None]] = {}

    def add(self, sources: Iterable[tuple[str, FileState]], file: Path) -> None:
        self.written[file] = (list(sources), state_of(file))

    def of(self, file: Path, made: Made) -> Written:
        sources, state = self.written.get(file, ([], None))
        return Written(sources, state, *made)


@dataclasses.dataclass(frozen=True)
class _Job:
    target: Path
    tensor_format: TensorFormat
    accelerator = ""
    files: ClassVar[Mapping[str, str]] = types.MappingProxyType({})


class WriteFiles(_Job):
    """Images -> a file each."""

    def __call__(self, items: Sequence[Image]) -> list[Written]:
        """In the order of `items`."""
        heard = _Heard()
        broken, unturned = _write_files(list(items), self.target, self.tensor_format, cores(), heard)
        return [
            heard.of(
                image.tensor(self.target),
                Made({image.name: broken[image.name]} if image.name in broken else {}, unturned & {image.name}),
            )
            for image in items
        ]

    def crashed(self, item: Image, why: str) -> Written:
        """The image is broken."""
        remove_plain(item.tensor(self.target))
        return Written([], None, {item.name: broken_by(item.path, why)}, set())

    def doubtful(self, items: Sequence[Image], made: Sequence[Written]) -> list[str]:
        """The first and the broken ones."""
        return [items[0].path, *(image.path for image, written in zip(items, made) if written.broken)]


class ToPack(NamedTuple):
    """The images of a shard, and those `known` to be broken."""

    path: Path
    images: Sequence[Image]
    known: Mapping[str, str]


class WriteShards(_Job):
    """Shards -> a file each; None for one that cannot be written with all its images."""

    def __call__(self, items: Sequence[ToPack]) -> list[Written | None]:
        """In the order of `items`."""
        made: list[Written | None] = []
        for path, images, known in items:
            heard = _Heard()
            made.append(heard.of(path, _write_shards({path: images}, self.tensor_format, cores(), heard, known)))
        return made

    def crashed(self, item: ToPack, why: str) -> Written | None:
        """One of its images is to blame."""
        return None

    def doubtful(self, items: Sequence[ToPack], made: Sequence[Written | None]) -> list[str]:
        """The first images of all and the broken ones."""
        paths = []
        for item, written in zip(items, made):
            broken = written.broken if written else {}
            paths += [item.images[0].path, *(image.path for image in item.images if image.name in broken)]
        return paths


class TryImages(_Job):
    """Images -> what they say of themselves if their process survives them: nothing."""

    def __call__(self, items: Sequence[Image]) -> list[str]:
        """Empty for each."""
        make = tensor_maker(self.tensor_format)
        tensor = np.empty(self.tensor_format.shape, self.tensor_format.element)
        for image in items:
            with contextlib.suppress(BrokenImageError):
                _read_into(tensor, image, make)
        return ["" for _ in items]

    def crashed(self, item: Image, why: str) -> str:
        """Why it is broken."""
        return broken_by(item.path, why)

    def doubtful(self, items: Sequence[Image], made: Sequence[str]) -> list[str]:
        """None: whoever writes their tensors asks."""
        return []


def _spread_files(
    images: list[Image], target: Path, tensor_format: TensorFormat, machines: Machines, log: SourceLog
) -> Made:
    job = WriteFiles(target, tensor_format)
    made = Made({}, set())
    for written in _bar(itertools.chain.from_iterable(machines.each(job, images, machines.chunk)), len(images)):
        _record_written(written, made, log)
    return made


def _spread_shards(
    shards: dict[Path, list[Image]], target: Path, tensor_format: TensorFormat, machines: Machines, log: SourceLog
) -> Made:
    made = Made({}, set())
    job = WriteShards(target, tensor_format)
    asked = [ToPack(path, images, {}) for path, images in shards.items()]
    with _bar(None, sum(map(len, shards.values()))) as bar:
        for shard, (written,) in zip(asked, machines.each(job, asked, 1)):
            if written is None:
                tried = itertools.chain.from_iterable(
                    machines.each(TryImages(target, tensor_format), shard.images, machines.chunk)
                )
                known = {image.name: reason for image, reason in zip(shard.images, tried) if reason}
                ((written,),) = machines.each(job, [shard._replace(known=known)], 1)
            if written is None:
                raise PipelineError(f"{shard.path}: the process that wrote it ended, time and again; {_SMALLER}")
            _record_written(written, made, log)
            bar.update(len(shard.images))
    return made


def _record_written(written: Written, made: Made, log: SourceLog) -> None:
    made.broken.update(written.broken)
    made.unturned.update(written.unturned)
    if written.file:
        log.record(written.sources, written.file)


_SMALLER = "give each task more cores with --workers, so that fewer of them share a node's memory"
