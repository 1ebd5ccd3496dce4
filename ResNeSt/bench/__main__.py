"""Stage 4, for every batch size the accuracy of the compiled model and pure-loop speed runs, as a table."""

from __future__ import annotations

import argparse
import os

from ResNeSt.bench.benchmark import SEARCH, USUAL_LOOP, Benchmark, bench, checked
from ResNeSt.bench.best import commands
from ResNeSt.bench.models import PREFIX
from ResNeSt.bench.profile import printed as printed_profile
from ResNeSt.bench.rows import CSV, JSON, printed
from ResNeSt.common.arguments import Parser, add_threads_flag, device, each, instances, positive
from ResNeSt.common.errors import run
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
            prefix=options.model,
            tensors=tensors,
            labels=labels,
            loop=options.loop,
            duration=options.duration,
            warmup=options.warmup,
            devices=options.device,
            processes=options.processes,
            instances=options.instances,
            folder=options.output_dir,
            images=options.images,
            keep_report=options.no_report,
            profile=options.profile,
            dynamic_batch=options.dynamic_batch,
        )
    )
    if tensors is None:
        print(f"speed alone: no {' and '.join(USUAL_DATA)} here, no --input and --labels given")
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
    parser.add_argument(
        "batches", metavar="BATCHES", help="batch sizes, like 1,4,8, or auto, which looks for the fastest"
    )
    parser.add_argument("chip", metavar="CHIP", help="a chip like 310P3, cpu, cuda, ncnn, or auto")
    parser.add_argument("--model", default=PREFIX, metavar="PREFIX", help="models are PREFIX_bs<N>.om [%(default)s]")
    parser.add_argument("--dynamic-batch", action="store_true", help="the one model PREFIX_dyn.om takes all of BATCHES")
    parser.reads("--input", metavar="DIR", help="tensors of stage 1 [prep_dataset, if there]")
    parser.reads("--labels", metavar="FILE", help="for the accuracy [val_label.txt, if there]")
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--loop", type=positive, help=f"runs of the speed measurement, in each process or instance [{USUAL_LOOP}]"
    )
    length.add_argument("--duration", type=float, metavar="SECONDS", help="as many runs as fill this time instead")
    parser.add_argument("--warmup", type=int, default=1, metavar="N", help="uncounted runs before [%(default)s]")
    parser.add_argument(
        "--device",
        type=each(device),
        default=[0],
        metavar="N[,N…]",
        help="NPUs, which share the data, or a GPU [0]",
    )
    parser.add_argument(
        "--processes",
        type=each(positive),
        metavar="N[,N…]",
        help="on each device side by side in the speed measurement, a row for each N; on cpu they share the cores [1]",
    )
    parser.add_argument(
        "--instances",
        type=each(instances),
        metavar="N[,N…]",
        help="of the model in one process on cpu or ncnn, a row for each N; auto is what the runtime finds best [1]",
    )
    parser.add_argument("--profile", action="store_true", help="then time every operator: msprof, OpenVINO's counters")
    parser.fills("--output-dir", default="bench", metavar="DIR", help="[%(default)s]")
    parser.reads("--images", metavar="DIR", help="the pictures behind the tensors, for the report")
    parser.add_argument("--no-report", action="store_true", help="draw no report.html")
    add_threads_flag(parser)
    return parser


def _data(options: argparse.Namespace) -> tuple[str | None, str | None]:
    """--input and --labels as given, else the usual names where both are there, else none."""
    if options.input or options.labels:
        return options.input, options.labels
    if all(map(os.path.exists, USUAL_DATA)):
        return USUAL_DATA
    return None, None


if __name__ == "__main__":
    run(main)
