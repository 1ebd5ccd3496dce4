"""Stage 4 on this machine as a function: a tensor folder through an engine, as ais_bench does it on an Ascend host.

Files, names, padding, summary and the lines that it says follow ais_bench (contract: ais_bench).
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import os
import re
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Callable, NamedTuple

import numpy as np
from tqdm import tqdm

from ResNeSt.common.ais_bench_names import stem
from ResNeSt.common.errors import ArgumentError, PipelineError
from ResNeSt.common.files import PathLike, read_json, remove_plain, sole_writer, whole_file, write_json
from ResNeSt.common.parallel import in_parallel
from ResNeSt.common.paths import refuse_clashes
from ResNeSt.common.progress import Say, hidden, silent
from ResNeSt.engines.engine import Engine, TensorSpec, check_named
from ResNeSt.engines.instances import Instances
from ResNeSt.engines.opening import open_engine
from ResNeSt.models.model_info import normalisation, recipe_note
from ResNeSt.tensors.folder import TensorFile, check_tensors, read_bytes, tensor_files
from ResNeSt.tensors.format import read_index

READERS = 2
ROUNDING = 1e-2  # of a normalised value: less than a level of 255, which is 0.017 at the usual std
RESULT_NAME = re.compile(r".+_0\.(bin|npy|txt)")
PURE_NAME = "pure_infer_data"
OUTPUT_FORMATS = ("BIN", "NPY", "TXT")
PURE_DATA = ("zero", "random")


Ready = Callable[[], object]


def _at_once() -> None:
    """Nobody else is to be waited for."""


@dataclasses.dataclass(frozen=True)
class Inference:
    """What is asked of an inference run.

    `model` is a .xml, .param, .onnx or checkpoint, run by `engine` (None: its suffix's own) on `device`, a GPU's number
    (0 on cpu); `batch` sets the batch size of one that leaves it free (None: 1, and a compiled one that takes several
    asks for it), `arch` names the network of a checkpoint, `ema` chooses its weights. `tensors` is a folder or a file
    of stage 1; None measures the speed on one batch of `pure_data`. Results go to `<output>/<dirname>` [date and time]
    as `outfmt`, and nowhere if `output` is None. Every batch runs `loop` times after `warmup` uncounted runs.
    `shown_batch` changes the throughput that is told and nothing else, `all_times` tells the copies' as well.
    `instances` of the model run side by side (None: as many as its runtime finds best for throughput); the times of a
    run say most of one alone. `arguments` stand in the summary.
    """

    model: PathLike
    tensors: PathLike | None = None
    output: PathLike | None = None
    dirname: str | None = None
    outfmt: str = "BIN"
    loop: int = 1
    warmup: int = 1
    batch: int | None = None
    shown_batch: int | None = None
    pure_data: str = "zero"
    all_times: bool = False
    engine: str | None = None
    device: int = 0
    arch: str | None = None
    ema: bool | None = None
    instances: int | None = 1
    arguments: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Inferred:
    """What a run gave: where its outputs and its summary lie (None where nothing was written), each run's milliseconds.

    `throughput` is images/s of the network alone, reading and writing left out; of several `instances` side by side it
    is what they gave by the clock while all were at work. `batch` is the model's batch size. The first counted run
    began at `started`, the last one ended at `ended`, in seconds since the epoch.
    """

    folder: Path | None
    summary: Path | None
    batch: int
    instances: int
    times_ms: tuple[float, ...]
    throughput: float
    started: float
    ended: float


class TensorBatch(NamedTuple):
    """One inference: the inputs whose results are wanted (padding left out) and the tensor that goes in."""

    inputs: Sequence[str]
    tensor: np.ndarray


class _Run(NamedTuple):
    """What a tensor gave, and when each of its runs began and ended, in seconds."""

    logits: np.ndarray
    spans: list[tuple[float, float]]


class TensorBatches(NamedTuple):
    """All inferences of a run, made as they are asked for; `odd` are the inputs so far that hold no image's values."""

    total: int
    each: Iterable[TensorBatch]
    odd: Sequence[str] = ()


def infer(inference: Inference, say: Say = silent, ready: Ready = _at_once) -> Inferred:
    """Runs every batch, writes a result per input and, last, the summary; `say` hears ais_bench's lines.

    `ready` is called once, after the uncounted runs and before the first counted one; it may wait for others.
    Raises PipelineError where the model cannot be opened or the tensors do not fit it, ArgumentError for options that
    do not go together, MissingRuntimeError where the model's runtime is not installed.
    """
    _check(inference)
    engine = open_engine(
        inference.model,
        inference.engine,
        inference.batch or 1,
        inference.arch,
        inference.device,
        ema=inference.ema,
        instances=inference.instances,
        images=_images(inference),
    )
    if inference.batch is not None or Path(inference.model).suffix in (".xml", ".param"):
        check_named(inference.model, engine.sizes, inference.batch)
    opened = (f"open device {inference.device}", f"load model {inference.model}", "create model description")
    for line in (f"{engine.title} init", *opened):
        say(f"{line} success")
    folder = _output_folder(inference, say)
    with sole_writer(folder) if folder else contextlib.nullcontext():
        if folder:
            _remove_earlier(folder)
        inferred = _run(engine, inference, folder, say, ready)
    say(f"end to finalize {engine.title}")
    return inferred


def _images(inference: Inference) -> int | None:
    """How many there are, where that makes a difference."""
    return len(tensor_files(inference.tensors)) if inference.instances is None and inference.tensors else None


def _check(inference: Inference) -> None:
    choices = {"outfmt": OUTPUT_FORMATS, "pure_data": PURE_DATA}
    for name, known in choices.items():
        if getattr(inference, name) not in known:
            raise ArgumentError(f"{name} {getattr(inference, name)!r}, expected one of {', '.join(known)}")
    for name, least in {"loop": 1, "warmup": 0, "batch": 1}.items():
        if (value := getattr(inference, name)) is not None and value < least:
            raise ArgumentError(f"{name} {getattr(inference, name)}, expected a whole number from {least}")
    if inference.tensors is not None and inference.output is not None:
        refuse_clashes([inference.tensors], fills=[os.path.join(inference.output, inference.dirname or "")])


def _run(engine: Engine, inference: Inference, folder: str | None, say: Say, ready: Ready = _at_once) -> Inferred:
    pure = inference.tensors is None
    batches = (
        _pure_batches(engine.input, inference.pure_data, inference.loop)
        if inference.tensors is None
        else _file_batches(engine, inference.tensors, say)
    )
    spans: list[tuple[float, float]] = []
    filesinfo: dict[str, dict[str, list[str]]] = {}
    runs = 1 if pure else inference.loop
    with Instances(engine, inference.warmup) as side_by_side:
        say(f"warm up {inference.warmup} done")
        ready()
        started = time.time()
        done = side_by_side.each(lambda instance, batch: _timed(instance, batch.tensor, runs), batches.each)
        for batch, run in tqdm(done, total=batches.total, desc="Inference array Processing", disable=hidden()):
            spans += run.spans
            if pure and filesinfo:
                continue
            for name, result in zip(batch.inputs, [run.logits] if pure else run.logits):
                outfiles = [_write(folder, name, result, inference.outfmt)] if folder else []
                filesinfo[str(len(filesinfo))] = {"infiles": [name], "outfiles": outfiles}
        ended = time.time()
    if batches.odd:
        say(
            f"note: {len(batches.odd)} tensors hold values that no image has by the model's mean and std, such as "
            f"{min(batches.odd)}; make them with resnest_preprocess.py and the model's --arch"
        )

    size = engine.input.shape[0]
    shown = inference.shown_batch or size
    times = [1000 * (end - start) for start, end in spans]
    figures = summarise(times, 1 if pure else batches.total, shown)
    rate = busy_rate(spans, engine.instances) if engine.instances > 1 else 1000 / figures["NPU_compute_time"]["mean"]
    if engine.instances > 1:
        figures.update(throughput=shown * rate, instances=engine.instances)
    for line in _summary_lines(figures, shown, inference.all_times):
        say(line)
    if folder:
        told = {"filesinfo": filesinfo, "args": list(map(str, inference.arguments)), **figures, "pid": os.getpid()}
        write_json(_summary_path(folder), told)
    return Inferred(
        folder=Path(folder) if folder else None,
        summary=_summary_path(folder) if folder else None,
        batch=size,
        instances=engine.instances,
        times_ms=tuple(times),
        throughput=size * rate,
        started=started,
        ended=ended,
    )


def _output_folder(inference: Inference, say: Say) -> str | None:
    if inference.output is None:
        return None
    dirname = inference.dirname or time.strftime("%Y_%m_%d-%H_%M_%S")
    if os.path.isabs(dirname):
        raise ArgumentError(f"--output_dirname {dirname}: is a name below --output, not an absolute path")
    folder = os.path.join(inference.output, dirname)
    os.makedirs(folder, mode=0o750, exist_ok=True)
    say(f"output path:{folder}")
    return folder


def _remove_earlier(folder: str) -> None:
    """Removes what an earlier run left, as far as its summary lists it: a folder of results is of one run."""
    summary = _summary_path(folder)
    with contextlib.suppress(PipelineError, AttributeError, KeyError, TypeError):  # there is none, or it is damaged
        names = [
            os.path.basename(file) for entry in read_json(summary)["filesinfo"].values() for file in entry["outfiles"]
        ]
        for name in filter(RESULT_NAME.fullmatch, names):
            remove_plain(Path(folder, name))
    # The summary is written last; an old one would make an interrupted run look finished.
    remove_plain(summary)


def _summary_path(folder: str) -> Path:
    return Path(f"{folder}_summary.json")


def _pure_batches(spec: TensorSpec, kind: str, loop: int) -> TensorBatches:
    tensor = np.zeros(spec.shape, spec.dtype)
    if kind == "random":
        scale = 255 if spec.dtype == "uint8" else 1
        tensor = (np.random.default_rng(0).random(spec.shape) * scale).astype(spec.dtype)
    return TensorBatches(loop, itertools.repeat(TensorBatch([PURE_NAME], tensor), loop))


def _file_batches(engine: Engine, source: PathLike, say: Say) -> TensorBatches:
    files, spec = tensor_files(source), engine.input
    index = read_index(source) if os.path.isdir(source) else None
    note = recipe_note(engine.info, index.format.recipe) if index and "recipe" in engine.info else ""
    if note:
        say(f"note: {source}: {note}")
    check_tensors(source, spec.shape, spec.dtype, engine.info)
    shape, size = spec.shape[1:], spec.shape[0]
    first = len(read_bytes(files[0], spec.dtype, shape))
    if first == 0 or spec.nbytes % first:
        raise PipelineError(f"[ERROR] arg0 tensorsize: {spec.nbytes} filesize: {first} not match ({files[0].path})")
    if first != spec.nbytes // size:
        # ais_bench takes it; then rows of results are of images that nobody named, or values of another dtype.
        raise PipelineError(
            f"{files[0].path}: {first} bytes, an image takes {spec.nbytes // size} ({spec.kind} "
            f"{list(shape)}); a tensor file holds one image, make it with resnest_preprocess.py"
        )
    groups = [files[start : start + size] for start in range(0, len(files), size)]
    say(f"get filesperbatch files0 size:{first} tensor0size:{spec.nbytes} filesperbatch:{size} runcount:{len(groups)}")

    odd: list[str] = []
    holds_image = _holder_of_images(engine, source)

    def load(group: Sequence[TensorFile]) -> np.ndarray:
        parts = [_read_sized(tensor, first, spec.dtype, shape) for tensor in group]
        odd.extend(tensor.path for tensor, part in zip(group, parts) if not holds_image(part))
        parts += parts[:1] * (size - len(group))  # ais_bench pads with the batch's first file
        return np.frombuffer(bytearray().join(parts), spec.dtype).reshape(spec.shape)

    loaded = in_parallel(load, groups, READERS)
    return TensorBatches(
        len(groups), (TensorBatch([file.path for file in group], tensor) for group, tensor in loaded), odd
    )


def _holder_of_images(engine: Engine, source: PathLike) -> Callable[[bytes], bool]:
    """Whether the values of a tensor may be those of an image, by the mean and std that the model says it wants.

    Of a byte every value is a level. Of float32 what lies outside, or is no number, is of another normalisation, order
    of bytes or order of channels: a network makes finite answers of it all the same.
    """
    mean, std = normalisation(engine.info, source)
    if mean is None or std is None or engine.input.dtype != "float32":
        return lambda content: True
    lowest, highest = (((level - np.array(mean)) / std)[:, None] for level in (0, 1))

    def holds_image(content: bytes) -> bool:
        values = np.frombuffer(content, np.float32).reshape(len(mean), -1)
        least, most = values.min(axis=1, keepdims=True), values.max(axis=1, keepdims=True)
        return bool((least >= lowest - ROUNDING).all() and (most <= highest + ROUNDING).all())

    return holds_image


def _read_sized(tensor: TensorFile, nbytes: int, dtype: str, shape: Sequence[int]) -> bytes:
    content = read_bytes(tensor, dtype, shape)
    if len(content) != nbytes:
        raise PipelineError(f"{tensor.path}: {len(content)} bytes, the first file has {nbytes}; make the tensor again")
    return content


def _timed(engine: Engine, tensor: np.ndarray, loop: int) -> _Run:
    """`loop` runs of `tensor`, and the last one's logits."""
    spans = []
    for _ in range(loop):
        started = time.perf_counter()
        logits = engine.run(tensor)
        spans.append((started, time.perf_counter()))
    return _Run(logits, spans)


def busy_rate(spans: Sequence[tuple[float, float]], instances: int) -> float:
    """Runs a second while all `instances` were at work; of a run that began before, or ended after, its part counts.

    `spans` are when each run began and ended, in seconds. All are at work once as many runs have begun, until the first
    of as many last ones has ended. Of too few runs for that the rate is from the first to the last.
    """
    starts, ends = np.array(spans, float).T
    begun, ended = starts.min(), ends.max()
    if len(spans) >= 2 * instances:
        begun, ended = np.sort(starts)[instances - 1], np.sort(ends)[-instances]
    inside = np.clip(ends, begun, ended) - np.clip(starts, begun, ended)
    return float((inside / (ends - starts)).sum() / (ended - begun))


def _write(folder: str, name: str, result: np.ndarray, outfmt: str) -> str:
    path = os.path.join(folder, f"{stem(name)}_0.{outfmt.lower()}")
    with whole_file(path) as file:
        if outfmt == "NPY":
            buffer = io.BytesIO()  # NumPy's own way to a file does not say why it cannot be written
            np.save(buffer, result)
            file.write(buffer.getbuffer())
        elif outfmt == "BIN":
            file.write(result.tobytes())
        else:
            file.write(_as_text(result).encode())
    return path


def _as_text(result: np.ndarray) -> str:
    rows = result.reshape(-1, result.shape[-1]).tolist()
    return "".join(("%f " * len(row)) % tuple(row) + "\n" for row in rows)


def statistics(times: Sequence[float]) -> dict[str, float]:
    """ais_bench's figures of a list of milliseconds."""
    return {
        "min": float(np.min(times)),
        "max": float(np.max(times)),
        "mean": float(np.mean(times)),
        "median": float(np.median(times)),
        "percentile(99%)": float(np.percentile(times, 99)),
        "count": len(times),
    }


def summarise(times: list[float], copies: int, batchsize: int) -> dict[str, Any]:
    """The summary's figures, under ais_bench's names; a cpu has no device memory to copy to, so copies take 0 ms."""
    compute = statistics(times)
    nothing = statistics([0.0] * copies)
    return {
        "NPU_compute_time": compute,
        "H2D_latency": nothing,
        "D2H_latency": nothing,
        "npu_compute_time_list": times,
        "throughput": 1000 * batchsize / compute["mean"],
    }


def _summary_lines(figures: dict[str, Any], batchsize: int, everything: bool) -> list[str]:
    names = ("H2D_latency", "NPU_compute_time", "D2H_latency") if everything else ("NPU_compute_time",)
    mean, throughput = figures["NPU_compute_time"]["mean"], figures["throughput"]
    told = f"1000*batchsize.mean({batchsize})/NPU_compute_time.mean({mean})"
    if instances := figures.get("instances"):
        told = f"of {instances} instances, by the clock"
    return [
        "-----------------Performance Summary------------------",
        *(_times_line(name, figures[name]) for name in names),
        f"throughput {told}: {throughput}",
        "------------------------------------------------------",
    ]


def _times_line(name: str, figures: dict[str, float]) -> str:
    return f"{name} (ms): " + ", ".join(f"{key} = {value}" for key, value in figures.items() if key != "count")
