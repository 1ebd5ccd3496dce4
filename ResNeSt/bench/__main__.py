"""Stage 4, for every batch size the accuracy of the compiled model and pure-loop speed runs, as a table."""

from __future__ import annotations

import argparse
import os

from ResNeSt.bench.benchmark import SEARCH, USUAL_LOOP, Benchmark, bench, checked
from ResNeSt.bench.best import commands
from ResNeSt.bench.models import PREFIX
from ResNeSt.bench.profile import printed as printed_profile
from ResNeSt.bench.rows import CSV, JSON, printed
from ResNeSt.common.arguments import Parser, each, positive
from ResNeSt.common.errors import run
from ResNeSt.common.flags import take
from ResNeSt.common.progress import aloud, silent
from ResNeSt.convert.targets import parse_batches
from ResNeSt.report.draw import draw_where_possible

USUAL_DATA = ("prep_dataset", "val_label.txt")


def main() -> int:
    """Command line of bench.sh."""
    options = make_parser().parse_args()
    tensors, labels = _data(options)
    benchmark = checked(
        Benchmark(
            batches=SEARCH if options.batches == SEARCH else parse_batches(options.batches),
            chip=options.chip,
            prefix=options.prefix,
            tensors=tensors,
            labels=labels,
            loop=options.loop,
            duration=options.duration,
            warmup=options.warmup,
            devices=options.device,
            processes=options.processes,
            instances=options.instances,
            output=options.output,
            images=options.images,
            keep_report=options.no_report,
            profile=options.profile,
            dynamic_batch=options.dynamic_batch,
        )
    )
    if tensors is None:
        print(f"speed alone: no {' and '.join(USUAL_DATA)} here, no --tensors and --labels given")
    search = benchmark.batches == SEARCH
    benched = bench(benchmark, aloud if search else silent)
    print("\n".join([printed(benched.rows), *(f"note: {remark}" for remark in benched.remarks)]))
    written = f"{benched.folder}/{CSV} and {JSON}"
    length = f"{benchmark.loop} runs" if benchmark.duration is None else f"{benchmark.duration:g} s"
    print(f"chip {benchmark.chip}, {length} a row, * is the fastest; written to {written}")
    if search:
        print("the fastest, to use and to measure again:")
        for command in commands(benched.fastest, benchmark):
            print(f"  {command}{f' --threads={options.threads}' if options.threads else ''}")
    for profile in benched.profiles:
        print(f"\n{printed_profile(profile)}")
    if not options.no_report:
        draw_where_possible(benched.folder)
    return 0


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(prog="bench.sh", description=__doc__)
    take(parser, "batches", positional=True, note="auto looks for the fastest")
    take(parser, "chip", positional=True, note="like 310P3, cpu, cuda, ncnn, or auto")
    parser.answer_to(
        ["--model"],
        parser.add_argument(
            "--prefix",
            default=PREFIX,
            metavar="PREFIX",
            help="models are PREFIX_bs<N>.om, or PREFIX_dyn.om [%(default)s]",
        ),
    )
    take(parser, "dynamic-batch")
    take(parser, "tensors", note="prep_dataset, if there", old=["--input"])
    take(parser, "labels", note="val_label.txt, if there")
    length = parser.add_mutually_exclusive_group()
    take(parser, "loop", group=length, note=f"{USUAL_LOOP}, in each process or instance")
    take(parser, "duration", group=length, note="as --loop says")
    take(parser, "warmup", default=1)
    take(parser, "device", several=True, default=[0], note="0; several NPUs share the data")
    parser.add_argument(
        "--processes",
        type=each(positive),
        metavar="N[,N…]",
        help="on each device side by side in the speed measurement, a row for each N; on cpu they share the cores [1]",
    )
    take(parser, "instances", several=True, note="1; on cpu or ncnn, a row for each N; auto: by the runtime")
    parser.add_argument("--profile", action="store_true", help="then time every operator: msprof, OpenVINO's counters")
    take(parser, "output", default="bench", old=["--output-dir"])
    take(parser, "images", note="none; those behind the tensors, for the report")
    parser.add_argument("--no-report", action="store_true", help="draw no report.html")
    take(parser, "threads")
    return parser


def _data(options: argparse.Namespace) -> tuple[str | None, str | None]:
    """--tensors and --labels as given, else the usual names where both are there, else none."""
    if options.tensors or options.labels:
        return options.tensors, options.labels
    if all(map(os.path.exists, USUAL_DATA)):
        return USUAL_DATA
    return None, None


if __name__ == "__main__":
    run(main)
