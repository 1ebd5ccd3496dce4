"""Why a run of ais_bench failed, out of what it printed: argparse's line, a traceback's last, or what a box frames."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from ResNeSt.common.errors import plain

LONGEST = 400  # characters of a reason
_DRAWN = "\u2500-\u259f"  # lines and blocks, of frames, tables and progress bars
_TOP = re.compile(r"[\u256d\u250c\u250f+][\u2500\u2501-]+(.*?)[\u2500\u2501-]*[\u256e\u2510\u2513+]$")
_BOTTOM = re.compile(r"[\u2570\u2514\u2517+][\u2500\u2501-]+[\u256f\u2518\u251b+]$")
_FRAMED = re.compile(r"[\u2502\u2503|](.*)[\u2502\u2503|]$")
_TRACEBACK = "Traceback (most recent call last)"
_LOGGED = re.compile(r"\[[A-Z_]+\]")
_ERROR = re.compile(r"\[ERROR\]\s*(?:subprocess run failed error_callback:)?\s*(.+)")
_USAGE = re.compile(r"\S.*?: error: (.+)")
_EXCEPTION = re.compile(r"(?:[A-Za-z_][\w.]*)?(?:Error|Exception|Exit|Interrupt|Fatal Python error)(?::.*)?$")
_CHAINED = re.compile(r"(?:The above exception|During handling) ")
_DEVICE = re.compile(r"(?:device|npu)[ _]?(?:id)?[ _:=#(\[]*(?:is )?(\d+)", re.IGNORECASE)


class Statement(NamedTuple):
    """Something the client said of a failure; `ends` if it is what a process ended with, not a line of its log."""

    text: str
    ends: bool

    @property
    def devices(self) -> set[int]:
        """The numbers of the devices that it names."""
        return set(map(int, _DEVICE.findall(self.text)))


def reason(text: str, failed: Iterable[int] = ()) -> str:
    """Why the client failed, of a log in which the processes of several devices may have written.

    `failed` are the devices that left nothing, where others did: what names one of them goes before what names none,
    and what names another is not asked.
    """
    wanted, said = set(failed), statements(text)
    named = [each for each in said if each.devices & wanted]
    unnamed = [each for each in said if not (wanted and each.devices)]
    own = named or unnamed
    last = [each for each in own if each.ends] or own
    if last:
        return last[-1].text[:LONGEST]
    words = [re.sub(f"[{_DRAWN}]+", "", line).strip() for line in _lines(text)]
    return next((line[:LONGEST] for line in reversed(words) if line), "it printed nothing")


def statements(text: str) -> list[Statement]:
    """What the log says of failures, in its order; an exception without a message says nothing."""
    lines = list(_lines(text))
    return [said for _, said in sorted([*_logged(lines), *_framed(lines), *_raised(lines)])]


def _logged(lines: Sequence[str]) -> Iterator[tuple[int, Statement]]:
    """Lines of the log, and argparse's."""
    for number, line in enumerate(lines):
        error, usage = _ERROR.match(line), _USAGE.match(line)
        if error:
            yield number, Statement(error[1], ends=False)
        elif usage:
            yield number, Statement(usage[1], ends=True)


def _framed(lines: Sequence[str]) -> Iterator[tuple[int, Statement]]:
    """What stands in a box; one around a traceback holds its frames alone, and the exception comes below it."""
    inside: list[str] | None = None
    for number, line in enumerate(lines):
        top, framed = _TOP.match(line), _FRAMED.match(line)
        if inside is not None and _BOTTOM.match(line):
            yield number, Statement(" ".join(filter(None, inside)), ends=True)
            inside = None
        elif inside is not None and framed:
            inside.append(framed[1].strip())
        elif top:
            inside = None if _TRACEBACK in top[1] else []


def _raised(lines: Sequence[str]) -> Iterator[tuple[int, Statement]]:
    """Exceptions: by their names, or as the first line below a traceback that is no frame of it."""
    traced = False
    for number, line in enumerate(lines):
        below = traced and re.match(r"[A-Za-z_]", line)
        if line.startswith(_TRACEBACK):
            traced = True
        elif below or _EXCEPTION.match(line):
            traced = False
            if ":" in line.rstrip(": "):
                yield number, Statement(" ".join([line, *_rest(lines[number + 1 :])]), ends=True)


def _rest(lines: Iterable[str]) -> Iterator[str]:
    """The lines that go on with a message which was too long for one."""
    for line in lines:
        borders = any(pattern.match(line) for pattern in (_TOP, _LOGGED, _EXCEPTION, _CHAINED))
        if not line.strip() or borders or line.startswith(_TRACEBACK):
            return
        yield line.strip()


def _lines(text: str) -> Iterator[str]:
    """Without colours, and with the states of a progress bar as lines of their own."""
    return (plain(line).rstrip() for line in re.split(r"\r?\n|\r", text))
