"""Measures everything, or the parts that are named: `python -m benchmarks --images DIR [PART ...]`."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from pathlib import Path

from benchmarks.plots import draw
from ResNeSt.common.arguments import Parser, positive
from ResNeSt.common.errors import ArgumentError, PipelineError, run
from ResNeSt.common.flags import take
from ResNeSt.images.listing import find_images

PARTS = {
    "preprocessing": "stage 1 beside the sample's way, torchvision, OpenCV, DALI and decoding alone",
    "inference": "ResNeSt-50 beside PyTorch, ONNX Runtime, OpenVINO and NNCF, and the machine's matrix product",
    "instances": "ResNeSt-50 by instances side by side, beside OpenVINO's benchmark_app",
    "cluster": "--ray with 1 to 16 workers whose work is simulated, and what an image costs the driver",
    "loadgen": "MLPerf's LoadGen, Offline and SingleStream, beside a pure loop",
    "end_to_end": "photographs to top-1 beside the sample's three scripts, and beside what the cores allow",
    "all_models": "every published model in fp32, bf16 and int8, and the peak memory of its stages",
    "serving": "the service with 1 to 64 clients beside the bare engine",
    "scoring": "50,000 TXT results beside the sample's script",
    "gpu": "ResNeSt-50 and fast_1s1x64d on an NVIDIA GPU beside timm's eager loop and published figures",
    "edge": "ncnn on one core beside ONNX Runtime and OpenVINO on one core",
    "resources": "peak memory and time of every stage, time to the first result",
}


WITHOUT_IMAGES = ("scoring", "serving", "gpu", "edge", "cluster")
NAMED_ONLY = ("gpu", "edge", "cluster")  # which take what most machines have not


def main() -> None:
    """Command line."""
    options = make_parser().parse_args()
    parts = options.parts or [part for part in PARTS if part not in NAMED_ONLY]
    _check(parts, options.images)
    options.output.mkdir(parents=True, exist_ok=True)
    for part in parts:
        print(f"\n{part}: {PARTS[part]}\n", flush=True)
        images = [] if part in WITHOUT_IMAGES else [options.images]
        length = options.duration if part == "serving" else options.rounds
        importlib.import_module(f"benchmarks.{part}").measure(*images, length, options.output)
    draw(options.output)


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog="\n".join(f"{name:14} {about}" for name, about in PARTS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        example="python -m benchmarks --images demo/val --rounds 1 preprocessing",
        tells=(),
    )
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"[all but {' and '.join(NAMED_ONLY)}] {', '.join(PARTS)}"
    )
    without = f"none: {', '.join(WITHOUT_IMAGES)} take none, the others a few hundred .JPEG files of one folder"
    take(parser, "images", type=Path, note=without)
    parser.add_argument(
        "--rounds",
        type=positive,
        default=5,
        metavar="N",
        help="rounds of every contender, after one uncounted [%(default)s]",
    )
    take(parser, "duration", default=60.0, note="60; of serving, with each number of clients", old=["--seconds"])
    output = Path("work/benchmarks")
    take(parser, "output", type=Path, default=output, note="%(default)s; the published ones lie in benchmarks/results")
    return parser


def _check(parts: Sequence[str], images: Path | None) -> None:
    """Raises ArgumentError for parts that are none or lack images, PipelineError for images that they cannot take."""
    for part in parts:
        if part not in PARTS:
            raise ArgumentError(f"{part!r} is not a part; they are {', '.join(PARTS)}")
        if images is None and part not in WITHOUT_IMAGES:
            raise ArgumentError(f"{part} takes --images DIR, a few hundred photographs")
    for image in map(Path, find_images(images) if images is not None else ()):
        if image.suffix != ".JPEG" or image.parent != images:
            raise PipelineError(f"{image}: the sample's script takes a flat folder of .JPEG files; link them into one")


if __name__ == "__main__":
    run(main)
