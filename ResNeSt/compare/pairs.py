"""The two sides of a comparison: models that run on the same tensors, or outputs that a client saved.

Both give logits by image name, a few images at a time, so that memory does not grow with the data set.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Callable, NamedTuple

import numpy as np
from tqdm import tqdm

from ResNeSt.common.ais_bench_names import natural_key, stem
from ResNeSt.common.errors import ArgumentError, PipelineError
from ResNeSt.common.files import PathLike
from ResNeSt.common.parallel import in_parallel
from ResNeSt.common.progress import Say, hidden, silent
from ResNeSt.compare.agreement import Agreement, agreement
from ResNeSt.engines.engine import Engine, run_images
from ResNeSt.engines.opening import CHECKPOINTS, open_engine
from ResNeSt.engines.tensor_batches import TensorFolder
from ResNeSt.models.model_info import recipe_note
from ResNeSt.score.outputs import OUTPUT_NAME, bin_dtype, find_outputs, list_outputs, model_classes, read_output
from ResNeSt.score.ranking import are_probabilities
from ResNeSt.tensors.folder import spread

BATCH = 8  # of models that leave it free on both sides
READERS = 2
_COUNTED = re.compile(r"_0[0-9]+\.\w+$")  # a number of an image, since no client has zeros before an output's


class Chunk(NamedTuple):
    """A few images: their names and, where a model is to run, their tensors (N, ...) as the folder holds them."""

    names: Sequence[str]
    tensors: np.ndarray


Side = Callable[[Chunk], np.ndarray]


class Pair(NamedTuple):
    """Both sides, each from a chunk to logits (N, classes), and the chunks of all images that are compared.

    `notes` are what is to be told beside the figures.
    """

    reference: Side
    judged: Side
    chunks: Iterable[Chunk]
    notes: Sequence[str]


def open_pair(
    reference: Path, judged: Path, source: Path | None, count: int | None, arch: str | None, ema: bool | None = None
) -> Pair:
    """Opens two of .pth, .onnx, .xml, .param, .om, a folder of outputs or a client's summary.

    Models run on the tensors of `source`. `count` images at even distances are compared [all]. Raises ArgumentError
    where tensors are wanting, PipelineError where the sides do not list the same images or a model cannot take the
    tensors, MissingRuntimeError where a model's runtime is not here.
    """
    paths = (reference, judged)
    _check_source(paths, source)
    engines = _open_engines([path for path in paths if _is_model(path)], arch, ema)
    saved = {path: _saved_outputs(path) for path in paths if path not in engines}
    folder = TensorFolder(source, next(iter(engines.values())).input) if source and engines else None
    names = _common_names([*saved.items(), *([(folder.folder, folder.files)] if folder else [])])
    size = max((engine.input.shape[0] for engine in engines.values()), default=BATCH)
    counts = {int(engine.info["classes"]) for engine in engines.values() if "classes" in engine.info}
    counts |= {classes for path in saved if not path.is_dir() and (classes := model_classes(path))}
    sides = [
        _running(path, engines[path], folder) if folder and path in engines else _reading(saved[path], counts)
        for path in paths
    ]
    chosen = spread(names, count or len(names))
    steps = -(-len(chosen) // size)
    chunks = tqdm(_chunks(chosen, size, folder), "compare", steps, unit="batch", disable=hidden())
    recipe = folder.recipe if folder else None
    notes = {f"{path}: {note}" for path, engine in engines.items() if (note := recipe_note(engine.info, recipe))}
    return Pair(sides[0], sides[1], chunks, sorted(notes))


def _check_source(paths: Sequence[Path], source: Path | None) -> None:
    models = [path for path in paths if _is_model(path)]
    if models and source is None:
        raise ArgumentError(f"{models[0]}: is a model and runs on tensors; name their folder with --tensors")
    if source is not None and not models:
        raise ArgumentError(f"--tensors {source}: {paths[0]} and {paths[1]} are outputs already; leave --tensors out")


def _is_model(path: Path) -> bool:
    return not path.is_dir() and path.suffix != ".json"


def _open_engines(paths: Sequence[Path], arch: str | None, ema: bool | None) -> dict[Path, Engine]:
    """Engines of up to two models; one that leaves its batch free takes the other's."""
    engines: dict[Path, Engine] = {}
    batch = BATCH
    # The first one again at the end, now that the second one's batch is known.
    for path in [*paths, *paths[:1]]:
        if path not in engines or engines[path].input.shape[0] != batch:
            chosen = ema if path.suffix in CHECKPOINTS else None  # the other side may be a checkpoint
            engines[path] = open_engine(path, batch=batch, arch=arch, ema=chosen)
        batch = engines[path].input.shape[0]
    return engines


