"""What an ONNX file says of itself, read without the onnx package, which an Ascend host does not have.

Walks the file (field numbers of onnx.proto, IR version 3 on) over a memory map. Weights are stepped over, so that a
file of any size takes milliseconds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import PathLike
from ResNeSt.formats.onnx_weights import data_files, mapped
from ResNeSt.formats.protobuf import fields, integer, message, messages, string

# TensorProto.DataType; a number that is not here is shown as it is.
DTYPES = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 10: "float16", 11: "float64", 16: "bfloat16"}

_MODEL_GRAPH, _MODEL_OPSET, _MODEL_METADATA = 7, 8, 14
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT = 1, 5, 11, 12
_NODE_NAME, _NODE_OPERATOR = 3, 4
_TENSOR_NAME = 8


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A graph input or output; a dimension is a number, or the name of a free one ("" if it has none)."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


class Node(NamedTuple):
    """A node's name, which may be empty, and the type of its operator."""

    name: str
    operator: str


@dataclasses.dataclass(frozen=True)
class Header:
    """Graph inputs (weights left out), outputs and nodes, operator-set version and metadata_props of an ONNX file.

    `domains` are those of its operator sets ("" is ONNX's own), `data_files` the names of the files beside it that hold
    weights.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    opset: int
    metadata: dict[str, str]
    nodes: tuple[Node, ...]
    domains: tuple[str, ...]
    data_files: tuple[str, ...]


def read(path: PathLike) -> Header:
    """The header of the ONNX file at `path`.

    Raises PipelineError where it is damaged, cut short or something else, or its weights are not beside it, whole.
    """
    try:
        model = mapped(path)
        return _header(model, data_files(path, model))
    except (ValueError, RecursionError) as error:  # damage, an empty file, text that is no UTF-8
        raise PipelineError(f"{path}: not a whole ONNX file ({error}); export or copy it again") from None


def _header(model: memoryview, files: Sequence[str]) -> Header:
    graphs = messages(model, _MODEL_GRAPH)
    sets = [(string(entry, 1), integer(entry, 2)) for entry in messages(model, _MODEL_OPSET)]
    opsets = [version for domain, version in sets if domain in ("", "ai.onnx")]
    if len(graphs) != 1 or not opsets:
        raise ValueError(f"{len(graphs)} graphs and {len(opsets)} operator sets, expected one of each")
    weights = {string(tensor, _TENSOR_NAME) for tensor in messages(graphs[0], _GRAPH_INITIALIZER)}
    inputs = [_tensor(value) for value in messages(graphs[0], _GRAPH_INPUT)]
    return Header(
        inputs=tuple(tensor for tensor in inputs if tensor.name not in weights),
        outputs=tuple(_tensor(value) for value in messages(graphs[0], _GRAPH_OUTPUT)),
        opset=opsets[0],
        metadata={string(entry, 1): string(entry, 2) for entry in messages(model, _MODEL_METADATA)},
        nodes=tuple(
            Node(string(node, _NODE_NAME), string(node, _NODE_OPERATOR)) for node in messages(graphs[0], _GRAPH_NODE)
        ),
        domains=tuple(domain for domain, _ in sets),
        data_files=tuple(files),
    )


def _tensor(value_info: memoryview) -> Tensor:
    """ValueInfoProto: name = 1, type = 2 {tensor_type = 1 {elem_type = 1, shape = 2 {dim = 1}}}."""
    tensor_type = message(message(value_info, 2), 1)
    elem_type = integer(tensor_type, 1)
    shape = tuple(_dimension(dim) for dim in messages(message(tensor_type, 2), 1))
    return Tensor(string(value_info, 1), DTYPES.get(elem_type, f"type {elem_type}"), shape)


def _dimension(dim: memoryview) -> int | str:
    """Dimension: dim_value = 1 or dim_param = 2; a negative value is an old spelling of a free dimension."""
    values = [value for number, value in fields(dim) if number == 1 and isinstance(value, int)]
    return values[-1] if values and values[-1] >= 0 else string(dim, 2)
