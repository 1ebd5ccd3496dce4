"""The header of compiled Ascend models."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from ResNeSt.common.errors import PipelineError
from ResNeSt.formats import om_header

GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "golden" / "om"


def model_file(path: Path, body: bytes = b"x" * 1000, length: int | None = None, old_length: int = 0) -> Path:
    """A file laid out by hand, field by field, as GraphEngine writes it."""
    header = bytearray(256)
    header[0:4] = b"IMOD"
    struct.pack_into("<II", header, 4, 256, 0x20000000)
    struct.pack_into("<I", header, 76, old_length)
    header[82] = 1
    header[84:97] = b"resnest50_bs8"
    struct.pack_into("<I", header, 116, 123)
    struct.pack_into("<II", header, 152, 5, 1)
    header[160:171] = b"Ascend310P3"
    struct.pack_into("<Q", header, 184, len(body) if length is None else length)
    path.write_bytes(bytes(header) + body)
    return path


def test_every_field_is_read_from_its_place(tmp_path: Path) -> None:
    found = om_header.read(model_file(tmp_path / "a.om"))
    assert found == om_header.Om("resnest50_bs8", "standard", 5, 123, "Ascend310P3", 1256)


def test_the_length_of_older_files_counts_where_the_newer_field_is_empty(tmp_path: Path) -> None:
    assert om_header.read(model_file(tmp_path / "a.om", length=0, old_length=1000)).size == 1256
    with pytest.raises(PipelineError, match="1256 bytes where its header"):
        om_header.read(model_file(tmp_path / "b.om", length=0, old_length=1001))


@pytest.mark.parametrize("size", [0, 4, 255, 256, 700, 1255])
def test_a_file_cut_short_is_refused(tmp_path: Path, size: int) -> None:
    path = model_file(tmp_path / "a.om")
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(PipelineError, match=r"a\.om"):
        om_header.read(path)


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.om"
    path.write_bytes(b"\x08\x06\x12\x07pytorch" * 100)
    with pytest.raises(PipelineError, match="no IMOD header"):
        om_header.read(path)


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="no golden files here")
@pytest.mark.parametrize(
    ("name", "model", "kind", "ir_version"),
    [
        ("dynamic_and_static_graph_without_unfold.om", "root", "IR", 0),
        ("flow_model.om", "", "flow", 0),
        ("root_model.om", "test_graph_cache", "IR", 0),
    ],
)
def test_real_files_are_read(name: str, model: str, kind: str, ir_version: int) -> None:
    found = om_header.read(GOLDEN / name)
    assert (found.name, found.type, found.ir_version) == (model, kind, ir_version)


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="no golden files here")
def test_a_real_file_cut_short_by_one_byte_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "root_model.om"
    path.write_bytes((GOLDEN / path.name).read_bytes()[:-1])
    with pytest.raises(PipelineError, match="compile it again"):
        om_header.read(path)