def _saved_outputs(path: Path) -> dict[str, str]:
    """The output file of every image: IMAGE_0.npy as clients write, or of a folder without such names IMAGE.npy."""
    if not path.is_dir():
        return _by_image(path, {file: _name_by_client(file) for file in list_outputs(path)})
    by_client = {entry.path: name for entry in os.scandir(path) if (name := _name_by_client(entry.name))}
    if by_client and not any(_COUNTED.search(file) for file in by_client):
        return _by_image(path, by_client)
    return _by_image(path, {file: stem(file) for file in find_outputs(path)})


def _name_by_client(path: str) -> str | None:
    match = OUTPUT_NAME.fullmatch(os.path.basename(path))
    return match[1] if match else None


def _by_image(path: Path, names: Mapping[str, str | None]) -> dict[str, str]:
    outputs: dict[str, str] = {}
    for file, name in names.items():
        if name is None or name in outputs:
            reason = (
                "a second output of its image" if name else "not named <image>_<output number>.bin, .npy, .npz or .txt"
            )
            raise PipelineError(f"{path}: {file} is {reason}; give the outputs of one run of a classifier")
        outputs[name] = file
    return outputs


def _common_names(lists: Sequence[tuple[PathLike, Mapping[str, object]]]) -> list[str]:
    """The images of every list, which must be the same, in natural order."""
    (first, expected), *others = lists
    for path, actual in others:
        if actual.keys() != expected.keys():
            odd = sorted(actual.keys() ^ expected.keys())
            raise PipelineError(
                f"{path} and {first} do not list the same images: {len(odd)} are in one alone, such as {odd[0]}; "
                "run both stages on the same tensors"
            )
    return sorted(expected, key=natural_key)


def _chunks(names: Sequence[str], size: int, folder: TensorFolder | None) -> Iterator[Chunk]:
    groups = [names[start : start + size] for start in range(0, len(names), size)]
    if folder is None:
        return (Chunk(group, np.empty(0)) for group in groups)
    return (Chunk(group, tensors) for group, tensors in in_parallel(folder.load, groups, READERS))


def _reading(outputs: Mapping[str, str], classes: Collection[int]) -> Side:
    dtype = bin_dtype(list(outputs.values()), classes)

    def logits(chunk: Chunk) -> np.ndarray:
        rows = [read_output(outputs[name], dtype) for name in chunk.names]
        for name, row in zip(chunk.names, rows):
            if row.size != rows[0].size:
                raise PipelineError(f"{outputs[name]}: {row.size} values, {outputs[chunk.names[0]]} has {rows[0].size}")
        return np.stack(rows)

    return logits


def _running(path: Path, engine: Engine, folder: TensorFolder) -> Side:
    adapt = folder.adapter(path, engine.input)

    def logits(chunk: Chunk) -> np.ndarray:
        outputs = run_images(engine, adapt(chunk.tensors))
        for name, row in zip(chunk.names, outputs):
            if not np.isfinite(row).all():
                raise PipelineError(f"{path}: NaN or infinity in the logits of {name}; --layers finds where they begin")
        return outputs

    return logits


def compare(
    reference: PathLike,
    judged: PathLike,
    source: PathLike | None = None,
    count: int | None = None,
    arch: str | None = None,
    say: Say = silent,
    ema: bool | None = None,
) -> Agreement:
    """How far `judged` agrees with `reference`, image by image; see open_pair for what they may be.

    `say` hears of tensors that are not of the model's own recipe. Raises what open_pair raises, and PipelineError where
    the sides have different numbers of classes, logits that are
    no numbers, or one logits and the other probabilities.
    """
    total = Agreement()
    pair = open_pair(Path(reference), Path(judged), None if source is None else Path(source), count, arch, ema)
    for note in pair.notes:
        say(note)
    for chunk in pair.chunks:
        expected, actual = pair.reference(chunk), pair.judged(chunk)
        if actual.shape != expected.shape:
            raise PipelineError(
                f"{judged}: {actual.shape[1]} values an image, {reference} has {expected.shape[1]}; compare models of "
                "the same classes"
            )
        if are_probabilities(actual) != are_probabilities(expected):
            one, other = (judged, reference) if are_probabilities(actual) else (reference, judged)
            raise PipelineError(
                f"{one}: gives probabilities (it ends in Softmax), {other} logits, of which no difference means "
                "anything; export one of them again so that both end alike"
            )
        total += agreement(chunk.names, actual, expected)
    return total
