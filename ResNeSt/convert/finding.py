"""A line of what `convert.sh --check` reports."""

from __future__ import annotations

from typing import NamedTuple

OK, NOTE, FAILS = "ok", "note", "FAILS"


class Finding(NamedTuple):
    """OK, NOTE or FAILS, what was looked at, what was found and, if it matters, what to do."""

    verdict: str
    subject: str
    text: str

    def __str__(self) -> str:
        return f"{self.verdict:5}  {self.subject:9}  {self.text}"
