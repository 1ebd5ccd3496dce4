"""Command line of resnest_pth2onnx.py: stage 2, checkpoint -> ONNX."""

from __future__ import annotations

import dataclasses

from ResNeSt.common.arguments import Parser, write_result
from ResNeSt.common.errors import ArgumentError, run
from ResNeSt.common.flags import take
from ResNeSt.common.progress import aloud, remark
from ResNeSt.export.to_onnx import FORMS, export
from ResNeSt.models.cards import card
from ResNeSt.models.checkpoint import card_for
from ResNeSt.models.download import fetch

DEFAULT_MODEL = "resnest50"


def main() -> None:
    """Parses the command line, exports, prints what was written."""
    options = make_parser().parse_args()
    if options.untrained == (options.weights is not None):
        raise ArgumentError("give either --source or --untrained")
    own = options.weights not in (None, "auto")
    model_card = card_for(options.weights, options.arch) if own else card(options.arch or DEFAULT_MODEL)
    source = fetch(model_card) if options.weights == "auto" else options.weights
    exported = export(model_card, source, options.target, options.size, options.opset, options.form, options.ema)
    aloud(
        f"{options.target}: {exported.model}, input N,3,{exported.size},{exported.size}, opset {exported.opset}, "
        f"{exported.form} form, {exported.weights or 'UNTRAINED random weights'}"
        f"{f' ({exported.entries})' if exported.entries else ''}; "
        f"differs from PyTorch by {exported.difference:.1e} of the largest logit"
    )
    if exported.note:
        remark(exported.note)
    told = dataclasses.asdict(exported)
    write_result(options, {"target": told.pop("path"), **told})


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(
        prog="resnest_pth2onnx.py",
        description="Stage 2: checkpoint -> ONNX.",
        example="python resnest_pth2onnx.py --source demo/resnest_demo-d78f3683.pth --target work/exported.onnx",
    )
    take(parser, "weights", "--source", note="or --untrained")
    take(parser, "target", required=True)
    take(parser, "arch", note=f"by --weights; {DEFAULT_MODEL} with auto", old=["--model"])
    take(parser, "size", note="the model's own")
    parser.add_argument(
        "--opset", type=int, default=11, metavar="N", help="ONNX operator set [11, which every CANN release takes]"
    )
    parser.add_argument(
        "--form", choices=list(FORMS), default="deploy", help="deploy: rewritten for speed [%(default)s]"
    )
    parser.add_argument(
        "--untrained", action="store_true", help="seeded random weights, to measure speed without a checkpoint"
    )
    take(parser, "ema")
    take(parser, "threads")
    return parser


if __name__ == "__main__":
    run(main)
