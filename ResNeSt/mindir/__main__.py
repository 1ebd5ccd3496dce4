"""ONNX -> MINDIR, MindSpore's file format, through MindSpore itself; loaded again and compared with ONNX Runtime.

It takes requirements/mindspore.txt, in a virtual environment of its own: MindSpore wants NumPy 1.
"""

from __future__ import annotations

from pathlib import Path

from ResNeSt.common.arguments import Parser, write_result
from ResNeSt.common.errors import run
from ResNeSt.common.flags import take
from ResNeSt.common.progress import aloud, remark
from ResNeSt.mindir.to_mindir import export


def main() -> None:
    """Parses the command line, exports, prints what was written."""
    options = make_parser().parse_args()
    target = options.target or options.onnx.with_suffix(".mindir")
    same = export(options.onnx, target, options.batch)
    aloud(
        f"{target}: exported from {options.onnx}, batch {options.batch or 'free'}, {target.stat().st_size:,} bytes; "
        f"differs from ONNX Runtime by {same.difference:.1e} of the largest logit"
    )
    if same.note:
        remark(same.note)
    told = {"onnx": options.onnx, "target": target, "batch": options.batch}
    write_result(options, {**told, "difference": same.difference, "note": same.note})


def make_parser() -> Parser:
    """The command line."""
    example = "python -m ResNeSt.mindir --onnx work/resnest_demo/resnest_demo.onnx --target work/resnest_demo.mindir"
    parser = Parser(prog="python -m ResNeSt.mindir", description=__doc__, example=example)
    take(parser, "onnx", type=Path, required=True)
    take(parser, "target", type=Path, note="the same name, .mindir")
    take(parser, "batch", note="free")
    return parser


if __name__ == "__main__":
    run(main)
