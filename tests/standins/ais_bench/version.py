"""Which of the client's two command lines the stand-in has: that of the version that is installed, or was asked for."""

from __future__ import annotations

import os
from importlib import metadata


def dashes() -> bool:
    """Whether it is 0.1.0 (typer, dashes, bare switches), not 0.0.2 (argparse, underscores, switches with a value)."""
    try:
        version = metadata.version("ais_bench")
    except metadata.PackageNotFoundError:
        version = os.environ.get("STANDIN_AIS_BENCH", "0.0.2")
    return version == "0.1.0"
