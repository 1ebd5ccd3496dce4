"""Images/s of stage 1 beside other ways to the same kind of tensor, and beside decoding alone.

Ways that write files do so into a fresh folder each round, whose pages the kernel then has to find: a data set is
written once. Ways that end in memory are told apart in their names.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import sample
from benchmarks.decoders import decoders, switched
from benchmarks.peers import available, operators_of_torchvision, transforms
from benchmarks.rounds import interleave, report
from ResNeSt.common.ais_bench_names import stem
from ResNeSt.common.cores import cores
from ResNeSt.common.parallel import in_parallel
from ResNeSt.images.decode import decode, tensor_maker
from ResNeSt.images.listing import find_images
from ResNeSt.images.preprocess import preprocess
from ResNeSt.models.cards import IMAGENET_MEAN, IMAGENET_STD
from ResNeSt.tensors.format import TensorFormat

SIZE, RESIZED = 224, 256
BATCH = 16


def measure(images: Path, rounds: int, output: Path) -> None:
    """Measures every contender in turn, prints and writes the table."""
    paths = find_images(images)
    contenders: dict[str, Callable[[Path], object]] = {
        "the sample's script, float32 files": lambda target: sample.preprocess(str(images), str(target)),
        **_torchvision(paths),
        **_opencv(paths),
        **_dali(paths),
        "decoding alone, one core": lambda _: [decode(path) for path in paths],
        "decoding alone, all cores": lambda _: _drain(in_parallel(decode, paths, cores())),
        **_this_project(images, paths),
    }
    rates = interleave({name: _timed(work, len(paths)) for name, work in contenders.items()}, rounds)
    report(output, "preprocessing-224", ["way", "images/s"], [[name, f"{rate:.0f}"] for name, rate in rates.items()])


def _this_project(images: Path, paths: list[str]) -> dict[str, Callable[[Path], object]]:
    """With native/ switched on and off."""
    ways: dict[str, Callable[[Path], object]] = {
        "uint8 in memory": lambda _: _in_memory(paths),
        "float32 files": lambda target: preprocess(images, target, _format("float32")),
        "float32 packed": lambda target: preprocess(images, target, _format("float32"), packed=True),
        "uint8 files": lambda target: preprocess(images, target, _format("uint8")),
        "uint8 packed": lambda target: preprocess(images, target, _format("uint8"), packed=True),
    }
    return {
        f"this project, {way}, {by}": switched(switch, work)
        for by, switch in decoders().items()
        for way, work in ways.items()
    }


def _timed(work: Callable[[Path], object], images: int) -> Callable[[], float]:
    def measure() -> float:
        with tempfile.TemporaryDirectory() as target:
            started = time.perf_counter()
            work(Path(target))
            return images / (time.perf_counter() - started)

    return measure


def _drain(items: Any) -> None:
    for _ in items:
        pass


def _format(dtype: str) -> TensorFormat:
    return TensorFormat("ecentercrop-bicubic", SIZE, dtype, IMAGENET_MEAN, IMAGENET_STD)


def _in_memory(paths: list[str]) -> None:
    make = tensor_maker(_format("uint8"))
    _drain(in_parallel(lambda path: make(path, np.empty((SIZE, SIZE, 3), np.uint8)), paths, cores()))


def _torchvision(paths: list[str]) -> dict[str, Callable[[Path], object]]:
    """Resize, CenterCrop, ToTensor and Normalize: in one process with a file each, and in a DataLoader."""
    operators_of_torchvision()
    if not available("torchvision", "torchvision"):
        return {}
    import torch
    from PIL import Image

    steps = transforms()
    recipe = steps.Compose(
        [
            steps.Resize(RESIZED, steps.InterpolationMode.BICUBIC),
            steps.CenterCrop(SIZE),
            steps.ToTensor(),
            steps.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )

    class Images(torch.utils.data.Dataset[torch.Tensor]):
        def __len__(self) -> int:
            return len(paths)

        def __getitem__(self, index: int) -> torch.Tensor:
            tensor: torch.Tensor = recipe(Image.open(paths[index]).convert("RGB"))
            return tensor

    loader = torch.utils.data.DataLoader(Images(), BATCH, num_workers=cores(), persistent_workers=True)

    def write(target: Path) -> None:
        for index, path in enumerate(paths):
            Images()[index].numpy().tofile(target / f"{stem(path)}.bin")

    return {
        "torchvision, one process, float32 files": write,
        "torchvision in a DataLoader, all cores, float32 in memory": lambda _: _drain(loader),
    }


def _opencv(paths: list[str]) -> dict[str, Callable[[Path], object]]:
    """Short side to 256, bicubic, centre crop, on a thread per core."""
    if not available("OpenCV", "cv2"):
        return {}
    import cv2

    cv2.setNumThreads(1)

    def one(path: str) -> np.ndarray:
        pixels = cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB)
        height, width = pixels.shape[:2]
        scale = RESIZED / min(height, width)
        size = round(width * scale), round(height * scale)
        resized = cv2.resize(pixels, size, interpolation=cv2.INTER_CUBIC)
        top, left = (size[1] - SIZE) // 2, (size[0] - SIZE) // 2
        return np.ascontiguousarray(resized[top : top + SIZE, left : left + SIZE])

    return {
        "OpenCV, all cores, uint8 in memory (without antialiasing)": lambda _: _drain(in_parallel(one, paths, cores()))
    }


def _dali(paths: list[str]) -> dict[str, Callable[[Path], object]]:
    """Short side to 256, bicubic with antialiasing, centre crop, on the CPU."""
    if not available("NVIDIA DALI", "nvidia.dali"):
        return {}
    from nvidia.dali import fn, pipeline_def, types

    def graph() -> Any:
        encoded, _ = fn.readers.file(files=paths)
        pixels = fn.decoders.image(encoded, device="cpu", output_type=types.RGB)
        resized = fn.resize(pixels, resize_shorter=RESIZED, interp_type=types.INTERP_CUBIC, antialias=True)
        return fn.crop(resized, crop=(SIZE, SIZE))

    pipeline = pipeline_def(batch_size=BATCH, num_threads=cores(), device_id=None)(graph)()
    pipeline.build()

    def work(_: Path) -> None:
        for _start in range(0, len(paths), BATCH):
            pipeline.run()

    return {"NVIDIA DALI, all cores, uint8 in memory": work}
