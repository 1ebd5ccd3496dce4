"""One error type for users, and the one place that turns it into a line and an exit code.

Exit codes: 0 done; 1 the work failed; 2 the command line was refused; 3 a program or package that the command needs
is not on this machine; 130 interrupted; 141 whoever read the output has gone (`| head -1`), as of a Unix program.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from typing import Callable, NoReturn

READER_GONE = 141
_UNPRINTED = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class PipelineError(Exception):
    """Something a user can act on: the message names the file, what was found, what was expected, what to do."""

    exit_code = 1


class FailedCommandError(PipelineError):
    """A command of this project that another one ran has failed; its exit code is passed on."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code if exit_code in (1, 2, 3, 130) else 1


class ArgumentError(PipelineError):
    """An option, or a combination of options, that cannot be carried out."""

    exit_code = 2


class MissingRuntimeError(PipelineError):
    """A program or package that this step needs is not installed here."""

    exit_code = 3


def run(main: Callable[[], int | None]) -> NoReturn:
    """Runs `main` and exits with its code; errors end in one line on stderr, never in a traceback."""
    _prepare_streams()
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:
        code = _gone()
    except (PipelineError, OSError, MemoryError, KeyboardInterrupt) as error:
        code = _report(*told(error))
    sys.exit(code)


def told(error: BaseException) -> tuple[str, int]:
    """What a user is told of an error that is no bug, and the exit code."""
    if isinstance(error, PipelineError):
        return str(error), error.exit_code
    if isinstance(error, OSError):
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, (str, bytes, os.PathLike)) else ""
        return f"{where}{error.strerror or error}", 1
    if isinstance(error, MemoryError):
        return f"not enough memory ({error}); take a smaller batch or input size, or fewer threads", 1
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; run the same command again to go on", 130
    raise error


def library_text(error: BaseException) -> str:
    """What another package says of its error, fit for a message: its first line, without colours."""
    return f"{type(error).__name__}: {plain(str(error)).strip()}".split("\n", 1)[0].rstrip(".: ")


def plain(text: str) -> str:
    """The text without what only a terminal understands: colours, and characters that move its cursor."""
    return _UNPRINTED.sub("", text)


def _prepare_streams() -> None:
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:  # closed by the caller
            _open_nowhere(number)
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115 (as long as we are)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for file names that are no text, or not of its encoding


def _open_nowhere(number: int) -> None:
    """Puts /dev/null at a descriptor, which the next file to be opened would have, and be printed into."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != number:
        os.dup2(nowhere, number)
        os.close(nowhere)
    os.set_inheritable(number, True)


def _report(message: str, code: int) -> int:
    print("error: " + " ".join(plain(message).splitlines()), file=sys.stderr)
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    return code


def _gone() -> int:
    """Lets what is still to be written to stdout vanish without a word."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    return READER_GONE
