"""What ATC says where it fails, and what to do about it.

Codes and messages are those of CANN 5 to 9 (contract ATC); where its operator builder, a Python program, fails, ATC has
no code of its own for it.
"""

from __future__ import annotations

import re
import sys

from ResNeSt.common import cann_libraries
from ResNeSt.common.arguments import variable
from ResNeSt.common.cann import DRIVER_LIBRARY
from ResNeSt.common.errors import ArgumentError, plain
from ResNeSt.common.tool import Ended
from ResNeSt.convert.host import PACKAGES, pip_line

MOST_PROCESSES, PROCESSES = 32, 8  # TE_PARALLEL_COMPILER at most, and where it is not set
SHOWN_LINES = 10

_ANY = "--log error shows all that it says, --check what this host lacks"
_HINTS = {
    "E10001": "a value is refused: does this CANN release know the chip and every option (atc --help)?",
    "E10016": "the graph has no such node or input: was the .onnx exported by resnest_pth2onnx.py?",
    "E10041": "the file cannot be loaded: is it whole, and may ATC read it?",
    "E10054": "an option is empty: run with --dry-run to see the command",
    "E16002": "no parser for an operator: export at opset 11, which every CANN release takes",
    "E16005": "two operator sets in one file: export again with resnest_pth2onnx.py",
    "E19010": "no parser for an operator: export at opset 11, which every CANN release takes",  # up to CANN 8
    "EC0010": "the operator builder does not start: run with --check to see what its Python lacks",
    "EZ3003": "the chip has no kernel for an operator in this precision: use --precision fp16 or mixed",
    "EZ9999": f"an inner error of CANN's: {_ANY}",
}
_CODE = re.compile(r"\b(E[0-9A-Z]\d{4})\b")
_LACKS = re.compile(r"No module named '?([A-Za-z_][\w.]*)")
_NUMPY_2 = re.compile(r"was removed in the NumPy 2")
# Of CANN's own, which its environment script puts on PYTHONPATH.
_OF_CANN = {"te", "tbe", "te_fusion", "tbe_bus", "auto_tune", "schedule_search", "opc_tool", "hccl", "impl", "op_gen"}


def processes() -> int:
    """How many operators ATC builds at a time; raises ArgumentError where TE_PARALLEL_COMPILER is no such number."""
    return variable("TE_PARALLEL_COMPILER", PROCESSES, least=1, most=MOST_PROCESSES)


def explain(ended: Ended) -> str:
    """Prints ATC's own lines about the reason, or its last ones; returns how it ended, and what to do."""
    lines = plain(ended.output).splitlines()
    reasons = [line for line in lines if _CODE.search(line) or line.lstrip().startswith("Solution:")]
    error = _python_error(lines)
    shown = [*(reasons or lines[-SHOWN_LINES:]), *([error] if error else [])]
    if any(map(str.strip, shown)):
        print("\n".join(shown), file=sys.stderr)
    if ended.signal == "SIGKILL":
        return f"was killed ({ended.code}, SIGKILL), most likely for want of memory; {_fewer()}"
    codes = [match[1] for line in reasons for match in [_CODE.search(line)] if match]
    codes.sort(key=lambda code: code == "EZ9999")  # which says least
    known = next((f"{code}: {_HINTS[code]}" for code in codes if code in _HINTS), None)
    hint = _library("\n".join(shown)) or _missing([*reasons, error or ""]) or known or _ANY
    said = f"its Python says {error}" if error else None
    return "; ".join(filter(None, [f"failed ({ended})", said, hint]))


def _fewer() -> str:
    try:
        now = processes()
    except ArgumentError as refused:
        return str(refused)
    if now == 1:
        return "it built one operator at a time already: end other programs, or take a machine with more memory"
    few = max(1, now // 4)
    return f"it built {now} operators at a time: export TE_PARALLEL_COMPILER={few} and run the same command again"


def _library(text: str) -> str | None:
    """What to do for a library that is not found, by ATC itself or by its Python."""
    name = cann_libraries.library_in(text)
    if name == DRIVER_LIBRARY:
        return f"{name} is not found, the driver's: install it, or put devlib of CANN's <arch>-linux on LD_LIBRARY_PATH"
    return f"{name} is not found: source CANN's set_env.sh in this shell, or CANN is not whole" if name else None


def _missing(lines: list[str]) -> str | None:
    """What to install for a module that the operator builder does not find."""
    text = "\n".join(lines)
    found = _LACKS.search(text)
    if found is not None:
        module = next((name for name in PACKAGES if f"{found[1]}.".startswith(f"{name}.")), found[1].split(".")[0])
        if module in _OF_CANN:
            return f"{module} is a part of CANN: source its set_env.sh in this shell"
        if module == "google":
            module = "google.protobuf"
        return f"its python3 lacks {PACKAGES.get(module, module)}: {pip_line([module])}"
    return "NumPy 2 is too new for this CANN: python3 -m pip install 'numpy<2'" if _NUMPY_2.search(text) else None


def _python_error(lines: list[str]) -> str | None:
    """The last line of the last Python traceback: the error, after the indented lines of the stack."""
    starts = [number for number, line in enumerate(lines) if "Traceback (most recent call last):" in line]
    if not starts:
        return None
    indent = len(lines[starts[-1]]) - len(lines[starts[-1]].lstrip())
    rest = (line for line in lines[starts[-1] + 1 :] if line.strip())
    return next((line.strip()[:300] for line in rest if len(line) - len(line.lstrip()) <= indent), None)
