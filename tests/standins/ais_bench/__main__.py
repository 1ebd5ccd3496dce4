"""`python -m ais_bench`, run under $STANDIN_PYTHON: the caller's interpreter may lack ONNX Runtime."""

from __future__ import annotations

import os
import sys

other = os.environ.pop("STANDIN_PYTHON", sys.executable)
if other != sys.executable:
    os.execv(other, [other, "-m", "ais_bench", *sys.argv[1:]])  # noqa: S606 - the interpreter, with arguments as a list

from ais_bench import boxes, version  # noqa: E402 - after the interpreter is the right one
from ais_bench.benchmark import main  # noqa: E402

if version.dashes():
    sys.excepthook = boxes.print_exception
sys.exit(main(sys.argv[1:]))
