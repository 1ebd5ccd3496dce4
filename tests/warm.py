"""Runs commands as processes of their own without the seconds that importing the large packages takes.

A process that has imported them waits; for every command it forks a child, which gets the arguments, the folder, the
environment, stdin and the output files, cores, limits and umask of whoever asks, and runs the command from its first
line to its exit code. What such a child in turn starts through ResNeSt.common.timed_process.spend is forked by the same
process, if it is Python's and this project's.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import resource
import runpy
import selectors
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ResNeSt.common import timed_process

PROJECT = Path(__file__).resolve().parent.parent
LARGE = ("numpy", "PIL.Image", "tqdm", "torch", "onnx", "onnxruntime", "openvino")
# What the commands have in common; not the modules that are commands themselves, which Python would say is odd.
OURS = (
    "bench.benchmark",
    "compare.pairs",
    "convert.conversion",
    "engines.image_batches",
    "engines.onnxruntime",
    "engines.openvino",
    "engines.torch",
    "export.to_onnx",
    "images.preprocess",
    "infer.inference",
    "report.collect",
    "report.page",
    "score.printed",
)
LIMITS = sorted({getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")})
MODULES = {"convert.sh": "ResNeSt.convert", "bench.sh": "ResNeSt.bench"}


class Warm:
    """The waiting process, started with the first command; it imports this project, or a copy of it."""

    def __init__(self, project: Path = PROJECT) -> None:
        self._project = project
        self._lock = threading.Lock()
        self._address = ""

    def _start(self) -> None:
        folder = tempfile.mkdtemp()
        address = os.path.join(folder, "socket")
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(address)
            listening.listen()
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.warm", str(listening.fileno())],
                cwd=self._project,
                # The first test to run a command may have set it for itself.
                env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
                pass_fds=[listening.fileno()],
                stdin=subprocess.PIPE,  # which ends with this process, and the waiting one with it
            )
        self._address = address
        atexit.register(shutil.rmtree, folder)
        atexit.register(process.communicate)

    def run(self, arguments: Sequence[str], cwd: Path | None, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        """Runs `script.py …`, `-m module …` or `-c code …`; what it prints is captured."""
        with self._lock:
            if not self._address:
                self._start()
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            spent = _ask(self._address, arguments, env, cwd or Path.cwd(), (0, out.fileno(), err.fileno()))
            printed = [os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode() for file in (out, err)]
        return subprocess.CompletedProcess([sys.executable, *arguments], spent.code, *printed)


def _ask(
    address: str, arguments: Sequence[str], env: Mapping[str, str], cwd: Path, files: tuple[int, int, int]
) -> timed_process.Spent:
    """Has a command run by the waiting process; `files` are its stdin, stdout and stderr."""
    told = dict(line.split(":\t") for line in Path("/proc/self/status").read_text().splitlines())
    request = {
        "argv": list(arguments),
        "cwd": os.fspath(cwd),
        "env": dict(env),
        "cores": sorted(os.sched_getaffinity(0)),
        "limits": [resource.getrlimit(limit) for limit in LIMITS],
        "umask": int(told["Umask"], 8),
    }
    started = time.perf_counter()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        socket.send_fds(connection, [b"\n"], files)
        connection.sendall(json.dumps(request).encode() + b"\n")
        code, peak = json.loads(connection.makefile().readline())
    return timed_process.Spent(code, time.perf_counter() - started, 1024 * peak)


def _spend_in(address: str) -> Any:
    """timed_process.spend, whose commands are run here where they can be."""
    cold = timed_process.spend

    def spend(command: Sequence[str], **options: Any) -> timed_process.Spent:
        program, name, *rest = command
        if program == "bash" and Path(name).name in MODULES:
            arguments = ["-m", MODULES[Path(name).name], *rest]
        elif program == sys.executable and (name.endswith(".py") or rest[0].startswith("ResNeSt.")):
            arguments = [name, *rest]
        else:
            return cold(command, **options)
        out = options.get("stdout") or sys.stdout
        err = out if options.get("stderr") == subprocess.STDOUT else sys.stderr
        env = options.get("env") or os.environ
        for stream in (out, err):
            stream.flush()
        return _ask(address, arguments, env, Path.cwd(), (0, out.fileno(), err.fileno()))

    return spend


def _serve(listening: socket.socket) -> dict[str, Any]:
    """Forks a child a command; returns in the child, with what was asked."""
    waiting = selectors.DefaultSelector()
    for file in (listening, sys.stdin):
        waiting.register(file, selectors.EVENT_READ)
    while True:
        for key, _ in waiting.select():
            if key.fileobj is sys.stdin:
                os._exit(0)
            if key.data:
                waiting.unregister(key.fd)
                os.close(key.fd)
                _answer(*key.data)
                continue
            child, connection, request = _fork(listening)
            if child == 0:
                return request
            waiting.register(os.pidfd_open(child), selectors.EVENT_READ, (child, connection))


def _fork(listening: socket.socket) -> tuple[int, socket.socket, dict[str, Any]]:
    connection, _ = listening.accept()
    _, files, *_ = socket.recv_fds(connection, 1, 3)
    request = json.loads(connection.makefile().readline())
    child = os.fork()
    if child == 0:
        for number, file in enumerate(files):
            os.dup2(file, number)
    for file in files:
        os.close(file)
    return child, connection, request


def _answer(child: int, connection: socket.socket) -> None:
    _, status, usage = os.wait4(child, 0)
    answer = json.dumps([os.waitstatus_to_exitcode(status), usage.ru_maxrss]) + "\n"
    with connection, contextlib.suppress(BrokenPipeError):  # whoever asked may be gone
        connection.sendall(answer.encode())


def _become(request: dict[str, Any]) -> None:
    os.sched_setaffinity(0, request["cores"])
    for limit, values in zip(LIMITS, request["limits"]):
        resource.setrlimit(limit, values)
    os.umask(request["umask"])
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    kind, *rest = request["argv"]
    first = str(Path(kind).parent) if kind.endswith(".py") else ""
    sys.path[:] = [first, *os.environ.get("PYTHONPATH", "").split(os.pathsep), *sys.path[1:]]
    if kind.endswith(".py"):
        sys.argv[:] = [kind, *rest]
        runpy.run_path(kind, run_name="__main__")
    elif kind == "-m":
        sys.argv[:] = ["-m", *rest[1:]]
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv[:] = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})  # noqa: S102


def _run(request: dict[str, Any]) -> NoReturn:
    """Ends as an interpreter does, but for taking the large packages apart, which takes as long as importing them."""
    code: Any = 0
    try:
        _become(request)
    except SystemExit as error:
        code = error.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _main(handle: int) -> NoReturn:
    import ResNeSt  # noqa: F401 (switches telemetry off before anything can ask)

    listening = socket.socket(fileno=handle)
    timed_process.spend = _spend_in(listening.getsockname())  # before it is imported by name
    for package in (*LARGE, *(f"ResNeSt.{module}" for module in OURS)):
        with contextlib.suppress(ImportError):
            importlib.import_module(package)
    gc.freeze()  # what all children share is not looked through again
    _run(_serve(listening))


if __name__ == "__main__":
    _main(int(sys.argv[1]))
