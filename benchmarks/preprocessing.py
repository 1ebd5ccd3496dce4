"""Images/s of stage 1 beside the original sample's way and beside decoding alone.

The sample's way, written anew after its description: one process, bilinear resize to 256x256, centre crop, float32,
normalised with NumPy, a file per image. Every contender makes all tensors of --images in a fresh folder.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.rounds import interleave, report
from ResNeSt.cards import IMAGENET_MEAN, IMAGENET_STD
from ResNeSt.errors import run
from ResNeSt.files import stem
from ResNeSt.preprocess import decode, find_images, preprocess
from ResNeSt.tensors import TensorFormat

SIZE = 224


def main() -> None:
    """Measures every contender in turn, prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of photographs")
    parser.add_argument("--rounds", type=int, default=5, help="[%(default)s]")
    options = parser.parse_args()
    images = find_images(options.images)
    contenders = {
        "the sample's way, float32": lambda: _timed(images, lambda target: _sample(images, target)),
        "decoding alone, one thread": lambda: _timed(images, lambda target: _decode(images)),
        "this project, float32": lambda: _timed(images, _ours(options.images, "float32")),
        "this project, uint8": lambda: _timed(images, _ours(options.images, "uint8")),
    }
    report("preprocessing-224", "images/s", {f"{len(images)} photographs": interleave(contenders, options.rounds)})


def _timed(images: list[str], work: Callable[[Path], object]) -> float:
    with tempfile.TemporaryDirectory() as target:
        started = time.perf_counter()
        work(Path(target))
        return len(images) / (time.perf_counter() - started)


def _sample(images: list[str], target: Path) -> None:
    mean, std = np.array(IMAGENET_MEAN, np.float32), np.array(IMAGENET_STD, np.float32)
    for path in images:
        image = Image.open(path).convert("RGB").resize((256, 256), Image.Resampling.BILINEAR)
        crop = np.asarray(image.crop((16, 16, 16 + SIZE, 16 + SIZE)), dtype=np.float32)
        tensor = ((crop / 255 - mean) / std).transpose(2, 0, 1)
        np.ascontiguousarray(tensor).tofile(target / f"{stem(path)}.bin")


def _decode(images: list[str]) -> None:
    for path in images:
        decode(path)


def _ours(images: Path, dtype: str) -> Callable[[Path], object]:
    made = TensorFormat("ecentercrop-bicubic", SIZE, dtype, IMAGENET_MEAN, IMAGENET_STD)
    return lambda target: preprocess(images, target, made)


if __name__ == "__main__":
    run(main)
