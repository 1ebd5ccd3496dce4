"""Chips: the names ATC takes (`--soc_version` without the prefix Ascend), `cpu`, `cuda`, `ncnn`, and finding out.

Source of the names and of npu-smi's tables: CANN's documentation of ATC, and tables printed by real machines. New chips
come with every release, so a name that is not among them is taken too, if it is formed like them; ATC knows.
"""

from __future__ import annotations

import difflib
import re
import shutil
import subprocess
import sys

from ResNeSt.common import cann
from ResNeSt.common.errors import ArgumentError, PipelineError, plain
from ResNeSt.models import model_info

CPU, CUDA = "cpu", model_info.CUDA
NCNN = "ncnn"  # the CPU of a phone or board, by the runtime of that name
CHIPS = (
    *("310", "310P1", "310P3", "310P5", "310P7", "310B1", "310B2", "310B3", "310B4", "610", "610Lite"),
    *("910A", "910B", "910ProA", "910ProB", "910PremiumA", "910B1", "910B2", "910B2C", "910B3", "910B4", "910B4-1"),
    *("910_9362", "910_9372", "910_9381", "910_9382", "910_9391", "910_9392"),
)
_BY_LOWER_CASE = {chip.lower(): chip for chip in CHIPS}
# Three digits, a letter and what follows, and parts after _ or -: 310P3, 610Lite, 910B4-1, 910_9392, 950PR_9589.
_NAME = re.compile(r"(?=.{3,32}\Z)\d{3}(?:[A-Z][A-Z0-9]*)?(?:[_-][A-Z0-9]+)*", re.ASCII | re.IGNORECASE)
_SERIES = {"910", "950pr", "950dt"}  # what npu-smi's table shows where the board alone knows the rest of the name

ASCEND_PRECISIONS = ("fp16", "fp32", "mixed", "int8")
PRECISIONS = {CPU: ("fp32", "bf16", "int8"), CUDA: ("fp32", "fp16"), NCNN: ("fp32", "fp16")}  # of what is no NPU
SUFFIXES = {CPU: "xml", CUDA: "onnx", NCNN: "ncnn.param"}  # of what is compiled for it; for an NPU it is `om`

# The first row of a card: number and name | health. The second row has numbers below 100 in place of the name, or
# nothing; the process table has a number in place of the health.
_CARD_ROW = re.compile(r"^\s*\|\s*(\d+)\s+([\w-]{3,})\s*\|\s*[A-Za-z]+\s*\|", re.MULTILINE)
_USED = "-8020"  # of npu-smi, where another container or process holds the card
SECONDS = 30  # for npu-smi; a driver that hangs never answers


class NoCardError(PipelineError):
    """npu-smi shows no card of this machine."""


def resolve(chip: str) -> str:
    """`cpu`, `cuda`, `ncnn`, or a chip's name as CANN spells it, without Ascend; `auto` asks npu-smi, else it is `cpu`.

    A name that is not on record is left as it is typed, but for its series. Raises ArgumentError for one that is formed
    like no chip's, PipelineError where there is a card and npu-smi does not tell its name.
    """
    if chip.lower() == "auto":
        return detect()
    if not is_ascend(chip.lower()):
        return chip.lower()
    named = _named(chip)
    if named is None:
        raise ArgumentError(
            f"unknown chip {chip[:40]!r}; {_suggestion(chip)}, or cpu, cuda, ncnn or auto, or another name as ATC's "
            "--soc_version has it"
        )
    return named


def doubt(chip: str) -> str | None:
    """What to say of a chip that is not on record here, None of one that is."""
    if not is_ascend(chip) or chip in CHIPS:
        return None
    near = _near(chip)
    like = f"; near it: {', '.join(near)}" if near else ""
    return f"chip {chip} is not on record here{like}; ATC ends with E10001 if its release does not know it"


def precision(wanted: str | None, chip: str) -> str:
    """The precision to compile for on `chip`, its default if `wanted` is None; raises ArgumentError if it has none."""
    allowed = PRECISIONS.get(chip, ASCEND_PRECISIONS)
    if wanted is None:
        return allowed[0]
    if wanted not in allowed:
        raise ArgumentError(f"--precision {wanted} is not for {chip}; it takes {', '.join(allowed)}")
    return wanted


