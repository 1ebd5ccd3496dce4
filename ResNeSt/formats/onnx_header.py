"""What an ONNX file says of itself, read without the onnx package, which an Ascend host does not have.

Walks the file (field numbers of onnx.proto, IR version 3 on) over a memory map. Weights are stepped over, so that a
file of any size takes milliseconds.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import PathLike
from ResNeSt.formats.onnx_weights import data_files, mapped
from ResNeSt.formats.protobuf import fields, integer, integers, message, messages, string

# TensorProto.DataType; a number that is not here is shown as it is.
DTYPES = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 10: "float16", 11: "float64", 16: "bfloat16"}

_MODEL_GRAPH, _MODEL_OPSET, _MODEL_METADATA = 7, 8, 14
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT = 1, 5, 11, 12
_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _NODE_OPERATOR, _NODE_ATTRIBUTE, _NODE_DOMAIN = 1, 2, 3, 4, 5, 7
_ATTRIBUTE_NAME, _ATTRIBUTE_INTEGER, _ATTRIBUTE_TENSOR = 1, 3, 5
_TENSOR_INT32, _TENSOR_NAME, _TENSOR_RAW = 5, 8, 9


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A graph input or output; a dimension is a number, or the name of a free one ("" if it has none).

    `shape` is None where the file does not say how many dimensions there are.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...] | None


class Node(NamedTuple):
    """A node's name, which may be empty, the type and domain of its operator ("" is ONNX's own), its values.

    `trains` is whether it works as in training: a BatchNormalization by the batch's own mean, a Dropout that drops.
    """

    name: str
    operator: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    trains: bool


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


def graph_sha256(path: PathLike) -> str:
    """Hex SHA-256 of the graph in the ONNX file at `path`: its nodes and the weights that lie in the file itself."""
    return hashlib.sha256(message(mapped(path), _MODEL_GRAPH)).hexdigest()


def _header(model: memoryview, files: Sequence[str]) -> Header:
    graphs = messages(model, _MODEL_GRAPH)
    sets = [(string(entry, 1), integer(entry, 2)) for entry in messages(model, _MODEL_OPSET)]
    opsets = [version for domain, version in sets if domain in ("", "ai.onnx")]
    if len(graphs) != 1 or not opsets:
        raise ValueError(f"{len(graphs)} graphs and {len(opsets)} operator sets, expected one of each")
    weights = {string(tensor, _TENSOR_NAME) for tensor in messages(graphs[0], _GRAPH_INITIALIZER)}
    inputs = [_tensor(value) for value in messages(graphs[0], _GRAPH_INPUT)]
    nodes = messages(graphs[0], _GRAPH_NODE)
    off = _switched_off(graphs[0], nodes)
    return Header(
        inputs=tuple(tensor for tensor in inputs if tensor.name not in weights),
        outputs=tuple(_tensor(value) for value in messages(graphs[0], _GRAPH_OUTPUT)),
        opset=opsets[0],
        metadata={string(entry, 1): string(entry, 2) for entry in messages(model, _MODEL_METADATA)},
        nodes=tuple(_node(node, off) for node in nodes),
        domains=tuple(domain for domain, _ in sets),
        data_files=tuple(files),
    )


def _node(node: memoryview, off: set[str]) -> Node:
    """`off` are the switches of Dropouts that are off."""
    operator = string(node, _NODE_OPERATOR)
    inputs = tuple(_names(node))
    outputs = tuple(str(name, "utf-8") for name in messages(node, _NODE_OUTPUT))
    trains = False
    if operator == "BatchNormalization":
        # From opset 14 on an attribute says so; before it, that there are outputs for the running mean and variance.
        modes = [attribute for attribute in messages(node, _NODE_ATTRIBUTE) if _is_named(attribute, "training_mode")]
        trains = any(integer(mode, _ATTRIBUTE_INTEGER) for mode in modes) or any(outputs[1:])
    elif operator == "Dropout":
        trains = any(name not in off for name in inputs[2:] if name)
    return Node(string(node, _NODE_NAME), operator, string(node, _NODE_DOMAIN), inputs, outputs, trains)


def _switched_off(graph: memoryview, nodes: Sequence[memoryview]) -> set[str]:
    """Names of the values that switch a Dropout and are a constant 0, as an initializer or as a Constant node."""
    switches = {name for node in nodes if string(node, _NODE_OPERATOR) == "Dropout" for name in _names(node)[2:]}
    if not switches:
        return switches
    constants = [(string(tensor, _TENSOR_NAME), tensor) for tensor in messages(graph, _GRAPH_INITIALIZER)]
    constants += [
        (string(node, _NODE_OUTPUT), message(attribute, _ATTRIBUTE_TENSOR))
        for node in nodes
        if string(node, _NODE_OPERATOR) == "Constant"
        for attribute in messages(node, _NODE_ATTRIBUTE)
    ]
    return {name for name, tensor in constants if name in switches and not _is_on(tensor)}


def _is_on(tensor: memoryview) -> bool:
    return any(message(tensor, _TENSOR_RAW)) or any(integers(tensor, _TENSOR_INT32))


def _names(node: memoryview) -> list[str]:
    """Of a node's inputs."""
    return [str(name, "utf-8") for name in messages(node, _NODE_INPUT)]


def _is_named(attribute: memoryview, name: str) -> bool:
    return string(attribute, _ATTRIBUTE_NAME) == name


def _tensor(value_info: memoryview) -> Tensor:
    """ValueInfoProto: name = 1, type = 2 {tensor_type = 1 {elem_type = 1, shape = 2 {dim = 1}}}."""
    tensor_type = message(message(value_info, 2), 1)
    elem_type = integer(tensor_type, 1)
    shapes = messages(tensor_type, 2)
    shape = tuple(_dimension(dim) for dim in messages(shapes[-1], 1)) if shapes else None
    return Tensor(string(value_info, 1), DTYPES.get(elem_type, f"type {elem_type}"), shape)


def _dimension(dim: memoryview) -> int | str:
    """Dimension: dim_value = 1 or dim_param = 2; a negative value is an old spelling of a free dimension."""
    values = [value for number, value in fields(dim) if number == 1 and isinstance(value, int)]
    return values[-1] if values and values[-1] >= 0 else string(dim, 2)
