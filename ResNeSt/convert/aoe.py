"""Tuning for an Ascend chip: AOE tries variants of the operators on the card, and ATC compiles with the best of them.

Options, environment variables and the last line are those of CANN's documents on AOE, 8.0 to 9.0, and of contract ATC.
What it finds goes into a bank, a folder of JSON files beside the model; it takes no chip by name, since it measures on
the card of this machine.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ResNeSt.common import tool
from ResNeSt.common.cann import Toolkit
from ResNeSt.common.errors import MissingRuntimeError, PipelineError
from ResNeSt.common.files import remove_plain, sha256
from ResNeSt.convert import chips, failure, taken_paths
from ResNeSt.convert.finding import FAILS, NOTE, OK, Finding
from ResNeSt.models import sidecar
from ResNeSt.models.onnx_file import Network

PROGRAM = "aoe"
FINISHED = "Aoe process finished"
# Jobs by what is tuned, in the order that the documents advise: operators are tuned in the shapes that subgraphs leave.
JOBS = {"operators": (2,), "subgraphs": (1,), "both": (1, 2)}
OPERATORS = "operators"  # the usual
BANK = "TUNE_BANK_PATH"  # the variable that names the bank
FILES = "files"  # key of a bank's record: the digest of each of its files, there when AOE has finished
RECORD = "bank"  # key of a model's record: SHA-256 of that of the bank that it was compiled with
_OF_ATC_ALONE = ("--soc_version=",)


def bank_of(model: Path) -> Path:
    """The folder of what AOE finds for `model`."""
    return model.with_name(f"{model.stem}_aoe_bank")


def log_of(bank: Path) -> Path:
    """Where what AOE prints goes, so that one can look on for the hours that it takes."""
    return bank.with_name(f"{bank.name}.log")


def commands(atc_command: Sequence[str], tune: str) -> list[list[str]]:
    """The AOE commands, one a job, for the model of an ATC command that uses no bank."""
    model_options = [option for option in atc_command[1:] if not option.startswith(_OF_ATC_ALONE)]
    return [[PROGRAM, f"--job_type={job}", *model_options] for job in JOBS[tune]]


def bank_options(bank: Path, tune: str) -> list[str]:
    """What ATC is given to compile with the bank; that of subgraphs works only where the buffers are optimized."""
    of_subgraphs, of_operators = (f"{option}={os.path.realpath(bank)}" for option in taken_paths.BANKS)
    options = {1: [of_subgraphs, "--buffer_optimize=l2_optimize"], 2: [of_operators]}
    return [option for job in JOBS[tune] for option in options[job]]


def with_bank_of(options: Sequence[str], environment: Mapping[str, str]) -> dict[str, str]:
    """The environment with the bank of ATC's options in it, where another one would go before them."""
    given = dict(option.split("=", 1) for option in options if option.startswith(taken_paths.BANKS))
    return {**environment, BANK: next(iter(given.values()))} if given else dict(environment)


def holds(bank: Path, made_of: Mapping[str, Any]) -> bool:
    """Whether AOE has finished a bank for this, and its files are as it left them."""
    recorded = sidecar.recorded(bank, [*made_of, FILES])
    return bank.is_dir() and recorded == {**made_of, FILES: _digests(bank)}


def used(bank: Path) -> dict[str, str]:
    """What the record of a model says of the bank that it is compiled with; empty where the bank has no record."""
    record = sidecar.path_of(bank)
    return {RECORD: sha256(record)} if record.is_file() else {}


def find(toolkit: Toolkit, chip: str, network: Network) -> str:
    """Where aoe lies; raises MissingRuntimeError where it does not, PipelineError where the card is no `chip`."""
    program = shutil.which(PROGRAM, path=toolkit.environment.get("PATH", ""))
    if program is None:
        raise MissingRuntimeError(
            f"{PROGRAM} is not on this machine; it comes with CANN's toolkit and tunes on the card: run the same "
            f"command on a host with a {chip}, after copying {' and '.join(map(str, network.files))} there, or leave "
            "out --tune"
        )
    try:
        card = chips.card()
    except PipelineError:  # none, or none that npu-smi tells: AOE is left to say so
        return program
    if card != chip:
        raise PipelineError(
            f"--tune: {PROGRAM} measures on the card of this machine, a {card}, which says nothing of a {chip}; run it "
            f"on a host with a {chip} and copy the …_aoe_bank with its .json here, or compile for {card}"
        )
    return program


def finding(toolkit: Toolkit, chip: str, network: Network, models: Sequence[Path]) -> Finding:
    """Whether AOE can tune here; a bank that is there may serve without."""
    try:
        return Finding(OK, PROGRAM, find(toolkit, chip, network))
    except PipelineError as error:
        tuned = all(bank_of(model).is_dir() for model in models)
        return Finding(NOTE if tuned else FAILS, PROGRAM, str(error))


def tune(
    program: str,
    toolkit: Toolkit,
    network: Network,
    tuning: Sequence[Sequence[str]],
    bank: Path,
    made_of: Mapping[str, Any],
    anew: bool,
) -> int:
    """Runs the commands `tuning` of `commands`, which fill `bank`; returns how many files it holds.

    A bank that is there already is added to: AOE leaves out what it holds, unless `anew`, so that a run which was
    broken off goes on where it was. The bank's record gets the digests of its files at the end, and not before. Raises
    PipelineError where AOE fails or does not say that it has finished, after printing its last lines.
    """
    remove_plain(log_of(bank))
    try:
        bank.mkdir(exist_ok=True)
    except FileExistsError:
        raise PipelineError(f"{bank}: is not a folder, AOE's bank is one; remove it or move it elsewhere") from None
    sidecar.write(bank, made_of)
    # AOE leaves aoe_workspace/ and a tuned model where it stands.
    with taken_paths.scratch_of(bank.parent, "aoe") as scratch, taken_paths.lent(bank, scratch) as lent:
        network.write_one_file(scratch)
        environment = {**toolkit.environment, BANK: str(lent), **({"REPEAT_TUNE": "True"} if anew else {})}
        for command in tuning:
            options = taken_paths.taken(command[1:], scratch)
            ended = tool.run([program, *options], scratch, environment, log_of(bank))
            _check_finished(bank, ended)
    digests = _digests(bank)
    sidecar.write(bank, {**made_of, FILES: digests})
    return len(digests)


def _check_finished(bank: Path, ended: tool.Ended) -> None:
    last = ended.output.splitlines()[-failure.SHOWN_LINES :]
    if ended.code:
        said = f"AOE {failure.explain(ended)}"
    elif any(FINISHED in line for line in last):
        return
    else:
        print("\n".join(last), file=sys.stderr)
        said = f"AOE ended without {FINISHED!r}"
    raise PipelineError(
        f"{bank.name}: {said}; all that it said stands in {log_of(bank)}, and what it has found is kept: the same "
        "command goes on there"
    )


def _digests(bank: Path) -> dict[str, str]:
    files = sorted(path for path in bank.rglob("*") if path.is_file())
    return {os.path.relpath(path, bank): sha256(path) for path in files}
