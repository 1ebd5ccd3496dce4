"""The samples of a LoadGen run, its "query sample library": tensors or images by number, loaded when asked for."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Callable

import numpy as np

from ResNeSt.common.ais_bench_names import stem
from ResNeSt.common.cores import cores
from ResNeSt.common.errors import PipelineError
from ResNeSt.common.parallel import in_parallel
from ResNeSt.common.progress import Say
from ResNeSt.engines.engine import Engine
from ResNeSt.engines.image_batches import image_format
from ResNeSt.images.decode import tensor_maker
from ResNeSt.images.listing import list_images, relative
from ResNeSt.labels.file import keys_of, read_labels
from ResNeSt.loadgen.settings import LoadTest
from ResNeSt.models.model_info import recipe_note
from ResNeSt.score.score import check_labels
from ResNeSt.tensors.folder import check_files, check_tensors, read_tensor, tensor_files
from ResNeSt.tensors.format import read_index

Read = Callable[[], np.ndarray]


class Samples:
    """Sample number n is `names[n]`; `rows` holds those that are loaded, each a row of the model's input."""

    def __init__(self, names: Sequence[str], read: Mapping[str, Read], workers: int) -> None:
        self.names = names
        self.rows: dict[int, np.ndarray] = {}
        self._read = read
        self._workers = workers

    def load(self, numbers: Sequence[int]) -> None:
        """Reads or decodes samples; raises PipelineError where one is damaged."""
        missing = list(dict.fromkeys(number for number in numbers if number not in self.rows))
        self.rows.update(in_parallel(lambda number: self._read[self.names[number]](), missing, self._workers))

    def unload(self, numbers: Sequence[int]) -> None:
        """Forgets them."""
        for number in numbers:
            self.rows.pop(number, None)


def open_samples(asked: LoadTest, engine: Engine, classes: int, say: Say) -> Samples:
    """The samples of a run for a model of so many `classes`.

    Raises PipelineError where they do not fit the model, where the labels name one that is not there, or a class that
    the model has not.
    """
    truth = read_labels(asked.labels) if asked.labels is not None else {}
    if truth and asked.labels is not None:
        check_labels(truth, classes, asked.labels)
    read = _images(asked, engine, truth, say) if asked.images is not None else _tensors(asked, engine, say)
    if missing := [name for name in truth if name not in read]:
        raise PipelineError(
            f"{asked.labels}: {len(missing)} of {len(truth)} labelled images are not in {asked.source}, such as "
            f"{missing[0]}; a sample is a line of it, so complete the folder, or name the labels of these alone"
        )
    if truth and len(truth) < len(read):
        say(f"note: {len(read) - len(truth)} of {len(read)} in {asked.source} have no label and are left out")
    return Samples(list(truth or read), read, asked.model.workers or cores())


def _tensors(asked: LoadTest, engine: Engine, say: Say) -> dict[str, Read]:
    source, spec = asked.source, engine.input
    files = {stem(tensor.path): tensor for tensor in tensor_files(source)}
    check_tensors(source, spec.shape, spec.dtype, engine.info)
    check_files(source, spec.shape[1:], spec.dtype)
    index = read_index(source)
    if note := recipe_note(engine.info, index.format.recipe if index else None):
        say(f"note: {source}: {note}")
    return {name: functools.partial(read_tensor, file, spec.shape[1:], spec.dtype) for name, file in files.items()}


def _images(asked: LoadTest, engine: Engine, truth: Mapping[str, int], say: Say) -> dict[str, Read]:
    source = asked.source
    images = list_images(source, say)
    wanted = image_format(engine, asked.model)
    if note := recipe_note(engine.info, wanted.recipe):
        say(f"note: {source}: {note}")
    make = tensor_maker(wanted)

    def read(image: str) -> np.ndarray:
        tensor = np.empty(engine.input.shape[1:], engine.input.dtype)
        make(image, tensor)
        return tensor

    keys = keys_of(images, source, truth) if truth else [relative(image, source) for image in images]
    return {key: functools.partial(read, image) for key, image in zip(keys, images)}
