"""Runs the inference client in a process of its own: ais_bench for a `.om`, `ResNeSt.infer` for anything else.

Both take the same flags and write the same files; what today's ais_bench would refuse is refused here first, with a
sentence on what to do (contract: ais_bench, path rules).
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Sequence

from ResNeSt.errors import MissingRuntimeError, PipelineError
from ResNeSt.files import PathLike, read_json
from ResNeSt.processes import Spent, spend
from ResNeSt.tensors import refuse_packed

ALLOWED_PATH = re.compile(r"[_A-Za-z0-9/.-]+")
WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
OUTPUT_MODE = 0o750


class Ran(NamedTuple):
    """What a client left, a summary for each device, and what it spent."""

    summaries: List[Path]
    spent: Spent


def make_output_folder(folder: PathLike) -> Path:
    """The folder, made if it is not there; of mode 0750 then, since ais_bench refuses one that is open to others."""
    folder = Path(folder)
    if not folder.is_dir():
        folder.mkdir(parents=True)
        folder.chmod(OUTPUT_MODE)
    return folder


def run_client(model: PathLike, output: PathLike, dirname: str, *arguments: str, devices: Sequence[int] = (0,)) -> Ran:
    """Runs the client for `model` with `arguments`, its results in `<output>/<dirname>`.

    There is one summary for each of `devices`, which share the input (contract: ais_bench, several devices). What the
    client prints goes to `<output>/<dirname>.log`; our own shows its progress bar besides. Raises PipelineError where
    the client fails, MissingRuntimeError where ais_bench is needed and not installed.
    """
    model, output = Path(model), make_output_folder(output)
    if not model.is_file():
        raise PipelineError(f"{model}: no such model; compile it with convert.sh")
    command = [*_client(model), f"--model={model}", f"--output={output}", f"--output_dirname={dirname}", *arguments]
    command.append(f"--device={','.join(map(str, devices))}")
    summaries = [output / f"{dirname}_summary.json"]
    if len(devices) > 1:
        command.append("--divide_input=1")
        summaries = [output / dirname / f"device{number}_{index}_summary.json" for index, number in enumerate(devices)]
    for summary in summaries:
        summary.unlink(missing_ok=True)
    log = output / f"{dirname}.log"
    # ais_bench's errors come as tracebacks, so its stderr goes to the log, too; ours are a line for the user.
    ascend = model.suffix == ".om"
    with open(log, "w", encoding="utf-8") as file:
        stderr = subprocess.STDOUT if ascend else None
        spent = spend(command, stdout=file, stderr=stderr, env=_environment())
    if spent.code or not all(summary.is_file() for summary in summaries):
        reason = f"{_last_line(log)} (all of it in {log})" if ascend else "the reason stands above"
        raise PipelineError(f"{shlex.join(command)}: ended with exit code {spent.code}: {reason}")
    return Ran(summaries, spent)


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "it printed nothing")


def _client(model: Path) -> List[str]:
    if model.suffix != ".om":
        return [sys.executable, "-m", "ResNeSt.infer"]
    if importlib.util.find_spec("ais_bench") is None:
        raise MissingRuntimeError(
            f"{model}: ais_bench is not installed for {sys.executable}; requirements-npu.txt says how to install it"
        )
    return [sys.executable, "-m", "ais_bench"]


def _environment() -> Dict[str, str]:
    """The caller's, with this project importable from whatever folder the command runs in."""
    project = str(Path(__file__).resolve().parent.parent)
    known = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([project, *([known] if known else [])])}


def check_path(path: PathLike) -> None:
    """Raises PipelineError for a path that ais_bench would refuse: odd characters, a symbolic link on the way."""
    path = Path(path)
    if not ALLOWED_PATH.fullmatch(str(path)):
        raise PipelineError(f"{path}: ais_bench takes only letters, digits and _ - . / in a path; rename it")
    for part in [path, *path.parents]:
        if part.is_symlink():
            raise PipelineError(f"{part}: is a symbolic link, which ais_bench refuses; give the path it points to")


def check_output(folder: PathLike) -> None:
    """check_path, and that the folder is not open to others."""
    check_path(folder)
    mode = stat.S_IMODE(Path(folder).stat().st_mode)
    if mode & ~OUTPUT_MODE:
        raise PipelineError(
            f"{folder}: is of mode {mode:04o}, ais_bench refuses an output folder that is open to others; run "
            f"`chmod {OUTPUT_MODE:o} {folder}`, or name another folder"
        )


def check_input(path: PathLike) -> None:
    """check_path, and that neither the file, nor the folder and the files in it, are open to others or theirs.

    Nor may the folder's tensors be packed.
    """
    check_path(path)
    refuse_packed(path)
    path = Path(path)
    for part in [path, *(path.iterdir() if path.is_dir() else ())]:
        found = part.stat()
        if found.st_mode & WRITABLE_BY_OTHERS:
            reason, remedy = "writable by group or others", f"chmod -R go-w {path}"
        elif found.st_uid != os.geteuid():
            reason, remedy = "owned by another user", f"chown -R $USER {path}"
        else:
            continue
        raise PipelineError(f"{part}: {reason}, which ais_bench refuses; run: {remedy}")


def read_summary(path: PathLike) -> Dict[str, Any]:
    """A client's summary; raises PipelineError where it lacks the times."""
    summary = read_json(path)
    times = summary.get("npu_compute_time_list") if isinstance(summary, dict) else None
    if not times or not all(isinstance(value, (int, float)) for value in times):
        raise PipelineError(f"{path}: holds no npu_compute_time_list; was it written by ais_bench or ResNeSt.infer?")
    return dict(summary)
