"""Whether a Ray cluster answers at an address, found out in seconds: Ray itself tries for minutes, and prints."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import subprocess
import sys
from typing import NamedTuple

from ResNeSt.common.errors import ArgumentError, PipelineError, plain

LOCAL = "local"
CONNECT_S, JOIN_S = 3, 15  # for the port to open, for this process to be taken in
LOOPBACK_ONLY = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # 0: Ray stays on 127.0.0.1, on Linux as well
HELP = "docs/cluster.md says how a cluster is started"
# The same connection as the command's own, in a process that can be ended while Ray's C++ part waits. The first client
# is refused at once where the token is another; ray.init goes on trying.
_JOIN = """
import logging, sys, ray
ray._raylet.GcsClient(address=sys.argv[1])
ray.init(address=sys.argv[1], log_to_driver=False, logging_level=logging.CRITICAL)
print(sum(node["Alive"] for node in ray.nodes()))
ray.shutdown()
"""


class Address(NamedTuple):
    """Where the head of a cluster listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse(text: str) -> Address:
    """`10.0.0.1:6379`, `head:6379` or `[::1]:6379`; raises ArgumentError for anything else."""
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([\w.-]+)):(\d{1,5})", text)
    if found is None or not 1 <= int(found[3]) <= 65535:
        raise ArgumentError(f"--ray {text}: expected HOST:PORT of a cluster's head, such as 10.0.0.1:6379, or {LOCAL}")
    return Address(found[1] or found[2], int(found[3]))


def check(text: str) -> str:
    """The address for Ray, once a cluster there has taken in a process of this machine.

    Raises ArgumentError for what is no address, PipelineError where nothing answers, where it is no cluster, or one
    that does not take this machine in.
    """
    address = parse(text)
    _knock(address)
    if _is_loopback(address.host) and not _opens(Address(_own_address(), address.port)):
        os.environ[LOOPBACK_ONLY] = "0"  # else Ray goes to this machine's own address, where such a head is not
    try:
        joined = subprocess.run(
            [sys.executable, "-c", _JOIN, str(address)], capture_output=True, text=True, timeout=JOIN_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise PipelineError(
            f"--ray {text}: something listens there, but takes this machine into no cluster within {JOIN_S} s; run "
            f"this on a node of the cluster, with the head's own address; {HELP}"
        ) from None
    if joined.returncode:
        raise PipelineError(f"--ray {text}: {_why(joined.stderr)}; {HELP}")
    return str(address)


def _why(printed: str) -> str:
    if "AuthToken" in printed or "AuthenticationError" in printed:
        return "the cluster takes another token than this process has (RAY_AUTH_MODE, RAY_AUTH_TOKEN_PATH)"
    # The last error may have lines of its own, such as those on two versions.
    errors = re.split(r"(?m)^[\w.]+(?:Error|Exception): ", plain(printed))
    said = " ".join(errors[-1].split()).rstrip(".")
    return f"the cluster does not take this process in ({said or 'it says nothing'})"


def _knock(address: Address) -> None:
    try:
        socket.create_connection(address, CONNECT_S).close()
    except OSError as error:
        why = error.strerror or str(error)
        raise PipelineError(f"--ray {address}: no cluster answers there ({why}); {HELP}") from None


def _opens(address: Address) -> bool:
    try:
        socket.create_connection(address, CONNECT_S).close()
    except OSError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _own_address() -> str:
    """That of the interface which leads to other machines; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])
