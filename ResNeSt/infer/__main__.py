"""Stage 4 on this machine: runs a tensor folder through an engine, as `python -m ais_bench` does on an Ascend host.

Flags, files, names, padding, summary and printed lines follow ais_bench (contract: ais_bench). A `.om` is handed to
ais_bench itself.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from ResNeSt.common import cann_libraries
from ResNeSt.common.arguments import Parser, add_ema_flag, add_threads_flag, batch_size, device, instances, positive
from ResNeSt.common.errors import ArgumentError, run
from ResNeSt.engines.engine import check_named
from ResNeSt.engines.opening import CHECKPOINTS, NAMES
from ResNeSt.infer import ais_bench
from ResNeSt.infer.client import check_run
from ResNeSt.infer.inference import OUTPUT_FORMATS, PURE_DATA, Inference, infer
from ResNeSt.infer.side_by_side import infer_side_by_side
from ResNeSt.models import sidecar
from ResNeSt.tensors.folder import refuse_for_ais_bench


def make_parser() -> Parser:
    """ais_bench's flags as far as one static classifier needs them, and some of our own at the end."""
    flags = Parser(prog="python -m ResNeSt.infer", description=__doc__, allow_abbrev=False)
    flags.reads(
        "--model",
        "-m",
        required=True,
        help=f"compiled model (.xml, .param, .onnx, or .om for ais_bench) or checkpoint ({', '.join(CHECKPOINTS)})",
    )
    flags.reads("--input", "-i", help="folder of tensors, or one tensor file [none: a pure speed run]")
    flags.fills("--output", "-o", help="folder for the results [none written]")
    flags.add_argument("--output_dirname", "--output-dirname", help="folder below --output [date and time]")
    flags.add_argument("--outfmt", default="BIN", choices=OUTPUT_FORMATS, help="format of the results [BIN]")
    flags.add_argument("--loop", type=positive, default=1, help="runs of every batch [1]")
    flags.add_argument("--warmup_count", "--warmup-count", type=int, default=1, help="uncounted runs first [1]")
    flags.add_argument("--batchsize", type=positive, help="changes the throughput printed, nothing else [the model's]")
    flags.add_argument("--dymBatch", type=batch_size, help="batch size, of a model that leaves it free")
    flags.add_argument("--device", default="0", help="of a GPU; of cpu it is 0; 0,0 is two processes of a pure run [0]")
    _add_switch(flags, "--divide_input", "for a pure run the same as without [False]")
    flags.add_argument(
        "--pure_data_type", "--pure-data-type", default="zero", choices=PURE_DATA, help="data of a pure run [zero]"
    )
    _add_switch(flags, "--display_all_summary", "prints the copy times too [False]")
    flags.add_argument("--engine", choices=NAMES, help="[by the model's suffix]")
    flags.add_argument("--arch", help="the network of a checkpoint whose file name does not tell it")
    flags.add_argument("--instances", type=instances, default=1, metavar="N|auto", help="of the model side by side [1]")
    add_threads_flag(flags)
    add_ema_flag(flags)
    return flags


def _add_switch(flags: Parser, name: str, text: str) -> None:
    """One that takes a value, as in ais_bench 0.0.2, or none, as in 0.1.0."""
    dashes = f"--{name[2:].replace('_', '-')}"
    flags.add_argument(name, dashes, type=_flag, nargs="?", const=True, default=False, help=text)


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
    devices = options.device.split(",")
    if len(set(devices)) > 1:
        raise ArgumentError(f"--device {options.device}: a run is on one device; on cpu there is device 0 only")
    inference = Inference(
        model=options.model,
        tensors=options.input,
        output=options.output,
        dirname=options.output_dirname,
        outfmt=options.outfmt,
        loop=options.loop,
        warmup=options.warmup_count,
        batch=options.dymBatch,
        shown_batch=options.batchsize,
        pure_data=options.pure_data_type,
        all_times=options.display_all_summary,
        engine=options.engine,
        device=device(devices[0]),
        arch=options.arch,
        ema=options.ema,
        instances=options.instances,
        arguments=sys.argv,
    )
    if len(devices) > 1:
        infer_side_by_side(inference, len(devices), _say)
    else:
        infer(inference, _say)
    return 0


def _hand_over_om() -> None:
    """Becomes ais_bench, with every argument as that one spells it, where the model is a `.om`."""
    asked = Parser(add_help=False, allow_abbrev=False)
    asked.add_argument("--model", "-m", default="")
    asked.add_argument("--input", "-i", default="")
    asked.add_argument("--output", "-o")
    asked.add_argument("--output_dirname", "--output-dirname")
    asked.add_argument("--loop", "-l", default="1")
    asked.add_argument("--dymBatch", "--dym-batch", type=batch_size)
    options = asked.parse_known_args()[0]
    if not options.model.endswith(".om"):
        return
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
    sys.stdout.flush()
    command = client.command(sys.argv[1:])
    os.execve(command[0], command, client.environment)  # noqa: S606 (no shell is meant)


def _say(line: str) -> None:
    print(f"[INFO] {line}", flush=True)


if __name__ == "__main__":
    run(main)
