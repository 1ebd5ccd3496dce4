"""Where and with what a figure was measured."""

from __future__ import annotations

import datetime
import platform
from importlib import metadata
from typing import Any

from ResNeSt.common.cores import cores

PACKAGES = ("ais_bench", "aclruntime", "openvino", "ncnn", "numpy")


def now() -> str:
    """The time to the second, as ISO 8601 has it, in UTC."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def environment(chip: str) -> dict[str, Any]:
    """Where and with what a figure was measured."""
    return {
        "date": now(),
        "host": platform.node(),
        "machine": platform.machine(),
        "cores": cores(),
        "chip": chip,
        "python": platform.python_version(),
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def about(chip: str) -> dict[str, str]:
    """The same in words, for a report."""
    fields = environment(chip)
    versions = fields.pop("versions")
    return {**{key: str(value) for key, value in fields.items()}, **versions}
