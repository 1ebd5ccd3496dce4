"""Command line of convert.sh: stage 3, .onnx -> simplified .onnx -> compiled models.

There is one a batch size, or one that takes them all. Beside each compiled model lies `<model>.json`, which says from
what and how it was made; a model whose record still holds is not compiled again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ResNeSt.common.arguments import Parser, hold_json, write_result
from ResNeSt.common.errors import run
from ResNeSt.common.flags import take
from ResNeSt.common.progress import aloud, remark
from ResNeSt.convert import aoe, atc, chips, preflight
from ResNeSt.convert.conversion import MIN_AGREEMENT, Conversion, check, convert, plan, resolved, simplification
from ResNeSt.convert.targets import parse_batches
from ResNeSt.tensors.format import LAYOUTS


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the command line; converts, or says what that would do or where it would fail."""
    options = make_parser().parse_args(argv)
    conversion = resolved(_conversion(options))
    hold_json(options, [conversion.onnx, conversion.simplified, *map(conversion.target, conversion.models)])
    if chips.is_310p(conversion.chip) and conversion.precision == "fp32":
        remark("on a 310P AvgPool and MaxPool take no float32, so a network in fp32 does not stay on its AI core")
    if options.check:
        todo, found = simplification(conversion), check(conversion)
        write_result(options, {"commands": todo, "findings": [finding._asdict() for finding in found]})
        print("".join(f"{line}\n" for line in todo), end="")
        preflight.report(found)
    elif options.dry_run:
        commands = plan(conversion)
        write_result(options, {"commands": commands})
        print("\n".join(commands))
    else:
        write_result(options, {"simplified": conversion.simplified, "models": convert(conversion, aloud)})
    return 0


def _conversion(options: argparse.Namespace) -> Conversion:
    return Conversion(
        onnx=options.onnx,
        batches=parse_batches(options.batches),
        chip=options.chip,
        output=options.output,
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
    parser = Parser(
        prog="convert.sh",
        description="Compile an ONNX file, one model per batch size.",
        example="bash convert.sh 1,4 cpu --onnx work/resnest_demo/resnest_demo.onnx --output work/models",
    )
    take(parser, "batches", positional=True)
    take(parser, "chip", positional=True, note="like 310P3, cpu, cuda, ncnn, or auto")
    take(parser, "onnx", type=Path, default=Path("resnest50.onnx"))
    take(parser, "output", type=Path, default=Path("."), old=["--output-dir"], role="adds")
    take(parser, "dtype", choices=list(LAYOUTS), default="float32")
    take(
        parser,
        "precision",
        note="fp16 on Ascend, which takes fp32, mixed, int8, too; fp32 elsewhere: cpu takes bf16 and int8, cuda and "
        "ncnn fp16",
    )
    take(parser, "calibration", type=Path, note="none; float32 tensors")
    take(parser, "min-agreement", note=f"{MIN_AGREEMENT}; of int8 on cpu, with fp32")
    take(parser, "dynamic-batch")
    take(parser, "arch", note="as the ONNX tells")
    take(parser, "tune", nargs="?", const=aoe.OPERATORS, choices=list(aoe.JOBS), note=f"none; alone: {aoe.OPERATORS}")
    parser.add_argument("--dry-run", action="store_true", help="print the exact commands and change nothing")
    parser.add_argument("--check", action="store_true", help="say what will fail on this Ascend host, and end there")
    parser.add_argument("--log", choices=atc.LOG_LEVELS, help="ATC's log level; shows all that it prints")
    parser.add_argument("--force", action="store_true", help="compile even what is up to date, or another model")
    take(parser, "threads")
    return parser


if __name__ == "__main__":
    run(main)
