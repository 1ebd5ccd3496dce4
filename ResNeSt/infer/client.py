"""Runs the inference client in a process of its own: ais_bench for a `.om`, `ResNeSt.infer` for anything else.

Both take the same flags and write the same files; what today's ais_bench would refuse is refused here first, with a
sentence on what to do (contract: ais_bench, path rules).
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Callable, NamedTuple

from ResNeSt.common.ais_bench_names import WRITABLE_BY_OTHERS, check_path
from ResNeSt.common.errors import MissingRuntimeError, PipelineError
from ResNeSt.common.files import PathLike, check_plain, remove_plain
from ResNeSt.common.timed_process import Spent, spend, with_this_project
from ResNeSt.models import sidecar
from ResNeSt.tensors.folder import check_files, check_tensors, refuse_packed
from ResNeSt.tensors.format import TensorFormat

OUTPUT_MODE = 0o750


class Ran(NamedTuple):
    """What a client left, a summary for each device, and what it spent."""

    summaries: list[Path]
    spent: Spent


def make_output_folder(folder: PathLike) -> Path:
    """The folder, made if it is not there; of mode 0750 then, since ais_bench refuses one that is open to others."""
    folder = Path(folder)
    if not folder.is_dir():
        folder.mkdir(parents=True)
        folder.chmod(OUTPUT_MODE)
    return folder


def run_client(
    model: PathLike,
    output: PathLike,
    dirname: str,
    *arguments: str,
    devices: Sequence[int] = (0,),
    under: Callable[[list[str]], list[str]] = list,
) -> Ran:
    """Runs the client for `model` with `arguments`, its results in `<output>/<dirname>`.

    `under` makes the command of a program that runs it. There is one summary for each of `devices`, which share the
    input (contract: ais_bench, several devices). What the
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
        remove_plain(summary)
    log = output / f"{dirname}.log"
    check_plain(log)
    # ais_bench's errors come as tracebacks, so its stderr goes to the log, too; ours are a line for the user.
    ascend = model.suffix == ".om"
    with open(log, "w", encoding="utf-8") as file:
        stderr = subprocess.STDOUT if ascend else None
        spent = spend(under(command), stdout=file, stderr=stderr, env=with_this_project())
    if spent.code or not all(summary.is_file() for summary in summaries):
        reason = f"{_last_line(log)} (all of it in {log})" if ascend else "the reason stands above"
        raise PipelineError(f"{shlex.join(command)}: ended with exit code {spent.code}: {reason}")
    return Ran(summaries, spent)


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "it printed nothing")


def _client(model: Path) -> list[str]:
    if model.suffix != ".om":
        return [sys.executable, "-m", "ResNeSt.infer"]
    if importlib.util.find_spec("ais_bench") is None:
        raise MissingRuntimeError(
            f"{model}: ais_bench is not installed for {sys.executable}; requirements/npu.txt says how to install it"
        )
    return [sys.executable, "-m", "ais_bench"]


def check_om_tensors(model: Path, tensors: PathLike) -> None:
    """Raises PipelineError where tensors do not fit a `.om` whose record says what it takes.

    ais_bench takes whatever divides the input's bytes: four uint8 images for one of float32. Without a record nothing
    is said.
    """
    info = sidecar.info_of(model)
    if "size" in info:
        dtype = str(sidecar.read(model).get("dtype", "float32"))
        takes = TensorFormat("", int(info["size"]), dtype, (), ())
        check_tensors(tensors, (1, *takes.shape), takes.element, info)
        check_files(tensors, takes.shape, takes.element)


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
        status = part.stat()
        if status.st_mode & WRITABLE_BY_OTHERS:
            reason, remedy = "writable by group or others", f"chmod -R go-w {path}"
        elif status.st_uid != os.geteuid():
            reason, remedy = "owned by another user", f"chown -R $USER {path}"
        else:
            continue
        raise PipelineError(f"{part}: {reason}, which ais_bench refuses; run: {remedy}")
