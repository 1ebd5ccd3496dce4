"""Draws report.html again, or on a machine with matplotlib, from the report.json that bench.sh or run.sh wrote."""

from __future__ import annotations

from pathlib import Path

from ResNeSt.common.arguments import Parser, hold_json, write_result
from ResNeSt.common.errors import run
from ResNeSt.common.flags import take
from ResNeSt.common.progress import aloud
from ResNeSt.report import data
from ResNeSt.report.draw import draw


def main() -> None:
    """Command line."""
    options = make_parser().parse_args()
    recorded = data.read(options.folder).images
    hold_json(options, [recorded] if recorded else [])
    page = draw(options.folder, options.images)
    aloud(f"to look at: {page}")
    write_result(options, {"page": page})


def make_parser() -> Parser:
    """The command line."""
    example = "python -m ResNeSt.report work/resnest_demo"
    parser = Parser(prog="python -m ResNeSt.report", description=__doc__, example=example)
    parser.reads("folder", type=Path, metavar="FOLDER", help="what bench.sh or run.sh wrote")
    take(parser, "images", type=Path, note="as the run named it")
    return parser


if __name__ == "__main__":
    run(main)
