"""Stage 4 on this machine: runs a tensor folder through an engine, as `python -m ais_bench` does on an Ascend host.

Flags, files, names, padding, summary and printed lines follow ais_bench (contract: ais_bench). A `.om` is handed to
ais_bench itself.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from pathlib import Path

from ResNeSt.common.arguments import Parser, add_ema_flag, add_threads_flag, batch_size, positive
from ResNeSt.common.errors import ArgumentError, MissingRuntimeError, run
from ResNeSt.engines.engine import check_named
from ResNeSt.engines.opening import CHECKPOINTS, NAMES
from ResNeSt.infer.client import check_om_tensors
from ResNeSt.infer.inference import OUTPUT_FORMATS, PURE_DATA, Inference, infer
from ResNeSt.infer.side_by_side import infer_side_by_side
from ResNeSt.models import sidecar
from ResNeSt.tensors.folder import refuse_packed


def parser() -> Parser:
    """ais_bench's flags as far as one static classifier needs them, and three of our own at the end."""
    flags = Parser(prog="python -m ResNeSt.infer", description=__doc__, allow_abbrev=False)
    flags.reads(
        "--model",
        "-m",
        required=True,
        help=f"compiled model (.xml, .onnx, or .om for ais_bench) or checkpoint ({', '.join(CHECKPOINTS)})",
    )
    flags.reads("--input", "-i", help="folder of tensors, or one tensor file [none: a pure speed run]")
    flags.fills("--output", "-o", help="folder for the results [none written]")
    flags.add_argument("--output_dirname", help="folder below --output [date and time]")
    flags.add_argument("--outfmt", default="BIN", choices=OUTPUT_FORMATS, help="format of the results [BIN]")
    flags.add_argument("--loop", type=positive, default=1, help="runs of every batch [1]")
    flags.add_argument("--warmup_count", type=int, default=1, help="uncounted runs first [1]")
    flags.add_argument("--batchsize", type=positive, help="changes the throughput printed, nothing else [the model's]")
    flags.add_argument("--dymBatch", type=batch_size, help="batch size, of a model that leaves it free")
    flags.add_argument("--device", default="0", help="there is one cpu: 0; 0,0 is two processes of a pure run [0]")
    flags.add_argument("--divide_input", type=_flag, default=False, help="for a pure run the same as without [False]")
    flags.add_argument("--pure_data_type", default="zero", choices=PURE_DATA, help="data of a pure run [zero]")
    flags.add_argument("--display_all_summary", type=_flag, default=False, help="prints the copy times too [False]")
    flags.add_argument("--engine", choices=NAMES, help="[by the model's suffix]")
    flags.add_argument("--arch", help="the network of a checkpoint whose file name does not tell it")
    add_threads_flag(flags)
    add_ema_flag(flags)
    return flags


def _flag(text: str) -> bool:
    known = {"true": True, "1": True, "t": True, "y": True, "yes": True}
    known.update({"false": False, "0": False, "f": False, "n": False, "no": False})
    if text.lower() not in known:
        raise argparse.ArgumentTypeError(f"{text!r} is neither True nor False")
    return known[text.lower()]


def main() -> int:
    """Runs the command line."""
    _hand_over_om()
    options = parser().parse_args()
    devices = options.device.split(",")
    if set(devices) != {"0"}:
        raise ArgumentError(f"--device {options.device}: on cpu there is device 0 only")
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
        arch=options.arch,
        ema=options.ema,
        arguments=sys.argv,
    )
    if len(devices) > 1:
        infer_side_by_side(inference, len(devices), _say)
    else:
        infer(inference, _say)
    return 0


def _hand_over_om() -> None:
    """Becomes ais_bench, with every argument as it is, where the model is a `.om`."""
    model = Parser(add_help=False, allow_abbrev=False)
    model.add_argument("--model", "-m", default="")
    model.add_argument("--input", "-i")
    model.add_argument("--dymBatch", "--dym-batch", type=batch_size)
    options = model.parse_known_args()[0]
    path = options.model
    if not path.endswith(".om"):
        return
    check_named(path, sidecar.sizes_of(Path(path)), options.dymBatch)
    if options.input:
        refuse_packed(options.input)
        check_om_tensors(Path(path), options.input)
    if importlib.util.find_spec("ais_bench") is None:
        raise MissingRuntimeError(
            f"{path}: ais_bench is not installed here; run this on an Ascend host (requirements/npu.txt says how to "
            "install it), or compile for cpu: bash convert.sh <batch> cpu"
        )
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "ais_bench", *sys.argv[1:]])  # noqa: S606 (no shell is meant)


def _say(line: str) -> None:
    print(f"[INFO] {line}", flush=True)


if __name__ == "__main__":
    run(main)
