"""The stand-in's `.om`: a valid header and partition table, whose model definition is an ONNX file that can be run.

Layout: contract om (256 bytes of header, then a partition table with 24-byte entries). What the stand-in client needs
to know about inputs and AIPP is JSON in the partition for input and output information.
"""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

# magic, header size, version, checksum, length, encrypted, checksummed, model type, generation mode, name, operators,
# user-defined information, IR version, models, platform version, platform type, model length.
_HEADER = struct.Struct("<4sII64sIBBBB32sI32sII20sB3xQ64x")
_COUNT = struct.Struct("<I4x")
_ENTRY = struct.Struct("<I4xQQ")
_MAGIC = b"IMOD"
_VERSION = 0x20000000
_MODEL_DEFINITION = 0
_INPUT_OUTPUT_INFORMATION = 8
# Nobody shall take a stand-in's file for a real one.
_PLATFORM_VERSION = b"stand-in"


def write(path: Path, graph: bytes, operators: int, description: dict[str, Any]) -> None:
    """Writes `path` with mode 0600, as the real compiler does."""
    partitions = [(_MODEL_DEFINITION, graph), (_INPUT_OUTPUT_INFORMATION, json.dumps(description).encode())]
    body = _table(partitions) + b"".join(payload for _, payload in partitions)
    header = _header(path.name[: -len(".om")], operators, len(body))
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(header + body)


def _header(name: str, operators: int, model_length: int) -> bytes:
    magic = (_MAGIC, _HEADER.size, _VERSION, b"", 0)
    flags = (0, 0, 0, 0)
    model = (name.encode()[:31], operators, b"", 0, 1, _PLATFORM_VERSION, 0, model_length)
    return _HEADER.pack(*magic, *flags, *model)


def _table(partitions: list[tuple[int, bytes]]) -> bytes:
    table, offset = _COUNT.pack(len(partitions)), 0
    for kind, payload in partitions:
        table += _ENTRY.pack(kind, offset, len(payload))
        offset += len(payload)
    return table


def read(path: str) -> tuple[dict[str, Any], bytes]:
    """The description and the ONNX graph in `path`; raises ValueError where the file is not a whole stand-in `.om`."""
    content = Path(path).read_bytes()
    if content[:4] != _MAGIC or len(content) < _HEADER.size:
        raise ValueError(f"{path}: no IMOD header")
    platform, _, model_length = _HEADER.unpack_from(content)[-3:]
    if platform.rstrip(b"\0") != _PLATFORM_VERSION:
        raise ValueError(f"{path}: not compiled by the stand-in")
    if model_length + _HEADER.size != len(content):
        raise ValueError(f"{path}: {len(content)} bytes, the header speaks of {model_length + _HEADER.size}")
    partitions = _partitions(content[_HEADER.size :])
    return json.loads(partitions[_INPUT_OUTPUT_INFORMATION]), partitions[_MODEL_DEFINITION]


def _partitions(body: bytes) -> dict[int, bytes]:
    (count,) = _COUNT.unpack_from(body)
    entries = [_ENTRY.unpack_from(body, _COUNT.size + index * _ENTRY.size) for index in range(count)]
    payload = body[_COUNT.size + count * _ENTRY.size :]
    return {kind: payload[offset : offset + size] for kind, offset, size in entries}
