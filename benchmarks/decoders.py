"""Work with native/ and without it, so that each table says what it gives."""

from __future__ import annotations

import os
from typing import Callable, TypeVar

from ResNeSt.images.native import PILLOW, SWITCH, decoder, library

Made = TypeVar("Made")


def decoders() -> dict[str, str]:
    """Who decodes, and the SWITCH that makes it so; Pillow alone where native/ is not built."""
    return {**({decoder(): "1"} if library() else {}), PILLOW: "0"}


def switched(switch: str, work: Callable[..., Made]) -> Callable[..., Made]:
    """`work`, for which native/ is switched on or off, in processes that it starts, too."""

    def run(*arguments: object) -> Made:
        os.environ[SWITCH] = switch
        try:
            return work(*arguments)
        finally:
            del os.environ[SWITCH]

    return run
