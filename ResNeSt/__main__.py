"""`resnest COMMAND …`, the same as `python -m ResNeSt COMMAND …`: every tool of this project by one name."""

from __future__ import annotations

import importlib
import sys

from ResNeSt import __version__
from ResNeSt.common.errors import ArgumentError, run
from ResNeSt.common.tables import columns

# A command, the module whose `main` it is, and what it does; a module is imported only when its command is given.
COMMANDS = {
    "preprocess": ("commands.preprocess", "stage 1: images -> tensors"),
    "export": ("commands.export", "stage 2: checkpoint -> ONNX"),
    "convert": ("convert.__main__", "stage 3: ONNX -> a compiled model per batch size"),
    "bench": ("bench.__main__", "stage 4: accuracy and speed, a row per batch size"),
    "infer": ("infer.__main__", "a tensor folder through a model, with ais_bench's flags and files"),
    "loadgen": ("loadgen.__main__", "a model driven by MLPerf's LoadGen"),
    "postprocess": ("commands.postprocess", "a client's outputs and labels -> top-1 and top-5"),
    "run": ("pipeline", "all four stages"),
    "evaluate": ("evaluate", "images -> top-1 and top-5, no files in between"),
    "predict": ("predict", "images -> classes with their names"),
    "serve": ("serve.__main__", "a model as a network service: REST and gRPC"),
    "compare": ("compare.__main__", "how far two stages agree, and the node at which two graphs part"),
    "labels": ("labels.__main__", "make and check labels files, move images into class folders and back"),
    "models": ("models.__main__", "the weight cards"),
    "report": ("report.__main__", "draw report.html of a finished run"),
    "mindir": ("mindir.__main__", "ONNX -> MINDIR"),
    "train": ("commands.train", "train a network, or fine-tune one"),
}


def main() -> int | None:
    """Runs the command that the command line names, as if its own module had been started."""
    name, *rest = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print(f"usage: resnest COMMAND …\n\n{columns([(name, told) for name, (_, told) in COMMANDS.items()])}")
        print("\n`resnest COMMAND --help` lists a command's options.")
        return 0
    if name == "--version":
        print(f"resnest {__version__}")
        return 0
    if name not in COMMANDS:
        raise ArgumentError(f"{name!r} is no command; known: {', '.join(COMMANDS)}")
    sys.argv = [f"resnest {name}", *rest]
    code: int | None = importlib.import_module(f"ResNeSt.{COMMANDS[name][0]}").main()
    return code


def console() -> None:
    """Entry point of the installed command."""
    run(main)


if __name__ == "__main__":
    console()
