"""ONNX -> MINDIR, MindSpore's file format, through MindSpore itself; loaded again and compared with ONNX Runtime.

pip install -r requirements/mindspore.txt       # a virtual environment of its own: MindSpore wants NumPy 1
python -m ResNeSt.mindir --onnx resnest50.onnx --target resnest50.mindir
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ResNeSt.common.arguments import Parser
from ResNeSt.common.errors import run
from ResNeSt.common.flags import take
from ResNeSt.mindir.to_mindir import export


def main() -> None:
    """Parses the command line, exports, prints what was written."""
    options = make_parser().parse_args()
    target = options.target or options.onnx.with_suffix(".mindir")
    same = export(options.onnx, target, options.batch)
    print(
        f"{target}: exported from {options.onnx}, batch {options.batch or 'free'}, {target.stat().st_size:,} bytes; "
        f"differs from ONNX Runtime by {same.difference:.1e} of the largest logit"
    )
    if same.note:
        print(f"note: {same.note}")


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(
        prog="python -m ResNeSt.mindir", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    take(parser, "onnx", type=Path, required=True)
    take(parser, "target", type=Path, note="the same name, .mindir")
    take(parser, "batch", note="free")
    return parser


if __name__ == "__main__":
    run(main)
