"""What a task does first on a node, sent there by value: whether the node has this very release.

Nothing of the package is imported before that is known, and what it is then to do is unpacked by the package itself.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import socket
import sys

WORKER = "ResNeSt.cluster.worker"


def project_digest() -> str:
    """Hex SHA-256 of all files of the package that this interpreter would import; empty where there is none."""
    spec = importlib.util.find_spec("ResNeSt")
    digest = hashlib.sha256()
    for root in (spec and spec.submodule_search_locations) or []:
        for folder, folders, names in os.walk(root):
            folders.sort()
            for name in sorted(names):
                if name.endswith((".py", ".json", ".tsv", ".css")):
                    path = os.path.join(folder, name)
                    with open(path, "rb") as file:
                        digest.update(os.path.relpath(path, root).encode() + b"\0" + file.read() + b"\0")
        return digest.hexdigest()
    return ""


def work(expected: str, cwd: str, payload: bytes) -> tuple[str, str, bytes]:
    """("done" or "refused", the node, what the worker gives or why); `expected` is the driver's `project_digest`."""
    import ray

    node = f"{socket.gethostname()} ({ray.util.get_node_ip_address()})"
    if WORKER not in sys.modules:  # once in a process
        if os.path.isdir(cwd):
            os.chdir(cwd)  # for paths that are not absolute
        found = project_digest()
        if found != expected:
            what = f"has another release of this project in {os.getcwd()} or on its PYTHONPATH" if found else "has none"
            reason = f"{what} (SHA-256 {found[:12] or 'none'}, here {expected[:12]}); copy this one there"
            return "refused", node, reason.encode()
    answer: tuple[str, str, bytes] = importlib.import_module(WORKER).run(node, payload)
    return answer
