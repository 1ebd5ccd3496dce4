"""Draws report.html again, or on a machine with matplotlib, from the report.json that bench.sh or run.sh wrote."""

from __future__ import annotations

import argparse
from pathlib import Path

from ResNeSt.common.errors import run
from ResNeSt.report.draw import draw


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m ResNeSt.report", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="what bench.sh or run.sh wrote")
    parser.add_argument("--images", type=Path, metavar="DIR", help="of the pictures [as the run named it]")
    options = parser.parse_args()
    print(f"to look at: {draw(options.folder, options.images)}")


if __name__ == "__main__":
    run(main)
