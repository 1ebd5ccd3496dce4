"""The ais_bench that is installed here: the environment it runs in, and which of its two command lines it has.

Up to 0.0.2 options have underscores and switches a value; from 0.1.0 on they have dashes and switches none (contract:
ais_bench, two command lines). This project writes them as 0.0.2 does; `spoken` says them as the installed one does.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import NamedTuple

from ResNeSt.common import cann_libraries
from ResNeSt.common.errors import MissingRuntimeError
from ResNeSt.common.files import PathLike
from ResNeSt.common.timed_process import with_this_project

PROGRAM = (sys.executable, "-m", "ais_bench")
DASHES_SINCE = (0, 1)
# By their names in 0.0.2; dymBatch and its kin, and all that have no underscore, are called alike in both.
VALUES = {
    *("output_dirname", "pure_data_type", "output_batchsize_axis", "run_mode", "warmup_count", "acl_json_path"),
    *("aipp_config", "npu_id"),
}
SWITCHES = {
    *("debug", "dump", "dump_npy", "perf", "pipeline", "profiler", "profiler_rename", "divide_input"),
    *("display_all_summary", "energy_consumption", "auto_set_dymshape_mode", "auto_set_dymdims_mode"),
}
# What the client calls otherwise: our names (ResNeSt/common/flags.py), and those of `msit benchmark` around it.
OTHERS = {
    **{"--tensors": "--input", "--batch": "--dymBatch", "--warmup": "--warmup_count"},
    **{"--om-model": "--model", "--batch-size": "--batchsize"},
}
TRUE, FALSE = ("1", "true", "t", "yes", "y"), ("0", "false", "f", "no", "n")


class Client(NamedTuple):
    """The variables that the client runs under, and whether its options have dashes."""

    environment: dict[str, str]
    dashes: bool

    def command(self, arguments: Sequence[str]) -> list[str]:
        """The command line for `arguments`, which may be written for either client."""
        return [*PROGRAM, *spoken(arguments, self.dashes)]


def find(model: PathLike) -> Client:
    """The client that runs `model`; raises MissingRuntimeError where there is none, or it cannot be started."""
    if _package() is None:
        raise MissingRuntimeError(
            f"{model}: ais_bench is not installed for {sys.executable}; requirements/npu.txt says how to install it on "
            "an Ascend host, or compile for cpu: bash convert.sh <batch> cpu"
        )
    environment = with_this_project(cann_libraries.environment())
    version = _version()
    if version is not None:
        return Client(environment, version >= DASHES_SINCE)
    told = _help(tuple(environment.items()))
    refuse_unstarted(model, told)
    return Client(environment, "--output-dir" in told)


def by_path(command: Sequence[str]) -> list[str]:
    """A command of the client's with its file in place of `-m ais_bench`, for what takes a script and no module."""
    return [command[0], os.path.join(_package() or "", "__main__.py"), *command[len(PROGRAM) :]]


def _package() -> str | None:
    """The folder of the client's package; None where there is none, or only a folder of that name."""
    spec = importlib.util.find_spec("ais_bench")
    return os.path.dirname(spec.origin) if spec and spec.origin else None


def check_starts(model: PathLike, client: Client) -> None:
    """Raises MissingRuntimeError where the client cannot import what it needs; for callers that do not see it fail."""
    result = subprocess.run(
        [sys.executable, "-c", "import ais_bench.infer.interface"],
        env=client.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    if result.returncode:
        refuse_unstarted(model, result.stderr)


def refuse_unstarted(model: PathLike, text: str) -> None:
    """Raises MissingRuntimeError where `text`, printed by the client, says that what it imports is not to be had."""
    told = cann_libraries.not_imported(text)
    if told:
        raise MissingRuntimeError(f"{model}: {told}")


def _version() -> tuple[int, ...] | None:
    try:
        numbers = re.match(r"\d+(\.\d+)*", metadata.version("ais_bench") or "")
    except metadata.PackageNotFoundError:
        return None
    return tuple(map(int, numbers[0].split("."))) if numbers else None


@functools.cache
def _help(environment: tuple[tuple[str, str], ...]) -> str:
    """What the client prints for --help, wide enough for whole names of options, or says of why it cannot."""
    wide = {**dict(environment), "COLUMNS": "200", "TERMINAL_WIDTH": "200"}
    result = subprocess.run(
        [*PROGRAM, "--help"],
        env=wide,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    return result.stdout


def spoken(arguments: Sequence[str], dashes: bool) -> list[str]:
    """`arguments`, for either client, msit or in our own names, as the one with or without dashes takes them."""
    rest, said = list(arguments), []
    while rest:
        argument = rest.pop(0)
        flag, equals, value = argument.partition("=")
        flag = OTHERS.get(flag, flag)
        name = flag[2:].replace("-", "_") if flag.startswith("--") else ""
        switch = name[3:] if name.startswith("no_") and name[3:] in SWITCHES else name
        if switch in SWITCHES:
            if not equals and rest and rest[0].lower() in (*TRUE, *FALSE):
                value = rest.pop(0)
            said.append(_switch(switch, value or ("1" if switch == name else "0"), dashes))
        elif name in VALUES:
            said.append(f"--{name.replace('_', '-') if dashes else name}{equals}{value}")
        else:
            said.append(f"{flag}{equals}{value}")
    return said


def _switch(name: str, value: str, dashes: bool) -> str:
    if not dashes:
        return f"--{name}={value}"
    spelled = name.replace("_", "-")
    if value.lower() in TRUE:
        return f"--{spelled}"
    return f"--no-{spelled}" if value.lower() in FALSE else f"--{spelled}={value}"  # which the client refuses
