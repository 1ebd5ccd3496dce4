"""Runs the inference client in a process of its own: ais_bench for a `.om`, `ResNeSt.infer` for anything else.

Both take the same flags and write the same files; what ais_bench would refuse is refused here first, with a sentence on
what to do (contract: ais_bench, path rules).
"""

from __future__ import annotations

import itertools
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Callable, NamedTuple

from ResNeSt.common.ais_bench_paths import MOST_LOOPS, OUTPUT_MODE, check_input, check_output
from ResNeSt.common.errors import ArgumentError, PipelineError
from ResNeSt.common.files import PathLike, check_plain, remove_plain
from ResNeSt.common.timed_process import Spent, spend, with_this_project
from ResNeSt.infer import ais_bench, ais_bench_log
from ResNeSt.models import sidecar
from ResNeSt.models.files import check_record
from ResNeSt.tensors.folder import check_files, check_tensors, refuse_for_ais_bench
from ResNeSt.tensors.format import LAYOUTS, TensorFormat


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
    input (contract: ais_bench, several devices). What the client prints goes to `<output>/<dirname>.log`; our own shows
    its progress bar besides. Raises PipelineError where the client fails, MissingRuntimeError where ais_bench is needed
    and is not installed, or CANN's libraries are not found.
    """
    model, output = Path(model), make_output_folder(output)
    if not model.is_file():
        raise PipelineError(f"{model}: no such model; compile it with convert.sh")
    flags = [f"--model={model}", f"--output={output}", f"--output_dirname={dirname}", *arguments]
    flags.append(f"--device={','.join(map(str, devices))}")
    if len(devices) > 1:
        flags.append("--divide_input=1")
    summaries = summaries_of(output, dirname, devices)
    for summary in summaries:
        remove_plain(summary)
    log = output / f"{dirname}.log"
    check_plain(log)
    command, environment = command_of(model, flags)
    # ais_bench's errors come as tracebacks, so its stderr goes to the log, too; ours are a line for the user.
    ascend = model.suffix == ".om"
    with open(log, "w", encoding="utf-8") as file:
        stderr = subprocess.STDOUT if ascend else None
        spent = spend(under(command), stdout=file, stderr=stderr, env=environment)
    left = [summary.is_file() for summary in summaries]
    if spent.code or not all(left):
        failed = [number for number, there in zip(devices, left) if not there] if len(devices) > 1 else []
        told = _reason(model, log, spent.code, failed) if ascend else "the reason stands above"
        raise PipelineError(f"{shlex.join(command)}: ended with exit code {spent.code}: {told}")
    return Ran(summaries, spent)


def summaries_of(output: Path, dirname: str, devices: Sequence[int]) -> list[Path]:
    """Where the client writes a summary for each of `devices`."""
    if len(devices) == 1:
        return [output / f"{dirname}_summary.json"]
    return [output / dirname / f"device{number}_{index}_summary.json" for index, number in enumerate(devices)]


def command_of(model: Path, flags: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The client's command line for `flags`, in the spelling that the client has, and the variables it runs under.

    Raises MissingRuntimeError where ais_bench is needed and not installed.
    """
    if model.suffix != ".om":
        return [sys.executable, "-m", "ResNeSt.infer", *flags], with_this_project()
    client = ais_bench.find(model)
    return client.command(flags), client.environment


def _reason(model: Path, log: Path, code: int, failed: Sequence[int]) -> str:
    """Why ais_bench failed; raises MissingRuntimeError where it could not be started."""
    text = log.read_text(encoding="utf-8", errors="replace")
    found = ais_bench_log.reason(text, failed)
    ais_bench.refuse_unstarted(model, found)
    if code < 0:
        found = f"killed by signal {-code} ({signal.strsignal(-code)}); its last words: {found}"
    which = f"device {' and '.join(map(str, dict.fromkeys(failed)))}: " if failed else ""
    return f"{which}{found} (all of it in {log})"


def check_om_tensors(model: Path, tensors: PathLike) -> None:
    """Raises PipelineError where tensors do not fit a `.om` whose record says what it takes, or is of another model.

    ais_bench takes whatever divides the input's bytes: four uint8 images for one of float32. Without a record nothing
    is said.
    """
    check_record(model)
    info = sidecar.info_of(model)
    dtype = str(sidecar.read(model).get("dtype", "float32"))
    if str(info.get("size")).isdecimal() and dtype in LAYOUTS:
        takes = TensorFormat("", int(info["size"]), dtype, (), ())
        check_tensors(tensors, (1, *takes.shape), takes.element, info)
        check_files(tensors, takes.shape, takes.element)


def check_run(
    models: Sequence[Path],
    tensors: Sequence[PathLike],
    output: PathLike | None,
    dirnames: Sequence[str] = (),
    loop: int = 1,
) -> None:
    """Raises PipelineError for what ais_bench would refuse of a run; the folder `output` need not be there.

    `dirnames` are the folders of the results in it. Raises ArgumentError where `loop` is too large.
    """
    if loop > MOST_LOOPS:
        raise ArgumentError(f"--loop {loop}: ais_bench takes at most {MOST_LOOPS:,}")
    if output is not None:
        check_output(output, dirnames)
    for path in tensors:
        refuse_for_ais_bench(path)
    for path in (*models, *tensors):
        check_input(path)
    for model, path in itertools.product(models, tensors):
        check_om_tensors(model, path)
