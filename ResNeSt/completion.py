"""Prints what makes a shell complete `resnest`: commands, options, their choices, files and folders.

The text is made once, by shtab, and knows no more than this release: make it again after an update.
"""

from __future__ import annotations

import argparse
import importlib
from typing import Any

from ResNeSt.__main__ import COMMANDS
from ResNeSt.common.arguments import Parser
from ResNeSt.common.errors import MissingRuntimeError, run

SHELLS = ("bash", "zsh", "fish", "tcsh")
PROGRAM = "resnest"


def main() -> int:
    """Command line."""
    print(completion(make_parser().parse_args().shell))
    return 0


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(
        prog="python -m ResNeSt completion",
        description=__doc__,
        example="python -m ResNeSt completion bash",
        tells=(),
    )
    parser.add_argument("shell", choices=SHELLS, help="whose script to print")
    return parser


def completion(shell: str) -> str:
    """A script for one of SHELLS; raises MissingRuntimeError where shtab is not installed.

    Of a command whose packages are not installed here only the name is completed.
    """
    try:
        import shtab
    except ImportError:
        raise MissingRuntimeError(
            "shtab is not installed here; it writes the script: pip install -r requirements/completion.txt"
        ) from None
    whole = argparse.ArgumentParser(PROGRAM)
    commands = whole.add_subparsers()
    for name, (module, told) in COMMANDS.items():
        made = _parser_of(module)
        for each in _all_of(made):
            action: Any
            for action in each._actions:
                if role := each.roles.get(action.dest):
                    action.complete = shtab.DIRECTORY if role in ("fills", "adds") else shtab.FILE
        commands.add_parser(name, help=told, parents=[made], add_help=False)
    script: str = shtab.complete(whole, shell)
    return script


def _parser_of(module: str) -> Parser:
    try:
        made: Parser = importlib.import_module(f"ResNeSt.{module}").make_parser()
    except ImportError:
        return Parser()
    return made


def _all_of(parser: Parser) -> list[Parser]:
    """It, and those of its sub-commands."""
    found = [parser]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found += action.choices.values()
    return found


if __name__ == "__main__":
    run(main)
