"""Stand-in for AOE: refuses what its documents refuse, and writes a bank with a file a job, as if it had tuned.

Options and variables are those of CANN's documents, 8.0 to 9.0: the model's are ATC's, the chip is the card's. What the
bank holds already is left as it is unless REPEAT_TUNE=True.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import atc

_OF_AOE = {"job_type", "device", "progress_bar", "tune_ops_file"}
_NOT_OF_AOE = {"soc_version", "mode", "op_bank_path", "mdl_bank_path"}


def main(arguments: list[str]) -> int:
    """AOE's last line and exit codes."""
    given = {name.removeprefix("--"): value for name, _, value in (entry.partition("=") for entry in arguments)}
    if refused := _NOT_OF_AOE & set(given):
        return _failed(f"unknown command line flag {sorted(refused)}")
    if given.get("job_type") not in ("1", "2"):
        return _failed(f"job_type {given.get('job_type')!r} is invalid, must be 1 or 2")
    card = os.environ.get("STANDIN_NPU", "310P3")
    if card == "none":
        return _failed("no device to tune on")
    chip = card if card[0].isdigit() else "310P3"
    bank = Path(os.environ.get("TUNE_BANK_PATH", Path.home() / "Ascend/latest/data/aoe/custom"))
    if not bank.is_dir():
        return _failed(f"TUNE_BANK_PATH {bank} does not exist")
    model_options = [argument for argument in arguments if argument.partition("=")[0][2:] not in _OF_AOE]
    try:
        atc.check([*model_options, f"--soc_version=Ascend{chip}"])
    except atc.AtcError as error:
        return _failed(" ".join(error.args))
    _tune(bank, chip, given)
    print("Aoe process finished")
    return 0


def _failed(reason: str) -> int:
    print(f"[ERROR] AOE: {reason}")
    print("Aoe process failed")
    return 1


def _tune(bank: Path, chip: str, options: dict[str, str]) -> None:
    (Path.cwd() / "aoe_workspace").mkdir(exist_ok=True)
    folder = bank / f"Ascend{chip}" if options["job_type"] == "2" else bank
    folder.mkdir(exist_ok=True)
    found = folder / ("Conv2D_AiCore.json" if options["job_type"] == "2" else f"Ascend{chip}_fusion.json")
    tuned = json.loads(found.read_text()) if found.is_file() else {}
    shape = options["input_shape"]
    if shape in tuned and os.environ.get("REPEAT_TUNE") != "True":
        print("the bank holds all operators, nothing to tune")
        return
    tuned[shape] = tuned.get(shape, 0) + 1
    found.write_text(json.dumps(tuned), encoding="utf-8")
    print(f"tuned {shape}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
