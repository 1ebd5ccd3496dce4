"""Weights that lie beside an ONNX file (external data): found, checked, put into one file, without the onnx package.

onnxsim's command writes weights above 100 MB so. A file says where each tensor lies: the name of a data file, an offset
and a length (onnx.proto, TensorProto.external_data). Whoever made it chose that name, and runtimes follow it; so only a
plain file in the same folder is taken, and only where it holds what the tensors say, to the last byte. What protobuf's
own parser would read in another way (a field twice, a number beyond its range) is refused as damage.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import mmap
import os
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Callable, TypeVar, Union

from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import PathLike, sha256, whole
from ResNeSt.formats.protobuf import encoded_fields, fields, head, integers, messages, string

# Where tensors stand in a model: for each kind of message its fields that hold messages, and of what kind.
_INSIDE: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
# Of these a message has one at most; protobuf would merge two.
_SINGLE = {"model": {7}, "training": {1, 2}, "attribute": {5, 6, 22}, "sparse": {1, 2}}
_DIMS, _DATA_TYPE, _NAME, _RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION = 1, 2, 8, 9, 13, 14
_DEFAULT, _EXTERNAL = 0, 1  # of TensorProto.DataLocation
# Bytes of a value by TensorProto.DataType; of other types the length is taken as it is given.
_ITEM_SIZES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}
_PADDING = 1 << 16  # writers align to this at most; what lies further behind the last tensor is of something else
_BLOCK = 1 << 20
_MESSAGE_LIMIT = (1 << 31) - 1  # bytes of a protobuf message


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where the values of a tensor lie; `size` is in bytes."""

    tensor: str
    file: Path
    offset: int
    size: int
    checksum: str

    def __len__(self) -> int:
        return self.size


Part = Union[bytes, memoryview, _Place]
Item = TypeVar("Item")


def data_files(path: PathLike, model: memoryview) -> list[str]:
    """Names of the files beside `path` that hold weights of it, `model` being its content; none for most.

    Raises PipelineError that names the data file where one is not in the same folder, is missing, a link or another
    thing than a plain file, cut short, or of another model; ValueError where `model` is damaged.
    """
    by_file: dict[Path, list[_Place]] = {}
    for tensor in _tensors("model", model):
        if _is_external(tensor):
            place = _place(Path(path), tensor)
            by_file.setdefault(place.file, []).append(place)
    for file, places in by_file.items():
        _check(path, file, places)
    return [file.name for file in by_file]


def sha256_of_onnx(path: PathLike) -> str:
    """Hex SHA-256 of an ONNX file: its own, or, where weights lie beside it, that of all files' digests."""
    files = [Path(path), *(Path(path).parent / name for name in _read(path, data_files))]
    digests = [sha256(file) for file in files]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def write_one_file(source: PathLike, target: PathLike) -> None:
    """Writes the ONNX file `source` to `target` with all weights inside; everything else stays as it is, to the byte.

    Raises PipelineError where the weights are not what `data_files` takes, or where one file cannot hold them.
    """
    parts = _read(source, _parts)
    with whole(target) as temporary, open(temporary, "wb") as file:
        for block in _blocks(parts):
            file.write(block)


def in_one_piece(source: PathLike) -> bytes:
    """What `write_one_file` writes."""
    return b"".join(_blocks(_read(source, _parts)))


def mapped(path: PathLike) -> memoryview:
    """The content of a file; the map closes itself with the last view of it."""
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            return memoryview(b"")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _read(path: PathLike, reader: Callable[[PathLike, memoryview], list[Item]]) -> list[Item]:
    try:
        return reader(path, mapped(path))
    except (ValueError, RecursionError) as error:
        raise PipelineError(f"{path}: not a whole ONNX file ({error}); export or copy it again") from None


def _parts(path: PathLike, model: memoryview) -> list[Part]:
    """The whole model, weights inside; raises PipelineError where it is larger than a file can be."""
    data_files(path, model)
    parts = _inlined("model", model, Path(path))
    if sum(map(len, parts)) > _MESSAGE_LIMIT:
        raise PipelineError(f"{path}: has more than 2 GB of weights, which one ONNX file cannot hold")
    return parts


