"""Command line of resnest_pth2onnx.py: stage 2, checkpoint -> ONNX."""

from __future__ import annotations

import dataclasses

from ResNeSt.common.arguments import Parser, add_ema_flag, add_threads_flag, side
from ResNeSt.common.errors import ArgumentError, run
from ResNeSt.common.files import write_json
from ResNeSt.export.to_onnx import FORMS, export
from ResNeSt.models.cards import card, names
from ResNeSt.models.checkpoint import card_for
from ResNeSt.models.download import fetch

DEFAULT_MODEL = "resnest50"


def main() -> None:
    """Parses the command line, exports, prints what was written."""
    options = make_parser().parse_args()
    if options.untrained == (options.source is not None):
        raise ArgumentError("give either --source or --untrained")
    own = options.source not in (None, "auto")
    model_card = card_for(options.source, options.model, "--model") if own else card(options.model or DEFAULT_MODEL)
    source = fetch(model_card) if options.source == "auto" else options.source
    exported = export(model_card, source, options.target, options.size, options.opset, options.form, options.ema)
    print(
        f"{options.target}: {exported.model}, input N,3,{exported.size},{exported.size}, opset {exported.opset}, "
        f"{exported.form} form, {exported.weights or 'UNTRAINED random weights'}"
        f"{f' ({exported.entries})' if exported.entries else ''}; "
        f"differs from PyTorch by {exported.difference:.1e} of the largest logit"
    )
    if exported.note:
        print(f"note: {exported.note}")
    if options.json:
        told = dataclasses.asdict(exported)
        weights = None if exported.weights is None else str(exported.weights)
        write_json(options.json, {"target": str(told.pop("path")), **told, "weights": weights})


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(prog="resnest_pth2onnx.py", description="Stage 2: checkpoint -> ONNX.")
    parser.reads(
        "--source",
        "--weights",
        metavar="PTH",
        help="checkpoint (.pth, .safetensors, .ckpt of MindSpore, .pdparams of Paddle), or 'auto': fetch the official",
    )
    parser.writes("--target", metavar="ONNX", required=True, help="file to write")
    parser.reads_card(
        "--model",
        help=f"architecture [by the file; {DEFAULT_MODEL} without one]: {', '.join(names())}, or a card file",
    )
    parser.add_argument("--size", type=side, help="input size in pixels [the model's own]")
    parser.add_argument("--opset", type=int, default=11, help="ONNX operator set [11, which every CANN release takes]")
    parser.add_argument(
        "--form", choices=list(FORMS), default="deploy", help="deploy: rewritten for speed [%(default)s]"
    )
    parser.add_argument(
        "--untrained", action="store_true", help="seeded random weights, to measure speed without a checkpoint"
    )
    add_ema_flag(parser)
    parser.writes("--json", metavar="FILE", help="write what was exported here as well")
    add_threads_flag(parser)
    return parser


if __name__ == "__main__":
    run(main)
