"""Nothing leaves the machine: the runtimes that report their use are told not to, before they are imported.

ONNX Runtime (from 1.31 on Linux) starts an uploader and keeps a device id in the home directory as soon as it is
imported; `import openvino` imports OpenVINO's model converter, which reports the import and keeps a client id. Ray
reports its use from whatever process starts a cluster.
"""

from __future__ import annotations

import os
import sys


def refuse() -> None:
    """Switches telemetry off for this process and those it starts; to be called before a runtime is imported."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # None makes `import openvino_telemetry` fail, and OpenVINO falls back to the empty stand-in that it ships.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
