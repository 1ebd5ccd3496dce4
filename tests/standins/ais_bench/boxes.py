"""What typer prints through rich: usage errors and the frames of a traceback in a box, 80 characters wide."""

from __future__ import annotations

import sys
import textwrap
import traceback
from types import TracebackType

WIDTH = 80


def boxed(title: str, text: str) -> str:
    """The text in a box, wrapped."""
    lines = [part for line in text.splitlines() for part in textwrap.wrap(line, WIDTH - 4) or [""]]
    top = f"╭─ {title} ".ljust(WIDTH - 1, "─") + "╮"
    middle = [f"│ {line.ljust(WIDTH - 4)} │" for line in lines]
    return "\n".join([top, *middle, "╰" + "─" * (WIDTH - 2) + "╯"])


def print_exception(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """In place of sys.excepthook: the exception comes below the box, wrapped as well."""
    frames = "".join(traceback.format_tb(trace))
    print(boxed("Traceback (most recent call last)", frames), file=sys.stderr)
    print("\n".join(textwrap.wrap(f"{kind.__name__}: {error}", WIDTH)), file=sys.stderr)
