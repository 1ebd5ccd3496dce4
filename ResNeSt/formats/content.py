"""What a file that is given as a checkpoint is, told by its content: suffixes lie, and downloads are of error pages."""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path

from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import PathLike

HEAD = 4096
TORCH, SAFETENSORS, MINDSPORE, PICKLE = "torch", "safetensors", "mindspore", "pickle"
_BY_SUFFIX = {".ckpt": MINDSPORE, ".pdparams": PICKLE, ".safetensors": SAFETENSORS}
# torch.save before 1.6 wrote several pickles one behind the other; the first is this number.
_LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_UNPACK = "unpack it and give the checkpoint in it"
_AGAIN = "download it again"
_SIGNATURES = [
    (b"\x1f\x8b", "a gzip archive", _UNPACK),
    (b"BZh", "a bzip2 archive", _UNPACK),
    (b"\xfd7zXZ\0", "an xz archive", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (b"\x89HDF\r\n", "an HDF5 file, as Keras writes it", "give a checkpoint of PyTorch"),
    (b"\x93NUMPY", "a single NumPy array", "give the whole checkpoint"),
    (b"\x89PNG", "a picture", "give the checkpoint"),
    (b"\xff\xd8\xff", "a picture", "give the checkpoint"),
    (b"version https://git-lfs", "the pointer that Git LFS keeps in place of the file", "fetch it with git lfs pull"),
    (b"IMOD", "a compiled model (.om)", "give the checkpoint that it was made of"),
]
_ONNX = re.compile(rb"\x08.[\x12\x1a\x3a\x42]", re.DOTALL)  # IR version, then producer, graph or operator sets
_CKPT = re.compile(rb"\n[\x80-\xff]*[\x00-\x7f]\n.[\x20-\x7e]+\x12", re.DOTALL)  # a Value whose first field is a tag


def kind(path: PathLike) -> str:
    """TORCH, SAFETENSORS, MINDSPORE or PICKLE; where the first bytes say nothing, what the suffix says.

    Raises PipelineError that says what the file is where it is something else.
    """
    path = Path(path)
    if not path.is_file():
        what = "is a folder, expected a file" if path.is_dir() else "no such file"
        raise PipelineError(f"{path}: {what}; give the checkpoint, or 'auto' to fetch the official one")
    with open(path, "rb") as file:
        head = file.read(HEAD)
    known = _known(path, head)
    if known is None:
        _refuse_other(path, head)
    return known or _BY_SUFFIX.get(path.suffix.lower(), TORCH)


def _known(path: Path, head: bytes) -> str | None:
    if head.startswith(b"PK\x03\x04"):
        _check_zip(path)
        return TORCH
    if head.startswith(_LEGACY_TORCH):
        return TORCH
    if re.match(rb"\x80[\x02-\x05]", head):
        return PICKLE
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= os.path.getsize(path):
        return SAFETENSORS
    return MINDSPORE if _CKPT.match(head) else None


def _check_zip(path: Path) -> None:
    """Raises PipelineError for a zip archive that torch.save did not write, or whose bytes are not those it wrote."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.partition("/")[2] for name in archive.namelist()]
            first = (archive.namelist() or ["nothing"])[0]
            for member in archive.infolist():
                # Torch does not look at the checksums; it leaves them 0 where it was told to save the time.
                if member.CRC and member.compress_type == zipfile.ZIP_STORED:
                    _read_through(archive, member)
    except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, ValueError):
        raise PipelineError(
            f"{path}: is a zip archive, as PyTorch writes them, cut short or damaged; copy it again"
        ) from None
    if "constants.pkl" in names:
        raise _other(path, "a TorchScript archive", "give the checkpoint that it was made of")
    if "data.pkl" not in names:
        raise _other(path, f"a zip archive that holds {first!r}", "give a checkpoint as torch.save writes it")


def _read_through(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Raises BadZipFile where the content is not of the checksum."""
    with archive.open(member) as content:
        while content.read(1 << 20):
            pass


def _refuse_other(path: Path, head: bytes) -> None:
    if not head:
        raise PipelineError(f"{path}: is empty, expected a checkpoint; copy it again")
    for start, what, advice in _SIGNATURES:
        if head.startswith(start):
            raise _other(path, what, advice)
    if head[257:262] == b"ustar":
        raise _other(path, "a tar archive", _UNPACK)
    if _ONNX.match(head):
        raise _other(path, "an ONNX file", "convert.sh takes it as it is: --onnx")
    text = head.decode("utf-8-sig", "replace").strip()
    if text[:1] == "<":
        raise _other(
            path, f"{'an HTML' if re.search('<html|<!doctype html', text, re.IGNORECASE) else 'an XML'} page", _AGAIN
        )
    is_text = text.count("\ufffd") <= 1 and all(each.isprintable() or each.isspace() for each in text)  # one is cut
    if text.strip("\ufffd") and is_text:
        what = "JSON text" if text[:1] in ("{", "[") else "text"
        raise _other(path, f"{what} that begins with {text[:40]!r}", _AGAIN)


def _other(path: Path, what: str, advice: str) -> PipelineError:
    return PipelineError(f"{path}: is {what}, expected a checkpoint; {advice}")
