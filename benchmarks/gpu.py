"""ResNeSt-50 and resnest50_fast_1s1x64d on an NVIDIA GPU, at the published batch sizes and at large ones.

This project's engines take images from the CPU's memory and give logits back there; "network alone" is the same with
both left on the card, as timm's benchmark script and most published figures have it. Weights are random, since speed
does not depend on them; how far the logits are from PyTorch's in float32 on the CPU is a table of its own.
"""

from __future__ import annotations

import multiprocessing
import re
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.rounds import interleave, repeated, report
from ResNeSt.common.errors import PipelineError
from ResNeSt.convert import simplify
from ResNeSt.convert.conversion import Conversion, convert
from ResNeSt.engines.engine import Engine, run_images
from ResNeSt.engines.opening import open_engine
from ResNeSt.export.same_logits import SEED
from ResNeSt.export.to_onnx import export
from ResNeSt.models.cards import card
from ResNeSt.models.resnest import create_model

NETWORKS = ("resnest50", "resnest50_fast_1s1x64d")
FASTEST_ENGINES = ("torch-cuda-fp16",)  # of PyTorch's; each is compiled for every batch size, which takes its time
COMPARED_ENGINES = ("torch-cuda", "torch-cuda-fp16", "torch-cuda-bf16")
# What makes timm's resnest50d the second one, which timm does not list.
TIMM_BLOCKS: dict[str, dict[str, Any]] = {
    "resnest50": {},
    "resnest50_fast_1s1x64d": {"block_args": {"radix": 1, "avd": True, "avd_first": True}},
}
BATCHES = (1, 4, 8, 128)
# Published latencies of a batch of 1, 4 and 8, ms: PaddleClas, ResNet-and-its-variants documentation (TensorRT 8.0.3.4
# on the T4).
PUBLISHED = {
    "resnest50": {
        "T4, TensorRT, FP16": (7.06, 8.98, 13.35),
        "T4, TensorRT, FP32": (6.16, 12.06, 21.50),
        "V100, FP32": (13.08, 16.38, 23.18),
    },
    "resnest50_fast_1s1x64d": {"T4, TensorRT, FP16": (3.46, 5.57, 9.12), "V100, FP32": (2.43, 4.34, 6.96)},
}
SECONDS = 0.4  # of one round
COMPARED, COMPARED_BATCH = 64, 8
SIDE_BY_SIDE = 8  # processes that compile ahead
Alone = Callable[[], object]


class Files(NamedTuple):
    """Of a network: its random weights, and what convert.sh makes of them, by precision and batch size."""

    weights: Path
    compiled: dict[str, dict[int, Path]]


def measure(rounds: int, output: Path) -> None:
    """Builds every contender, measures them in turn, prints and writes the tables; raises PipelineError without GPU."""
    if not torch.cuda.is_available():
        raise PipelineError("PyTorch finds no GPU here; benchmarks gpu takes an NVIDIA GPU and a CUDA build of PyTorch")
    where = re.sub(r"[^A-Za-z0-9]+", "-", torch.cuda.get_device_name()).strip("-")
    with tempfile.TemporaryDirectory() as scratch:
        files = {name: make_files(Path(scratch, name), name) for name in NETWORKS}
        _compile_ahead(files)
        for name in NETWORKS:
            rates = {batch: interleave(contenders(name, files[name], batch), rounds) for batch in BATCHES}
            report(output, f"gpu-{name}", ["images/s", *map(str, BATCHES)], [*_rows(rates), *_published(name)], where)
        for name in NETWORKS:
            head, rows = agreement(name, files[name])
            report(output, f"gpu-agreement-{name}", head, rows, where)


def make_files(folder: Path, name: str) -> Files:
    """Seeded random weights, exported, simplified and made for a GPU."""
    folder.mkdir()
    torch.manual_seed(SEED)
    torch.save(create_model(name).state_dict(), folder / f"{name}.pth")
    export(card(name), folder / f"{name}.pth", folder / f"{name}.onnx")
    simplify.simplify(folder / f"{name}.onnx", folder / f"{name}_sim.onnx")
    compiled = {}
    for precision in ("fp32", "fp16"):
        asked = Conversion(folder / f"{name}.onnx", BATCHES, "cuda", folder / precision, precision=precision)
        (folder / precision).mkdir()
        compiled[precision] = {model.batch: model.path for model in convert(asked)}
    return Files(folder / f"{name}.pth", compiled)


