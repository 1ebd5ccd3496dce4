"""What a service is started with."""

from __future__ import annotations

import argparse
import dataclasses
import ipaddress
import re
import socket
from collections.abc import Sequence
from pathlib import Path

from ResNeSt.common.errors import ArgumentError, PipelineError
from ResNeSt.common.files import PathLike
from ResNeSt.engines.image_batches import ModelChoice

MAX_BODY = 32 << 20
QUEUE = 256
_UNITS = {"": 0, "B": 0, "KB": 10, "MB": 20, "GB": 30}
LARGEST_BODY = 1 << 30  # what a gRPC message can have is below 2 GB


@dataclasses.dataclass(frozen=True)
class Service:
    """A service to be started.

    `models` are the files of one model, a batch size each; `name` is what clients call it (empty: as its file says).
    Port 0 is any free one. `max_body` are bytes of a request, `queue` images that wait or run at once. Beyond loopback
    it takes a `token_file`, whose text clients send as "Authorization: Bearer TEXT", or `no_auth`. `names` is a file
    with a class name a line. `log_requests` prints a line a request.
    """

    models: Sequence[ModelChoice]
    name: str = ""
    host: str = "127.0.0.1"
    http_port: int = 8080
    grpc_port: int = 8081
    max_body: int = MAX_BODY
    queue: int = QUEUE
    token_file: PathLike | None = None
    no_auth: bool = False
    names: PathLike | None = None
    log_requests: bool = False

    def check(self) -> None:
        """Raises ArgumentError for what cannot be served, and what `address` and `token` raise."""
        if not self.models:
            raise ArgumentError("no model files; name one with --model")
        if self.name and (plain_name(self.name) != self.name or len(self.name) > 128):
            raise ArgumentError(
                f"--name {self.name!r:.150}, expected letters, digits, '_', '-' and '.', the first no sign, 128 at most"
            )
        if self.token_file is not None and self.no_auth:
            raise ArgumentError("--token-file and --no-auth contradict each other; leave one out")
        if self.http_port == self.grpc_port != 0:
            raise ArgumentError(f"--http-port and --grpc-port are both {self.http_port}, expected one each")
        if not 1 <= self.max_body <= LARGEST_BODY or not 1 <= self.queue <= 1 << 20:
            raise ArgumentError(f"--max-body {self.max_body}, --queue {self.queue}: expected 1 B to 1 GB, 1 to 2^20")
        self.address()
        self.token()

    def address(self) -> str:
        """The numeric address to listen on; raises ArgumentError where it is not loopback and nobody need know a token.

        It is looked up once: a name that is another address a moment later cannot open the service to others.
        """
        try:
            found = socket.getaddrinfo(self.host, None, type=socket.SOCK_STREAM) if self.host else []
        except (OSError, UnicodeError):
            found = []
        addresses = sorted({str(entry[4][0]) for entry in found}, key=lambda one: (":" in one, one))
        if not addresses:
            raise ArgumentError(f"--host {self.host!r} is no address of this machine; expected one, like 127.0.0.1")
        address = addresses[0]
        if not ipaddress.ip_address(address.split("%")[0]).is_loopback and self.token_file is None and not self.no_auth:
            raise ArgumentError(
                f"--host {self.host}: others could ask there; name a --token-file, or say --no-auth where a proxy asks "
                "for one"
            )
        return address

    def token(self) -> str | None:
        """The text of `token_file`; raises PipelineError where it is no token."""
        if self.token_file is None:
            return None
        text = Path(self.token_file).read_bytes().strip()
        if not re.fullmatch(rb"[!-~]{16,4096}", text):
            raise PipelineError(
                f"{self.token_file}: holds no token; expected one line of 16 or more printable ASCII characters "
                "without spaces, such as `openssl rand -hex 32` prints"
            )
        return text.decode("ascii")


def plain_name(text: str) -> str:
    """`text` as a part of a URL and the name of a folder that need no quotes; may be empty."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", text).lstrip("._-")


def size(text: str) -> int:
    """Bytes, as `32MB` or `33554432`: KB, MB and GB are powers of 1,024."""
    match = re.fullmatch(r"(\d{1,12}) ?([KMG]?B?)", text.strip().upper().replace("IB", "B"))
    unit = match[2] if match else ""
    unit = unit if unit in _UNITS else f"{unit}B"
    found = int(match[1]) << _UNITS[unit] if match else 0
    if not 1 <= found <= LARGEST_BODY:
        raise argparse.ArgumentTypeError(f"{text[:20]!r} is no size from 1B to 1GB, like 32MB")
    return found


def port(text: str) -> int:
    """A TCP port; 0 is any that is free."""
    if not re.fullmatch(r"\d{1,5}", text) or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text[:20]!r} is no port from 0 to 65535")
    return int(text)
