"""Command line of convert.sh: stage 3, .onnx -> simplified .onnx -> compiled models.

There is one a batch size, or one that takes them all. Beside each compiled model lies `<model>.json`, which says from
what and how it was made; a model whose record still holds is not compiled again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ResNeSt.common.arguments import Parser, add_threads_flag
from ResNeSt.common.errors import run
from ResNeSt.common.progress import aloud
from ResNeSt.convert import aoe, atc, chips, preflight
from ResNeSt.convert.conversion import MIN_AGREEMENT, Conversion, check, convert, plan, resolved, simplification
from ResNeSt.convert.targets import parse_batches
from ResNeSt.tensors.format import LAYOUTS


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the command line; converts, or says what that would do or where it would fail."""
    options = make_parser().parse_args(argv)
    conversion = resolved(_conversion(options))
    if chips.is_310p(conversion.chip) and conversion.precision == "fp32":
        print("note: on a 310P AvgPool and MaxPool take no float32, so a network in fp32 does not stay on its AI core")
    if options.check:
        print("".join(f"{line}\n" for line in simplification(conversion)), end="")
        preflight.report(check(conversion))
    elif options.dry_run:
        print("\n".join(plan(conversion)))
    else:
        convert(conversion, aloud)
    return 0


def _conversion(options: argparse.Namespace) -> Conversion:
    return Conversion(
        onnx=options.onnx,
        batches=parse_batches(options.batches),
        chip=options.chip,
        folder=options.output_dir,
        dtype=options.dtype,
        precision=options.precision,
        calibration=options.calibration,
        min_agreement=options.min_agreement,
        arch=options.arch,
        log=options.log,
        force=options.force,
        dynamic_batch=options.dynamic_batch,
        tune=options.tune,
    )


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(prog="convert.sh", description="Compile an ONNX file, one model per batch size.")
    parser.add_argument("batches", metavar="BATCHES", help="batch sizes, like 1,4,8")
    parser.add_argument("chip", metavar="CHIP", help="a chip like 310P3 or Ascend310P3, cpu, cuda, ncnn, or auto")
    parser.reads("--onnx", type=Path, default=Path("resnest50.onnx"), metavar="FILE", help="[%(default)s]")
    parser.fills("--output-dir", type=Path, default=Path("."), metavar="DIR", help="[%(default)s]")
    parser.add_argument("--dtype", choices=list(LAYOUTS), default="float32", help="of the tensors [%(default)s]")
    parser.add_argument(
        "--precision",
        help="fp16, fp32, mixed or int8 on Ascend [fp16]; fp32, bf16 or int8 on cpu, fp32 or fp16 on cuda, ncnn [fp32]",
    )
    parser.reads("--calibration", type=Path, metavar="DIR", help="float32 tensors, to quantize and to judge by")
    parser.add_argument(
        "--min-agreement", type=float, metavar="SHARE", help=f"with the top-1 of fp32, on cpu [{MIN_AGREEMENT}]"
    )
    parser.add_argument("--dynamic-batch", action="store_true", help="one model that takes all of BATCHES, 2 to 100")
    parser.add_argument("--arch", metavar="NAME", help="the card, a name or a file, where the ONNX does not tell it")
    parser.add_argument(
        "--tune",
        nargs="?",
        const=aoe.OPERATORS,
        choices=list(aoe.JOBS),
        help=f"let AOE tune on this card first, for hours, once [{aoe.OPERATORS}]",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the exact commands and change nothing")
    parser.add_argument("--check", action="store_true", help="say what will fail on this Ascend host, and end there")
    parser.add_argument("--log", choices=atc.LOG_LEVELS, help="ATC's log level; shows all that it prints")
    parser.add_argument("--force", action="store_true", help="compile even what is up to date, or another model")
    add_threads_flag(parser)
    return parser


if __name__ == "__main__":
    run(main)
