"""Draws report.html again, or on a machine with matplotlib, from the report.json that bench.sh or run.sh wrote."""

from __future__ import annotations

from pathlib import Path

from ResNeSt.common.arguments import Parser
from ResNeSt.common.errors import run
from ResNeSt.common.flags import take
from ResNeSt.report.draw import draw


def main() -> None:
    """Command line."""
    options = make_parser().parse_args()
    print(f"to look at: {draw(options.folder, options.images)}")


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(prog="python -m ResNeSt.report", description=__doc__)
    parser.reads("folder", type=Path, metavar="FOLDER", help="what bench.sh or run.sh wrote")
    take(parser, "images", type=Path, note="as the run named it")
    return parser


if __name__ == "__main__":
    run(main)