def is_ascend(chip: str) -> bool:
    """Whether it is an NPU; models for the others run on what this machine has without one."""
    return chip not in PRECISIONS


def has_cards(chip: str) -> bool:
    """Whether it is one of several, with a number, on which models run beside each other as processes."""
    return is_ascend(chip) or chip == CUDA


def is_310p(chip: str) -> bool:
    """Whether it is one of the series 310P."""
    return chip.upper().startswith("310P")


def detect() -> str:
    """The chip of the first card that npu-smi lists, since that is the one inference runs on; `cpu` without one.

    Raises PipelineError where there is a card and npu-smi does not tell its name.
    """
    try:
        if shutil.which("npu-smi") is not None:
            return card()
        why = "npu-smi is not here, but CANN is" if cann.find_toolkit() else ""
    except NoCardError as error:
        why = str(error)
    if why:
        print(f"note: {why}, so the chip is cpu; name the chip if this machine has a card", file=sys.stderr)
    return CPU


def card() -> str:
    """The chip of the first card that npu-smi lists.

    Raises NoCardError without one, PipelineError where it is used by others, hangs, or does not tell the chip's name.
    """
    code, output = _npu_smi("info")
    found = _CARD_ROW.search(output) if code == 0 else None
    if found is None:
        last = next((line.strip() for line in reversed(plain(output).splitlines()) if line.strip()), "nothing")
        if _USED in output:
            raise PipelineError(f"npu-smi: {last[:200]}; end what holds the card, or name the chip yourself")
        how = f"exit code {code}: {last[:200]}" if code else f"it ends with {last[:80]!r}"
        raise NoCardError(f"npu-smi lists no card ({how})")
    number, name = found.groups()
    chip = _known(name) or _named(_board_name(number)) or _named(name)
    if chip is None or chip.lower() in _SERIES:
        raise PipelineError(f"npu-smi calls the chip of card {number} {name!r}, unknown here; name it yourself")
    return chip


def _named(name: str) -> str | None:
    """The chip of this name, as CANN spells it or else as it stands; None where it is formed like none."""
    bare = _bare(name)
    spelled = re.sub(r"^950(pr|dt)", lambda series: series[0].upper(), bare, flags=re.IGNORECASE)
    return _known(name) or (spelled if _NAME.fullmatch(bare) else None)


def _known(name: str) -> str | None:
    return _BY_LOWER_CASE.get(_bare(name).lower())


def _bare(name: str) -> str:
    return name[len("ascend") :] if name.lower().startswith("ascend") else name


def _near(name: str) -> list[str]:
    near = difflib.get_close_matches(_bare(name)[:40].lower(), _BY_LOWER_CASE, n=5, cutoff=0.7)
    return [chip for chip in CHIPS if chip.lower() in near]


def _suggestion(name: str) -> str:
    near = _near(name)
    return f"near it: {', '.join(near)}" if near else f"known: {', '.join(CHIPS)}"


def _board_name(card: str) -> str:
    """The exact name where the table has that of a series only: `Chip Name` and `NPU Name` of the board.

    A3 machines want the number of the chip on the card, 950 takes none.
    """
    fields: dict[str, str] = {}
    for chip in (["-c", "0"], []):
        _, board = _npu_smi("info", "-t", "board", "-i", card, *chip)
        fields = {**dict(re.findall(r"^\s*(Chip Name|NPU Name)\s*:\s*(\S+)\s*$", board, re.MULTILINE)), **fields}
        if len(fields) == 2:
            break
    return "_".join(fields[key] for key in ("Chip Name", "NPU Name") if key in fields)


def _npu_smi(*arguments: str) -> tuple[int, str]:
    """Exit code of npu-smi and what it prints; raises PipelineError where the time is up."""
    try:
        result = subprocess.run(
            ["npu-smi", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise PipelineError(f"npu-smi does not answer within {SECONDS} seconds; name the chip yourself") from None
    except OSError as error:
        raise NoCardError(f"npu-smi cannot be run ({error.strerror})") from None
    return result.returncode, result.stdout
