"""Pictures and their classes, and the batches that a process makes of them."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from random import Random
from typing import Callable

import numpy as np
import torch
from torch import Tensor

from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import PathLike
from ResNeSt.common.parallel import in_parallel
from ResNeSt.common.progress import Say, silent
from ResNeSt.images.decode import decode, tensor_maker
from ResNeSt.images.listing import list_images
from ResNeSt.images.recipes import normalisation_table, normalise
from ResNeSt.labels.class_names import ClassList
from ResNeSt.labels.file import keys_of, read_labels, remark_on_numbers
from ResNeSt.labels.numbering import LARGEST
from ResNeSt.labels.sources import read_tree
from ResNeSt.models.cards import Card
from ResNeSt.tensors.format import TensorFormat
from ResNeSt.training.augment import lighting, random_picture
from ResNeSt.training.settings import Settings

Batch = tuple[Tensor, Tensor]
Maker = Callable[[int, np.ndarray], object]


@dataclasses.dataclass(frozen=True)
class Samples:
    """Image files of a folder, their classes, what these are called where folders say it, and what a user must know."""

    folder: PathLike
    images: list[str]
    labels: list[int]
    class_names: tuple[str, ...] | None
    remarks: tuple[str, ...] = ()

    @property
    def classes(self) -> int:
        """How many classes there are: those named, else up to the highest."""
        return len(self.class_names) if self.class_names else max(self.labels) + 1


def read_samples(
    source: PathLike, labels: PathLike | None, known: ClassList | None = None, say: Say = silent
) -> Samples:
    """The pictures of `source`: with a folder per class, or with a file of `NAME CLASS` lines.

    Folders become classes by ResNeSt.labels.numbering, by the names of the `known` ones where there are. `say` hears
    which files are no pictures. Raises PipelineError where a picture has no class or a folder is none of the `known`.
    """
    return _by_folder(source, known, say) if labels is None else _by_file(source, labels, say)


def _by_folder(source: PathLike, known: ClassList | None, say: Say) -> Samples:
    tree = read_tree(source, known, say=say)
    names = tuple(class_name.synset or class_name.name for class_name in tree.classes)
    rule = f"{source}: {len(tree.numbers)} folders of {len(names)} classes, by {tree.rule}"
    return Samples(source, tree.images, tree.labels, names, (rule, *tree.remarks))


def _by_file(source: PathLike, labels: PathLike, say: Say) -> Samples:
    images, truth = list_images(source, say), read_labels(labels)
    keys = keys_of(images, source, truth)
    unlabelled = [path for path, key in zip(images, keys) if key not in truth]
    if unlabelled:
        raise PipelineError(f"{labels}: has no line for {len(unlabelled)} images of {source}, such as {unlabelled[0]}")
    if max(truth.values()) > LARGEST:
        raise PipelineError(f"{labels}: has class {max(truth.values())}, class numbers here are 0 to {LARGEST}")
    remarks = remark_on_numbers(labels, truth.values())
    if missing := truth.keys() - set(keys):
        remarks.append(f"{labels}: {len(missing)} labelled images are not in {source}, such as {min(missing)}")
    return Samples(source, images, [truth[key] for key in keys], None, tuple(remarks))


def steps_of(samples: Samples, batch: int, processes: int) -> int:
    """Steps of an epoch: whole batches only, since every process must have as many images in each step.

    Raises PipelineError where there are fewer images than one step takes.
    """
    steps = len(samples.images) // (batch * processes)
    if steps == 0:
        raise PipelineError(
            f"{len(samples.images)} training images, one step takes {batch} on each of {processes}; lower --batch"
        )
    return steps


def training_batches(
    samples: Samples, card: Card, settings: Settings, epoch: int, rank: int, processes: int, workers: int
) -> Iterator[Batch]:
    """Batches of an epoch for process `rank`: float32 (batch, 3, size, size), and int64 (batch,).

    All processes shuffle alike and each takes its slice of every step, so that a step has the same images, changed in
    the same way, however many processes share it.
    """
    table = normalisation_table(card.mean, card.std)
    as_measured = _recipe(samples, card)

    def make(index: int, out: np.ndarray) -> None:
        if settings.augment == "none":
            as_measured(index, out)
            return
        draw = Random(f"{settings.seed} {epoch} {index}")
        picture = random_picture(decode(samples.images[index]), card.size, settings, draw)
        normalise(np.asarray(picture), table, out)
        if settings.lighting:
            out += (lighting(settings.lighting, draw) / card.std)[:, None, None]

    shuffled = list(range(len(samples.images)))
    Random(f"{settings.seed} {epoch}").shuffle(shuffled)
    batch, steps = settings.batch, steps_of(samples, settings.batch, processes)
    starts = ((step * processes + rank) * batch for step in range(steps))
    mine = [index for start in starts for index in shuffled[start : start + batch]]
    return _batches(samples, mine, batch, card.size, make, workers)


def validation_batches(
    samples: Samples, card: Card, batch: int, rank: int, processes: int, workers: int
) -> Iterator[Batch]:
    """The share of process `rank` of all images, prepared by the card's recipe; the last batch may be smaller."""
    mine = range(rank, len(samples.images), processes)
    return _batches(samples, mine, batch, card.size, _recipe(samples, card), workers)


def _recipe(samples: Samples, card: Card) -> Maker:
    make = tensor_maker(TensorFormat(card.recipe, card.size, "float32", card.mean, card.std))
    return lambda index, out: make(samples.images[index], out)


def _batches(
    samples: Samples, indices: Sequence[int], batch: int, size: int, make: Maker, workers: int
) -> Iterator[Batch]:
    def work(index: int) -> np.ndarray:
        out = np.empty((3, size, size), np.float32)
        make(index, out)
        return out

    results = in_parallel(work, indices, workers, ahead=2 * batch)
    while group := list(itertools.islice(results, batch)):
        tensors = np.stack([tensor for _, tensor in group])
        yield torch.from_numpy(tensors), torch.tensor([samples.labels[index] for index, _ in group])
