"""Measures everything, or the parts that are named: `python -m benchmarks --images DIR [PART ...]`."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from benchmarks.plots import draw
from ResNeSt.common.arguments import Parser, positive
from ResNeSt.common.errors import ArgumentError, PipelineError, run
from ResNeSt.images.listing import find_images

PARTS = {
    "preprocessing": "stage 1 beside the sample's way, torchvision, OpenCV, DALI and decoding alone",
    "inference": "ResNeSt-50 beside PyTorch, ONNX Runtime, OpenVINO and NNCF, and the machine's matrix product",
    "end_to_end": "photographs to top-1 beside the sample's three scripts, and beside what the cores allow",
    "all_models": "every published model in fp32, bf16 and int8, and the peak memory of its stages",
    "scoring": "50,000 TXT results beside the sample's script",
    "resources": "peak memory and time of every stage, time to the first result",
}


def main() -> None:
    """Command line."""
    parser = Parser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog="\n".join(f"{name:14} {about}" for name, about in PARTS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"[all] {', '.join(PARTS)}")
    parser.reads("--images", type=Path, required=True, metavar="DIR", help="a few hundred photographs")
    parser.add_argument(
        "--rounds", type=positive, default=5, help="of every contender, after one uncounted [%(default)s]"
    )
    options = parser.parse_args()
    for part in options.parts or PARTS:
        if part not in PARTS:
            raise ArgumentError(f"{part!r} is not a part; they are {', '.join(PARTS)}")
    for image in map(Path, find_images(options.images)):
        if image.suffix != ".JPEG" or image.parent != options.images:
            raise PipelineError(f"{image}: the sample's script takes a flat folder of .JPEG files; link them into one")
    for part in options.parts or PARTS:
        print(f"\n{part}: {PARTS[part]}\n", flush=True)
        importlib.import_module(f"benchmarks.{part}").measure(options.images, options.rounds)
    draw()


if __name__ == "__main__":
    run(main)