def _inlined(kind: str, content: memoryview, path: Path) -> list[Part]:
    """The parts of a message of this kind, with the values of its tensors in it."""
    if kind == "tensor" and _is_external(content):
        place = _place(path, content)
        rest = [field for number, _, field in encoded_fields(content) if number not in (_EXTERNAL_DATA, _DATA_LOCATION)]
        return [*rest, head(_RAW_DATA, place.size), place]
    parts: list[Part] = []
    for number, value, field in encoded_fields(content):
        if number in _INSIDE[kind] and isinstance(value, memoryview):
            inner = _inlined(_INSIDE[kind][number], value, path)
            parts += [head(number, sum(map(len, inner))), *inner]
        else:
            parts.append(field)
    return parts


def _blocks(parts: list[Part]) -> Iterator[bytes | memoryview]:
    for part in parts:
        if not isinstance(part, _Place):
            yield part
            continue
        with open(part.file, "rb") as file:
            file.seek(part.offset)
            for start in range(0, part.size, _BLOCK):
                yield file.read(min(_BLOCK, part.size - start))


def _tensors(kind: str, content: memoryview) -> Iterator[memoryview]:
    if kind == "tensor":
        yield content
        return
    seen: Counter[int] = Counter()
    for number, value in fields(content):
        if number in _INSIDE[kind] and isinstance(value, memoryview):
            seen[number] += 1
            if seen[number] > 1 and number in _SINGLE.get(kind, ()):
                raise ValueError(f"a second {_INSIDE[kind][number]} where {kind} has one")
            yield from _tensors(_INSIDE[kind][number], value)


def _is_external(tensor: memoryview) -> bool:
    locations = [value for number, value in fields(tensor) if number == _DATA_LOCATION]
    if len(locations) > 1 or any(value not in (_DEFAULT, _EXTERNAL) for value in locations):
        raise ValueError("a weight does not say in one way whether it lies in another file")
    return locations == [_EXTERNAL]


def _place(path: Path, tensor: memoryview) -> _Place:
    name = string(tensor, _NAME)
    pairs = [(string(entry, 1), string(entry, 2)) for entry in messages(tensor, _EXTERNAL_DATA)]
    said = dict(pairs)
    types = integers(tensor, _DATA_TYPE)
    if len(said) < len(pairs) or len(types) > 1:
        raise ValueError(f"weight {name} says twice where or what it is")
    location = said.get("location", "")
    while location.startswith("./"):
        location = location[2:]
    if not location or "/" in location or location.startswith("."):
        raise PipelineError(
            f"{path}: its weights lie in {said.get('location', '')!r}, and only a file in its own folder is read; "
            "save it with its weights beside it or in one file"
        )
    expected = math.prod(integers(tensor, _DIMS)) * _ITEM_SIZES.get(types[0] if types else 0, 0)
    offset, size = _whole_number(said.get("offset", "0")), _whole_number(said.get("length", str(expected)))
    if expected and size != expected:
        raise ValueError(f"weight {name} takes {expected} bytes, {size} are said to lie in {location}")
    return _Place(name, path.parent / location, offset, size, said.get("checksum", "").lower())


def _whole_number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise ValueError(f"a weight lies at {text[:20]!r}")
    return int(text)


def _check(path: PathLike, file: Path, places: list[_Place]) -> None:
    again = "make or copy both files again"
    if not os.path.lexists(file):
        raise PipelineError(f"{file}: no such file; it holds weights of {path}, {again}")
    status = os.lstat(file)
    if not stat.S_ISREG(status.st_mode):
        kind = "a link" if stat.S_ISLNK(status.st_mode) else "not a file"
        raise PipelineError(f"{file}: is {kind}; the weights of {path} must lie in a plain file beside it")
    end = max(place.offset + place.size for place in places)
    ends = f"{file}: {status.st_size:,} bytes, the weights of {path} end at {end:,}"
    if status.st_size < end:
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
