"""Stage 4, for every batch size the accuracy of the compiled model and a pure-loop speed run, as a table."""

from __future__ import annotations

import argparse
import os

from ResNeSt.bench.benchmark import Benchmark, bench, check_devices
from ResNeSt.bench.models import PREFIX
from ResNeSt.bench.profile import printed as printed_profile
from ResNeSt.bench.rows import CSV, JSON, printed
from ResNeSt.common.arguments import Parser, add_threads_flag, positive
from ResNeSt.common.errors import run
from ResNeSt.convert import chips
from ResNeSt.convert.targets import parse_batches
from ResNeSt.report.draw import draw_where_possible

USUAL_DATA = ("prep_dataset", "val_label.txt")


def main() -> int:
    """Command line of bench.sh."""
    options = _parser().parse_args()
    batches, chip = parse_batches(options.batches), chips.resolve(options.chip)
    check_devices(chip, options.device, options.processes)
    tensors, labels = _data(options)
    benchmark = Benchmark(
        batches=batches,
        chip=chip,
        prefix=options.model,
        tensors=tensors,
        labels=labels,
        loop=options.loop,
        devices=options.device,
        processes=options.processes,
        folder=options.output_dir,
        images=options.images,
        keep_report=options.no_report,
        profile=options.profile,
        dynamic_batch=options.dynamic_batch,
    )
    benched = bench(benchmark)
    print("\n".join([printed(benched.rows), *(f"note: {remark}" for remark in benched.remarks)]))
    written = f"{benched.folder}/{CSV} and {JSON}"
    print(f"chip {chip}, {options.loop} runs a row, * is the fastest; written to {written}")
    for profile in benched.profiles:
        print(f"\n{printed_profile(profile)}")
    if not options.no_report:
        draw_where_possible(benched.folder)
    return 0


def _parser() -> Parser:
    parser = Parser(prog="bench.sh", description=__doc__)
    parser.add_argument("batches", metavar="BATCHES", help="batch sizes, like 1,4,8")
    parser.add_argument("chip", metavar="CHIP", help="a chip like 310P3, cpu, or auto")
    parser.add_argument("--model", default=PREFIX, metavar="PREFIX", help="models are PREFIX_bs<N>.om [%(default)s]")
    parser.add_argument("--dynamic-batch", action="store_true", help="the one model PREFIX_dyn.om takes all of BATCHES")
    parser.reads("--input", metavar="DIR", help="tensors of stage 1 [prep_dataset, if there]")
    parser.reads("--labels", metavar="FILE", help="for the accuracy [val_label.txt, if there]")
    parser.add_argument("--loop", type=positive, default=100, help="runs of the speed measurement [%(default)s]")
    parser.add_argument(
        "--device", type=_devices, default=[0], metavar="N[,N…]", help="NPUs, which share the data set [0]"
    )
    parser.add_argument(
        "--processes",
        type=_counts,
        default=[1],
        metavar="N[,N…]",
        help="on each device side by side in the speed measurement, a row for each N; on cpu they share the cores [1]",
    )
    parser.add_argument("--profile", action="store_true", help="then time every operator: msprof, OpenVINO's counters")
    parser.fills("--output-dir", default="bench", metavar="DIR", help="[%(default)s]")
    parser.reads("--images", metavar="DIR", help="the pictures behind the tensors, for the report")
    parser.add_argument("--no-report", action="store_true", help="draw no report.html")
    add_threads_flag(parser)
    return parser


def _devices(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _counts(text: str) -> list[int]:
    return [positive(number) for number in text.split(",")]


def _data(options: argparse.Namespace) -> tuple[str | None, str | None]:
    """--input and --labels as given, else the usual names where both are there, else none."""
    if options.input or options.labels:
        return options.input, options.labels
    if all(map(os.path.exists, USUAL_DATA)):
        return USUAL_DATA
    print(f"speed alone: no {' and '.join(USUAL_DATA)} here, no --input and --labels given")
    return None, None


if __name__ == "__main__":
    run(main)