def engines(name: str, files: Files, batch: int, torch_engines: tuple[str, ...]) -> Iterator[tuple[str, Engine]]:
    """This project's engines that can be opened here, one after the other; says which cannot."""
    asked = [
        *(
            (f"ONNX Runtime {engine}, {precision}", files.compiled[precision][batch], engine)
            for engine in ("cuda", "tensorrt")
            for precision in files.compiled
        ),
        *((f"PyTorch compiled, {engine}", files.weights, engine) for engine in torch_engines),
    ]
    for title, path, engine in asked:
        try:
            yield title, open_engine(path, engine, batch, arch=name)
        except PipelineError as error:
            print(f"{title} is left out: {error}", flush=True)


def _compile_ahead(files: dict[str, Files]) -> None:
    """Lets PyTorch compile side by side, in processes; what is measured then finds it in PyTorch's cache.

    One that cannot be compiled is told of when it is measured.
    """
    with ProcessPoolExecutor(SIDE_BY_SIDE, multiprocessing.get_context("spawn")) as pool:
        for name in NETWORKS:
            for batch in BATCHES:
                for engine in FASTEST_ENGINES:
                    pool.submit(_open, files[name].weights, engine, batch, name)


def _open(weights: Path, engine: str, batch: int, name: str) -> None:
    open_engine(weights, engine, batch, arch=name)


def contenders(name: str, files: Files, batch: int) -> dict[str, Callable[[], float]]:
    """Images/s of everything at one batch size."""
    images = np.random.default_rng(0).standard_normal((batch, 3, 224, 224)).astype(np.float32)
    found = {"timm, eager, AMP in fp16, channels last, network alone": _rate(_timm(name, images), batch)}
    for title, engine in engines(name, files, batch, FASTEST_ENGINES):
        engine.run(images)
        found[title] = _rate(_bind(engine, images), batch)
        found[f"{title}, network alone"] = _rate(_alone(engine, images), batch)
    return found


def _rate(work: Alone, batch: int) -> Callable[[], float]:
    return repeated(work, batch, SECONDS)


def _bind(engine: Engine, images: np.ndarray) -> Alone:
    return lambda: engine.run(images)


def _alone(engine: Any, images: np.ndarray) -> Alone:
    """A run of the batch that lies on the card, whose logits stay there."""
    if hasattr(engine, "_binding"):
        return lambda: engine._session.run_with_iobinding(engine._binding)
    with torch.inference_mode():  # as in the engine's own run; another kind of tensor it would compile for anew
        there = torch.from_numpy(images).to("cuda", engine._dtype, memory_format=torch.channels_last)
    return _synchronized(torch.inference_mode()(lambda: engine._compiled(there)))


def _timm(name: str, images: np.ndarray) -> Alone:
    """As timm's benchmark script runs a network with --amp --channels-last."""
    import timm

    model: Any = timm.create_model("resnest50d", **TIMM_BLOCKS[name]).eval()
    model = model.to("cuda", memory_format=torch.channels_last)
    there = torch.from_numpy(images).to("cuda", memory_format=torch.channels_last)

    def work() -> None:
        with torch.inference_mode(), torch.autocast("cuda", torch.float16):
            model(there)

    return _synchronized(work)


def _synchronized(work: Alone) -> Alone:
    def until_done() -> None:
        work()
        torch.cuda.synchronize()

    return until_done


def _rows(rates: dict[int, dict[str, float]]) -> list[list[str]]:
    who = dict.fromkeys(name for found in rates.values() for name in found)
    return [[name, *(f"{rates[batch][name]:.0f}" if name in rates[batch] else "" for batch in rates)] for name in who]


def _published(name: str) -> list[list[str]]:
    return [
        [f"published: {device}", *(f"{1000 * batch / ms:.0f}" for batch, ms in zip(BATCHES, times)), ""]
        for device, times in PUBLISHED[name].items()
    ]


def agreement(name: str, files: Files) -> tuple[list[str], list[list[str]]]:
    """How near every engine's logits are to those of PyTorch in float32 on the CPU."""
    images = np.random.default_rng(1).standard_normal((COMPARED, 3, 224, 224)).astype(np.float32)
    expected = run_images(open_engine(files.weights, "torch", COMPARED_BATCH, arch=name), images)
    rows = []
    for title, engine in engines(name, files, COMPARED_BATCH, COMPARED_ENGINES):
        logits = run_images(engine, images)
        difference = np.abs(logits - expected).max() / np.abs(expected).max()
        rows.append([title, f"{difference:.1e}"])
    return [f"{name}, batch {COMPARED_BATCH}", "largest difference, of the largest logit"], rows
