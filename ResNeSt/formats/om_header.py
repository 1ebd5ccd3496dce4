"""The header of a compiled Ascend model (`.om`): 256 bytes, little-endian (Ascend GraphEngine, framework types)."""

from __future__ import annotations

import dataclasses
import os
import struct

from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import PathLike

HEADER_SIZE = 256
MAGIC = b"IMOD"
TYPES = ("IR", "standard", "tiny", "flow", "lite", "bundle")

# magic, header size, length in older files, type, model name, operators, IR version, platform version, model length
_LAYOUT = struct.Struct("<4s I 68x I 2x B x 32s I 32x I 4x 20s 4x Q")


@dataclasses.dataclass(frozen=True)
class Om:
    """What the header of a compiled model says; `size` is the file's, in bytes."""

    name: str
    type: str
    ir_version: int
    operators: int
    platform: str
    size: int

    def __str__(self) -> str:
        return (
            f"model {self.name or '-'}, type {self.type}, IR version {self.ir_version}, {self.operators} operators, "
            f"platform {self.platform or '-'}, {self.size:,} bytes"
        )


def read(path: PathLike) -> Om:
    """The header of the `.om` at `path`; raises PipelineError where it is none, or is cut short."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        data = file.read(HEADER_SIZE)
    if len(data) < HEADER_SIZE or not data.startswith(MAGIC):
        raise PipelineError(f"{path}: not a compiled Ascend model (no IMOD header); compile it again")
    _, header, old_length, kind, name, operators, ir_version, platform, length = _LAYOUT.unpack_from(data)
    expected = HEADER_SIZE + (length or old_length)
    if header != HEADER_SIZE or size != expected:
        raise PipelineError(
            f"{path}: {size} bytes where its header ({header} bytes) speaks of {expected}; compile it again"
        )
    type_name = TYPES[kind] if kind < len(TYPES) else f"number {kind}"
    return Om(_text(name), type_name, ir_version, operators, _text(platform), size)


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "replace")
