"""Runs commands as processes of their own without the seconds that importing the large packages takes.

A process that has imported them waits; for every command it forks a child, which gets the arguments, the folder, the
environment and the output files, and runs the command from its first line to its exit code.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

PROJECT = Path(__file__).resolve().parent.parent
LARGE = ("numpy", "PIL.Image", "tqdm", "torch", "onnx", "onnxruntime", "openvino")


class Warm:
    """The waiting process, started with the first command."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: Any = None

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.warm", str(theirs.fileno())],
                cwd=PROJECT,
                # The first test to run a command may have set it for itself.
                env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        self._lines = ours.makefile("rw")
        atexit.register(process.wait)
        atexit.register(ours.close)
        atexit.register(self._lines.close)

    def run(self, arguments: Sequence[str], cwd: Path | None, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        """Runs `script.py …`, `-m module …` or `-c code …`; what it prints is captured."""
        with tempfile.TemporaryDirectory() as scratch, self._lock:
            if self._lines is None:
                self._start()
            request = {"argv": list(arguments), "cwd": os.fspath(cwd or Path.cwd()), "env": env, "scratch": scratch}
            self._lines.write(json.dumps(request) + "\n")
            self._lines.flush()
            code = int(self._lines.readline())
            out, err = ((Path(scratch) / name).read_text() for name in ("out", "err"))
        return subprocess.CompletedProcess([sys.executable, *arguments], code, out, err)


def _serve(handle: int) -> dict[str, Any]:
    """Forks a child a line; returns in the child, with its request."""
    lines = socket.socket(fileno=handle).makefile("rw")
    for line in lines:
        child = os.fork()
        if child == 0:
            request: dict[str, Any] = json.loads(line)
            return request
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=lines, flush=True)
    os._exit(0)


def _become(request: dict[str, Any]) -> None:
    for number, name in enumerate(("out", "err"), 1):
        file = os.open(Path(request["scratch"]) / name, os.O_WRONLY | os.O_CREAT)
        os.dup2(file, number)
        os.close(file)
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

    for package in LARGE:
        with contextlib.suppress(ImportError):
            importlib.import_module(package)
    gc.freeze()  # what all children share is not looked through again
    _run(_serve(handle))


if __name__ == "__main__":
    _main(int(sys.argv[1]))
