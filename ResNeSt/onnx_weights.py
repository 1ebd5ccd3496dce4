"""Weights that lie beside an ONNX file (external data): found, checked, put into one file, without the onnx package.

onnxsim's command writes weights above 100 MB so. A file says where each tensor lies: the name of a data file, an offset
and a length (onnx.proto, TensorProto.external_data). Whoever made it chose that name, and runtimes follow it; so only a
plain file in the same folder is taken, and only where it holds what the tensors say, to the last byte.
"""

from __future__ import annotations

import hashlib
import math
import mmap
import os
import stat
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Dict, Iterator, List, NamedTuple, Union

from ResNeSt.errors import PipelineError
from ResNeSt.files import PathLike, whole
from ResNeSt.protobuf import encoded_fields, fields, head, integer, integers, messages, string

# Where tensors stand in a model: for each kind of message its fields that hold messages, and of what kind.
_INSIDE: Dict[str, Dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_DIMS, _DATA_TYPE, _NAME, _RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION = 1, 2, 8, 9, 13, 14
_EXTERNAL = 1  # of TensorProto.DataLocation
# Bytes of a value by TensorProto.DataType; of other types the length is taken as it is given.
_ITEM_SIZES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}
_PADDING = 1 << 16  # writers align to this at most; what lies further behind the last tensor is of something else
MESSAGE_LIMIT = (1 << 31) - 1  # bytes of a protobuf message

Buffer = Union[bytes, memoryview]


class _Place(NamedTuple):
    """Where the values of a tensor lie; `size` is in bytes."""

    tensor: str
    file: str
    offset: int
    size: int
    checksum: str


def data_files(path: PathLike, model: memoryview) -> List[str]:
    """Names of the files beside `path` that hold weights of it, `model` being its content; none for most.

    Raises PipelineError that names the data file where one is not in the same folder, is missing, a link or another
    thing than a plain file, cut short, or of another model; ValueError where `model` is damaged.
    """
    by_file: Dict[str, List[_Place]] = {}
    for tensor in _tensors("model", model):
        if _is_external(tensor):
            place = _place(path, tensor)
            by_file.setdefault(place.file, []).append(place)
    for file, places in by_file.items():
        _check(path, Path(path).parent / file, places)
    return list(by_file)


def in_one_file(source: PathLike, target: PathLike) -> None:
    """Writes the ONNX file `source` to `target` with all weights inside; everything else stays as it is, to the byte.

    Raises PipelineError where the weights are not what `data_files` takes, or where one file cannot hold them.
    """
    model = mapped(source)
    try:
        files = {name: mapped(Path(source).parent / name) for name in data_files(source, model)}
        parts = _inlined("model", model, source, files)
    except (ValueError, RecursionError) as error:
        raise PipelineError(f"{source}: not a whole ONNX file ({error}); export or copy it again") from None
    if sum(map(len, parts)) > MESSAGE_LIMIT:
        raise PipelineError(f"{source}: has more than 2 GB of weights, which one ONNX file cannot hold")
    with whole(target) as temporary, open(temporary, "wb") as file:
        file.writelines(parts)


def mapped(path: PathLike) -> memoryview:
    """The content of a file; the map closes itself with the last view of it. Raises ValueError for an empty file."""
    with open(path, "rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _inlined(kind: str, content: memoryview, path: PathLike, files: Dict[str, memoryview]) -> List[Buffer]:
    """The parts of a message of this kind, with the values of its tensors in it."""
    if kind == "tensor" and _is_external(content):
        place = _place(path, content)
        values = files[place.file][place.offset : place.offset + place.size]
        rest = [field for number, _, field in encoded_fields(content) if number not in (_EXTERNAL_DATA, _DATA_LOCATION)]
        return [*rest, head(_RAW_DATA, place.size), values]
    parts: List[Buffer] = []
    for number, value, field in encoded_fields(content):
        if number in _INSIDE[kind] and isinstance(value, memoryview):
            inner = _inlined(_INSIDE[kind][number], value, path, files)
            parts += [head(number, sum(map(len, inner))), *inner]
        else:
            parts.append(field)
    return parts


def _tensors(kind: str, content: memoryview) -> Iterator[memoryview]:
    if kind == "tensor":
        yield content
    for number, value in fields(content) if _INSIDE[kind] else ():
        if number in _INSIDE[kind] and isinstance(value, memoryview):
            yield from _tensors(_INSIDE[kind][number], value)


def _is_external(tensor: memoryview) -> bool:
    return integers(tensor, _DATA_LOCATION)[-1:] == [_EXTERNAL]


def _place(path: PathLike, tensor: memoryview) -> _Place:
    name = string(tensor, _NAME)
    pairs = [(string(entry, 1), string(entry, 2)) for entry in messages(tensor, _EXTERNAL_DATA)]
    said = dict(pairs)
    if len(said) < len(pairs):
        raise ValueError(f"weight {name} says twice where it lies")
    parts = PurePosixPath(said.get("location", "")).parts
    if len(parts) != 1 or parts[0] in ("..", "/"):
        raise PipelineError(
            f"{path}: its weights lie in {said.get('location', '')!r}, and only a file in its own folder is read; "
            "save it with its weights beside it or in one file"
        )
    expected = math.prod(integers(tensor, _DIMS)) * _ITEM_SIZES.get(integer(tensor, _DATA_TYPE), 0)
    offset, size = _whole_number(said.get("offset", "0")), _whole_number(said.get("length", str(expected)))
    if expected and size != expected:
        raise ValueError(f"weight {name} takes {expected} bytes, {size} are said to lie in {parts[0]}")
    return _Place(name, parts[0], offset, size, said.get("checksum", "").lower())


def _whole_number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise ValueError(f"a weight lies at {text[:20]!r}")
    return int(text)


def _check(path: PathLike, file: Path, places: List[_Place]) -> None:
    again = "make or copy both files again"
    if not os.path.lexists(file):
        raise PipelineError(f"{file}: no such file; it holds weights of {path}, {again}")
    found = os.lstat(file)
    if not stat.S_ISREG(found.st_mode):
        kind = "a link" if stat.S_ISLNK(found.st_mode) else "not a file"
        raise PipelineError(f"{file}: is {kind}; the weights of {path} must lie in a plain file beside it")
    end = max(place.offset + place.size for place in places)
    ends = f"{file}: {found.st_size:,} bytes, the weights of {path} end at {end:,}"
    if found.st_size < end:
        raise PipelineError(f"{ends}; it is cut short or of another model, {again}")
    with open(file, "rb") as data:
        data.seek(end)
        rest = data.read(_PADDING + 1)
        if len(rest) > _PADDING or any(rest):
            raise PipelineError(f"{ends}; it is of another model, {again}")
        wrong = next((place for place in places if place.checksum and place.checksum != _sha1(data, place)), None)
    if wrong is not None:
        raise PipelineError(f"{file}: weight {wrong.tensor} of {path} has another checksum; {again}")


def _sha1(file: BinaryIO, place: _Place) -> str:
    """The checksum that the format has: it finds damage, and keeps nobody out."""
    file.seek(place.offset)
    return hashlib.sha1(file.read(place.size), usedforsecurity=False).hexdigest()
