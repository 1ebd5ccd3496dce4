"""What an ONNX file says of itself, read without the onnx package, which an Ascend host does not have.

Walks the protobuf wire format (field numbers of onnx.proto, IR version 3 on) over a memory map. Weights are stepped
over, so a file of any size takes milliseconds.
"""

from __future__ import annotations

import dataclasses
import mmap
from typing import Dict, Iterator, List, NamedTuple, Tuple, Union

from ResNeSt.errors import PipelineError
from ResNeSt.files import PathLike

# TensorProto.DataType; a number that is not here is shown as it is.
DTYPES = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 10: "float16", 11: "float64", 16: "bfloat16"}

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_SIZES = {_FIXED64: 8, _FIXED32: 4}
_MODEL_GRAPH, _MODEL_OPSET, _MODEL_METADATA = 7, 8, 14
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT = 1, 5, 11, 12
_NODE_NAME, _NODE_OPERATOR = 3, 4
_TENSOR_NAME, _TENSOR_EXTERNAL_DATA = 8, 13


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A graph input or output; a dimension is a number, or the name of a free one ("" if it has none)."""

    name: str
    dtype: str
    shape: Tuple[Union[int, str], ...]


class Node(NamedTuple):
    """A node's name, which may be empty, and the type of its operator."""

    name: str
    operator: str


@dataclasses.dataclass(frozen=True)
class Header:
    """Graph inputs (weights left out), outputs and nodes, operator-set version and metadata_props of an ONNX file.

    `domains` are those of its operator sets ("" is ONNX's own), `external` whether weights lie in other files.
    """

    inputs: Tuple[Tensor, ...]
    outputs: Tuple[Tensor, ...]
    opset: int
    metadata: Dict[str, str]
    nodes: Tuple[Node, ...]
    domains: Tuple[str, ...]
    external: bool


def read(path: PathLike) -> Header:
    """The header of the ONNX file at `path`; raises PipelineError where it is damaged, cut short or something else."""
    with open(path, "rb") as file:
        try:
            # The map closes itself with the last view of it.
            return _header(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
        except ValueError as error:  # damage, an empty file, text that is no UTF-8
            raise PipelineError(f"{path}: not a whole ONNX file ({error}); export or copy it again") from None


def _header(model: memoryview) -> Header:
    graphs = _messages(model, _MODEL_GRAPH)
    sets = [(_string(entry, 1), _integer(entry, 2)) for entry in _messages(model, _MODEL_OPSET)]
    opsets = [version for domain, version in sets if domain in ("", "ai.onnx")]
    if len(graphs) != 1 or not opsets:
        raise ValueError(f"{len(graphs)} graphs and {len(opsets)} operator sets, expected one of each")
    constants = _messages(graphs[0], _GRAPH_INITIALIZER)
    weights = {_string(tensor, _TENSOR_NAME) for tensor in constants}
    inputs = [_tensor(value) for value in _messages(graphs[0], _GRAPH_INPUT)]
    return Header(
        inputs=tuple(tensor for tensor in inputs if tensor.name not in weights),
        outputs=tuple(_tensor(value) for value in _messages(graphs[0], _GRAPH_OUTPUT)),
        opset=opsets[0],
        metadata={_string(entry, 1): _string(entry, 2) for entry in _messages(model, _MODEL_METADATA)},
        nodes=tuple(
            Node(_string(node, _NODE_NAME), _string(node, _NODE_OPERATOR)) for node in _messages(graphs[0], _GRAPH_NODE)
        ),
        domains=tuple(domain for domain, _ in sets),
        external=any(_messages(tensor, _TENSOR_EXTERNAL_DATA) for tensor in constants),
    )


def _tensor(value_info: memoryview) -> Tensor:
    """ValueInfoProto: name = 1, type = 2 {tensor_type = 1 {elem_type = 1, shape = 2 {dim = 1}}}."""
    tensor_type = _message(_message(value_info, 2), 1)
    elem_type = _integer(tensor_type, 1)
    shape = tuple(_dimension(dim) for dim in _messages(_message(tensor_type, 2), 1))
    return Tensor(_string(value_info, 1), DTYPES.get(elem_type, f"type {elem_type}"), shape)


def _dimension(dim: memoryview) -> Union[int, str]:
    """Dimension: dim_value = 1 or dim_param = 2; a negative value is an old spelling of a free dimension."""
    values = [value for number, value in _fields(dim) if number == 1 and isinstance(value, int)]
    return values[-1] if values and values[-1] >= 0 else _string(dim, 2)


def _messages(message: memoryview, wanted: int) -> List[memoryview]:
    return [value for number, value in _fields(message) if number == wanted and isinstance(value, memoryview)]


def _message(message: memoryview, wanted: int) -> memoryview:
    return (_messages(message, wanted) or [memoryview(b"")])[-1]


def _string(message: memoryview, wanted: int) -> str:
    return bytes(_message(message, wanted)).decode("utf-8")


def _integer(message: memoryview, wanted: int) -> int:
    return next((value for number, value in _fields(message) if number == wanted and isinstance(value, int)), 0)


def _fields(message: memoryview) -> Iterator[Tuple[int, Union[int, memoryview]]]:
    """(field number, value) of every field; raises ValueError where a field does not fit into the message."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if wire == _BYTES:
            size, at = _varint(message, at)
        elif wire in _FIXED_SIZES:
            size = _FIXED_SIZES[wire]
        else:
            raise ValueError(f"unknown wire type {wire}")
        if not 0 <= size <= len(message) - at:
            raise ValueError(f"field {number} of {size} bytes, {len(message) - at} are left")
        yield number, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> Tuple[int, int]:
    """The signed 64-bit number at `at`, seven bits a byte, and the place behind it."""
    value = 0
    for index, byte in enumerate(message[at : at + 10]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            value &= (1 << 64) - 1
            return value - (1 << 64 if value >> 63 else 0), at + index + 1
    raise ValueError("a number does not end")
