"""Stage 4 on this machine: runs a tensor folder through an engine, as `python -m ais_bench` does on an Ascend host.

Flags, files, names, padding, summary and printed lines follow ais_bench (contract: ais_bench). A `.om` is handed to
ais_bench itself.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

from ResNeSt.common import cann_libraries
from ResNeSt.common.arguments import Parser, batch_size, positive, write_result
from ResNeSt.common.errors import ArgumentError, run
from ResNeSt.common.flags import take
from ResNeSt.common.progress import aloud
from ResNeSt.engines.engine import check_named
from ResNeSt.engines.opening import NAMES
from ResNeSt.infer import ais_bench
from ResNeSt.infer.client import check_run, make_output_folder
from ResNeSt.infer.inference import OUTPUT_FORMATS, PURE_DATA, Inference, Inferred, infer, statistics
from ResNeSt.infer.side_by_side import infer_side_by_side
from ResNeSt.models import sidecar
from ResNeSt.tensors.folder import refuse_for_ais_bench


def make_parser() -> Parser:
    """ais_bench's flags as far as one static classifier needs them, and some of our own at the end."""
    flags = Parser(
        prog="python -m ResNeSt.infer",
        description=__doc__,
        example="python -m ResNeSt.infer --model work/resnest_demo/resnest_demo_bs4.xml "
        "--tensors work/resnest_demo/prep_dataset --output work --output_dirname inferred",
    )
    take(flags, "model", "-m", required=True, old=["--om-model"])
    take(flags, "tensors", "--input", "-i", note="a pure speed run")
    take(flags, "output", "-o", note="none written")
    flags.add_argument(
        "--output_dirname", "--output-dirname", metavar="NAME", help="folder below --output [date and time]"
    )
    flags.add_argument("--outfmt", default="BIN", choices=OUTPUT_FORMATS, help="format of the results [BIN]")
    take(flags, "loop", default=1)
    take(flags, "warmup", "--warmup_count", "--warmup-count", default=1)
    shown_batch = flags.add_argument(
        "--batchsize",
        type=positive,
        metavar="N",
        help="changes the throughput printed, nothing else [the model's]",
    )
    flags.answer_to(["--batch-size"], shown_batch)
    take(flags, "batch", "--dymBatch", "--dym-batch", note="the model's; needed where that is free")
    take(flags, "device", several=True, default=[0], note="0; 0,0 is two processes of a pure run; of cpu it is 0")
    _add_switch(flags, "--divide_input", "for a pure run the same as without [False]")
    flags.add_argument(
        "--pure_data_type", "--pure-data-type", default="zero", choices=PURE_DATA, help="data of a pure run [zero]"
    )
    _add_switch(flags, "--display_all_summary", "prints the copy times too [False]")
    take(flags, "engine", choices=NAMES, note="by the model's suffix")
    take(flags, "arch", note="as the file tells")
    take(flags, "instances", default=1)
    take(flags, "threads")
    take(flags, "ema")
    return flags


def _add_switch(flags: Parser, name: str, text: str) -> None:
    """One that takes a value, as in ais_bench 0.0.2, or none, as in 0.1.0."""
    dashes = f"--{name[2:].replace('_', '-')}"
    flags.add_argument(name, dashes, type=_flag, nargs="?", const=True, default=False, metavar="BOOL", help=text)


def _flag(text: str) -> bool:
    known = {"true": True, "1": True, "t": True, "y": True, "yes": True}
    known.update({"false": False, "0": False, "f": False, "n": False, "no": False})
    if text.lower() not in known:
        raise argparse.ArgumentTypeError(f"{text!r} is neither True nor False")
    return known[text.lower()]


def main() -> int:
    """Runs the command line."""
    _hand_over_om()
    options = make_parser().parse_args()
    devices = options.device
    if len(set(devices)) > 1:
        raise ArgumentError(
            f"--device {','.join(map(str, devices))}: a run is on one device; on cpu there is device 0 only"
        )
    inference = Inference(
        model=options.model,
        tensors=options.tensors,
        output=options.output,
        dirname=options.output_dirname,
        outfmt=options.outfmt,
        loop=options.loop,
        warmup=options.warmup,
        batch=options.batch,
        shown_batch=options.batchsize,
        pure_data=options.pure_data_type,
        all_times=options.display_all_summary,
        engine=options.engine,
        device=devices[0],
        arch=options.arch,
        ema=options.ema,
        instances=options.instances,
        arguments=sys.argv,
    )
    say = aloud if options.quiet else _say
    count = len(devices)
    inferred = infer_side_by_side(inference, count, say) if count > 1 else [infer(inference, say)]
    rate = sum(each.throughput for each in inferred)
    if options.quiet:
        print(f"{rate:.2f} images/s")
    sources = {"model": options.model, "tensors": options.tensors}
    write_result(options, {**sources, "images_per_second": rate, "processes": list(map(_figures, inferred))})
    return 0


def _figures(inferred: Inferred) -> dict[str, Any]:
    """Where the outputs of a process lie, and its times as ais_bench's summary tells them."""
    told = dataclasses.asdict(inferred)
    return {**told, "times_ms": statistics(told["times_ms"])}


def _hand_over_om() -> None:
    """Becomes ais_bench, with every argument as that one spells it, where the model is a `.om`."""
    asked = Parser(add_help=False)
    asked.add_argument("--model", "--om-model", "-m", default="")
    asked.add_argument("--input", "--tensors", "-i", default="")
    asked.add_argument("--output", "-o")
    asked.add_argument("--output_dirname", "--output-dirname")
    asked.add_argument("--json")
    asked.add_argument("--quiet", action="store_true")
    asked.add_argument("--loop", "-l", default="1")
    asked.add_argument("--dymBatch", "--dym-batch", "--batch", type=batch_size)
    options = asked.parse_known_args()[0]
    if not options.model.endswith(".om"):
        return
    if options.json or options.quiet:
        raise ArgumentError(
            "--json and --quiet are not for a .om, which ais_bench runs: its figures are in the summary beside the "
            "folder of the results; bench.sh has both flags"
        )
    model = Path(options.model)
    check_named(model, sidecar.sizes_of(model), options.dymBatch)
    tensors = [options.input] if os.path.isdir(options.input) else list(filter(None, options.input.split(",")))
    for path in tensors:
        refuse_for_ais_bench(path)  # wherever it would run
    client = ais_bench.find(model)
    if not cann_libraries.has_library(client.environment):
        ais_bench.check_starts(model, client)
    dirnames = [options.output_dirname] if options.output_dirname else []
    check_run([model], tensors, options.output, dirnames, int(options.loop) if options.loop.isdecimal() else 1)
    if options.output:
        make_output_folder(options.output)  # one that ais_bench makes itself, it refuses the next time
    sys.stdout.flush()
    command = client.command(sys.argv[1:])
    os.execve(command[0], command, client.environment)  # noqa: S606 (no shell is meant)


def _say(line: str) -> None:
    print(f"[INFO] {line}", flush=True)


if __name__ == "__main__":
    run(main)
