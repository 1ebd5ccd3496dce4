"""`resnest COMMAND …`, the same as `python -m ResNeSt COMMAND …`: every tool of this project by one name."""

from __future__ import annotations

import difflib
import importlib
import sys

from ResNeSt import __version__
from ResNeSt.common.errors import ArgumentError, MissingRuntimeError, run
from ResNeSt.common.tables import columns

# By what they are for: a command, the module whose `main` and `make_parser` it is, and what it does. A module is
# imported only when its command is given.
GROUPS = {
    "all four stages": {
        "run": ("pipeline", "images and a checkpoint -> compiled models, a table and a report"),
    },
    "one by one": {
        "preprocess": ("commands.preprocess", "stage 1: images -> tensors"),
        "export": ("commands.export", "stage 2: checkpoint -> ONNX"),
        "convert": ("convert.__main__", "stage 3: ONNX -> a compiled model per batch size"),
        "bench": ("bench.__main__", "stage 4: accuracy and speed, a row per batch size"),
        "infer": ("infer.__main__", "stage 4's client: tensors through a model, with ais_bench's flags and files"),
        "postprocess": ("commands.postprocess", "stage 4's score: a client's outputs and labels -> top-1 and top-5"),
    },
    "a model at work": {
        "predict": ("predict", "images -> classes with their names"),
        "evaluate": ("evaluate", "images -> top-1 and top-5, no files in between"),
        "serve": ("serve.__main__", "a model as a network service: REST and gRPC"),
    },
    "a closer look": {
        "compare": ("compare.__main__", "how far two stages agree, and the node at which two graphs part"),
        "report": ("report.__main__", "draw report.html of a finished run"),
        "loadgen": ("loadgen.__main__", "a model driven by MLPerf's LoadGen"),
    },
    "networks and labels": {
        "models": ("models.__main__", "list the networks, or tell one whole"),
        "labels": ("labels.__main__", "make and check labels files, move images into class folders and back"),
        "train": ("commands.train", "train a network, or fine-tune one"),
        "mindir": ("mindir.__main__", "ONNX -> MINDIR"),
    },
    "this command": {
        "completion": ("completion", "print what makes bash, zsh, fish or tcsh complete the above"),
    },
}
COMMANDS = {name: told for group in GROUPS.values() for name, told in group.items()}


def main() -> int | None:
    """Runs the command that the command line names, as if its own module had been started."""
    name, *rest = sys.argv[1:] or ["help"]
    if name in ("help", "-h", "--help"):
        if not rest:
            print(_listing())
            return 0
        name, rest = rest[0], ["--help"]
    if name == "--version":
        print(f"resnest {__version__}")
        return 0
    if name not in COMMANDS:
        raise ArgumentError(_unknown(name))
    sys.argv = [f"resnest {name}", *rest]
    return start(name)


def start(name: str) -> int | None:
    """Runs a command on `sys.argv`; raises MissingRuntimeError where a package that its module imports is not here."""
    if sys.argv[1:] == ["--version"]:
        print(f"resnest {__version__}")
        return 0
    try:
        module = importlib.import_module(f"ResNeSt.{COMMANDS[name][0]}")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("ResNeSt"):
            raise
        raise MissingRuntimeError(
            f"{error.name} is not installed here; {name} takes it: pip install -r requirements.txt"
        ) from None
    code: int | None = module.main()
    return code


def _listing() -> str:
    rows = columns([(name, told) for name, (_, told) in COMMANDS.items()]).splitlines()
    parts = [f"usage: resnest COMMAND …, or python -m ResNeSt COMMAND …; resnest {__version__}"]
    for title, group in GROUPS.items():
        parts.append("\n".join([f"{title}:", *(rows.pop(0) for _ in group)]))
    return "\n\n".join([*parts, "`resnest COMMAND --help` tells a command's options and an example."])


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name, COMMANDS, n=1)
    meant = f"did you mean {close[0]}?" if close else f"known: {', '.join(COMMANDS)}"
    return f"{name!r} is no command; {meant} `resnest` lists them all"


def console() -> None:
    """Entry point of the installed command."""
    run(main)


if __name__ == "__main__":
    console()
