"""Stand-in for msprof: runs the application, and leaves CSV files as CANN's documents show them.

`msprof --application="COMMAND" --output=DIR`; the operators are the nodes of the model that the command names, each
once a run and once for the warm-up, its number in the graph in microseconds. $STANDIN_MSPROF says how it leaves them:
`new` (mindstudio_profiler_output, from CANN 7.0 on), `old` (device_0/summary), `statistic` (by type) or `none`.
"""

from __future__ import annotations

import csv
import os
import secrets
import subprocess
import sys
import time
from pathlib import Path

import onnx
import standin_om

_SUMMARY = [
    *("Device_id", "Model ID", "Task ID", "Stream ID", "Op Name", "OP Type", "OP State", "Task Type"),
    *("Task Start Time(us)", "Task Duration(us)", "Task Wait Time(us)", "Block Dim"),
]
_STATISTIC = ["Device_id", "OP Type", "Core Type", "Count", "Total Time(us)", "Min Time(us)", "Avg Time(us)"]


def main(arguments: list[str]) -> int:
    """What the application ends with."""
    given = {name: value for name, _, value in (entry.partition("=") for entry in arguments)}
    if set(given) != {"--application", "--output"}:
        print(f"[ERROR] the stand-in does not take {sorted(given)}")
        return 1
    command = given["--application"].split(" ")  # quotation marks are characters like others
    if command[0].rpartition("/")[2].startswith(("python", "bash", "sh")) and not Path(command[1]).is_file():
        print("[ERROR] Script params are invalid")
        return 1
    code = subprocess.run(command, check=False).returncode
    if code:
        print("[ERROR] Run application failed")
        return code
    flags = dict(entry.partition("=")[::2] for entry in command)
    stamp = time.strftime("%Y%m%d%H%M%S")
    run = Path(given["--output"], f"PROF_000001_{stamp}000_{secrets.token_hex(8).upper()}")
    (run / "device_0/data").mkdir(parents=True)
    _export(run, stamp, flags["--model"], int(flags["--loop"]) + 1, os.environ.get("STANDIN_MSPROF", "new"))
    print(f"[INFO] Process profiling data complete. Data is saved in {run}")
    return 0


def _export(run: Path, stamp: str, model: str, runs: int, kind: str) -> None:
    nodes = onnx.load_from_string(standin_om.read(model)[1]).graph.node
    if kind == "none":
        return
    folder = run / ("device_0/summary" if kind == "old" else "mindstudio_profiler_output")
    folder.mkdir(parents=True)
    ending = "0_1_1" if kind == "old" else stamp
    if kind == "statistic":
        rows = [[0, node.op_type, "AI_CORE", runs, runs * place, place, place] for place, node in enumerate(nodes, 1)]
        _write(folder / f"op_statistic_{ending}.csv", _STATISTIC, rows)
        return
    timed = [
        [0, 1, place, 2, node.name, node.op_type, "static", "AI_CORE", f"{1000 * number}.5\t", place, 0, 8]
        for number in range(runs)
        for place, node in enumerate(nodes, 1)
    ]
    _write(folder / f"op_summary_{ending}.csv", _SUMMARY, timed)


def _write(path: Path, head: list[str], rows: list[list[object]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([head, *rows])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
