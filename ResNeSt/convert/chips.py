"""Chips: the names ATC takes (`--soc_version` without the prefix Ascend), `cpu`, and finding out by npu-smi.

Source of the names and of npu-smi's tables: CANN's documentation of ATC, and tables printed by real machines.
"""

from __future__ import annotations

import difflib
import re
import shutil
import subprocess
import sys

from ResNeSt.common.errors import ArgumentError, PipelineError

CPU = "cpu"
CHIPS = (
    *("310", "310P1", "310P3", "310P5", "310P7", "310B1", "310B2", "310B3", "310B4", "610", "610Lite"),
    *("910A", "910B", "910ProA", "910ProB", "910PremiumA", "910B1", "910B2", "910B2C", "910B3", "910B4", "910B4-1"),
    *("910_9362", "910_9372", "910_9381", "910_9382", "910_9391", "910_9392"),
)
_BY_LOWER_CASE = {chip.lower(): chip for chip in CHIPS}

ASCEND_PRECISIONS = ("fp16", "fp32", "mixed", "int8")
CPU_PRECISIONS = ("fp32", "bf16", "int8")

# The first row of a card: number and name | health. The second row has numbers below 100 in place of the name, or
# nothing; the process table has a number in place of the health.
_CARD_ROW = re.compile(r"^\s*\|\s*(\d+)\s+([\w-]{3,})\s*\|\s*[A-Za-z]+\s*\|", re.MULTILINE)


def resolve(chip: str) -> str:
    """`cpu`, or a chip's name as CANN spells it, without the prefix Ascend; `auto` asks npu-smi, else it is `cpu`.

    Raises ArgumentError for a name that ATC does not know, PipelineError where the machine's card has such a name.
    """
    if chip.lower() == "auto":
        return detect()
    if chip.lower() == CPU:
        return CPU
    known = _known(chip)
    if known is None:
        raise ArgumentError(f"unknown chip {chip!r}; {_suggestion(chip)}, or cpu, or auto")
    return known


def precision(wanted: str | None, chip: str) -> str:
    """The precision to compile for on `chip`, its default if `wanted` is None; raises ArgumentError if it has none."""
    allowed = CPU_PRECISIONS if chip == CPU else ASCEND_PRECISIONS
    if wanted is None:
        return allowed[0]
    if wanted not in allowed:
        raise ArgumentError(f"--precision {wanted} is not for {chip}; it takes {', '.join(allowed)}")
    return wanted


def detect() -> str:
    """The chip of the first card that npu-smi lists, since that is the one inference runs on; `cpu` without one."""
    if shutil.which("npu-smi") is None:
        return CPU
    card = _CARD_ROW.search(_npu_smi("info"))
    if card is None:
        print("note: npu-smi lists no card, so the chip is cpu", file=sys.stderr)
        return CPU
    number, name = card.groups()
    chip = _known(name) or _known(_board_name(number))
    if chip is None:
        raise PipelineError(f"npu-smi calls the chip of card {number} {name!r}, unknown here; name it yourself")
    return chip


def _known(name: str) -> str | None:
    return _BY_LOWER_CASE.get(_bare(name))


def _bare(name: str) -> str:
    lower = name.strip().lower()
    return lower[len("ascend") :] if lower.startswith("ascend") else lower


def _suggestion(name: str) -> str:
    near = difflib.get_close_matches(_bare(name), _BY_LOWER_CASE, n=5, cutoff=0.7)
    suggested = [_BY_LOWER_CASE[match] for match in near]
    return f"near it: {', '.join(suggested)}" if suggested else f"known: {', '.join(CHIPS)}"


def _board_name(card: str) -> str:
    """The exact name on A3 machines, whose table says Ascend910 only: `Chip Name` and `NPU Name` of the board."""
    board = _npu_smi("info", "-t", "board", "-i", card, "-c", "0")
    fields = dict(re.findall(r"^\s*(Chip Name|NPU Name)\s*:\s*(\S+)\s*$", board, re.MULTILINE))
    return "_".join(fields[key] for key in ("Chip Name", "NPU Name") if key in fields)


def _npu_smi(*arguments: str) -> str:
    """What npu-smi prints; nothing where it fails, as it does in a container without the driver."""
    command = ["npu-smi", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL)
    return result.stdout if result.returncode == 0 else ""
