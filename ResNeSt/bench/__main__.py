"""Stage 4, for every batch size the accuracy of the compiled model and pure-loop speed runs, as a table."""

from __future__ import annotations

import argparse
import os
from typing import Any

from ResNeSt.bench.benchmark import SEARCH, USUAL_LOOP, Benched, Benchmark, bench, checked
from ResNeSt.bench.best import commands
from ResNeSt.bench.models import PREFIX, models_here
from ResNeSt.bench.profile import printed as printed_profile
from ResNeSt.bench.rows import CSV, JSON, figures, printed
from ResNeSt.common.arguments import Parser, each, hold_json, positive, write_result
from ResNeSt.common.errors import run
from ResNeSt.common.files import read_json
from ResNeSt.common.flags import take
from ResNeSt.common.progress import aloud, remark, silent
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
    data = [path for path in (tensors, labels) if path]
    hold_json(options, [*data, *models_here(benchmark.prefix, benchmark.chip)])
    if tensors is None:
        lacking = " and ".join(path for path in USUAL_DATA if not os.path.exists(path))
        aloud(f"speed alone: no {lacking} here, no --tensors and --labels given")
    search = benchmark.batches == SEARCH
    benched = bench(benchmark, aloud if search else silent)
    print(printed(benched.rows))
    for note in benched.remarks:
        remark(note)
    written = f"{benched.folder}/{CSV} and {JSON}"
    length = f"{benchmark.loop} runs" if benchmark.duration is None else f"{benchmark.duration:g} s"
    aloud(f"chip {benchmark.chip}, {length} a row, * is the fastest; written to {written}")
    best = commands(benched.fastest, benchmark) if search else []
    if options.threads:
        best = [f"{command} --threads={options.threads}" for command in best]
    if search:
        print("\n".join(["the fastest, to use and to measure again:", *(f"  {command}" for command in best)]))
    for profile in benched.profiles:
        print(f"\n{printed_profile(profile)}")
    if not options.no_report:
        draw_where_possible(benched.folder)
    write_result(options, _result(benched, best))
    return 0


def _result(benched: Benched, best: list[str]) -> dict[str, Any]:
    """Where it was measured and how, as bench.json has it, and the rows; `best` are the commands a search ends with."""
    told = read_json(benched.folder / JSON)
    del told["runs"], told["finished"]
    rows = {"rows": figures(benched.rows), "fastest": benched.rows.index(benched.fastest), "commands": best}
    return {**told, "folder": benched.folder, **rows, "notes": benched.remarks, "profiles": benched.profiles}


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(
        prog="bench.sh",
        description=__doc__,
        example="bash bench.sh 1,4 cpu --prefix work/resnest_demo/resnest_demo --output work/bench "
        "--tensors work/resnest_demo/prep_dataset --labels demo/val_label.txt",
    )
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
        metavar="N[,…]",
        help="processes on each device side by side in the speed measurement, a row for each N [1; on cpu they share "
        "the cores]",
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
