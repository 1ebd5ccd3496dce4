"""An ONNX graph as a MindSpore Cell: the operators that stage 2 writes, in either form, and no others.

The Cell takes and gives what the graph does: float32 (N, 3, H, W) -> (N, classes). Needs mindspore and onnx.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable

import mindspore
import numpy as np
import onnx
from mindspore import nn, ops

from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import PathLike
from ResNeSt.models import onnx_file

Attributes = dict[str, Any]
Constants = list[np.ndarray]
Sources = tuple[int, ...]


class Operator(nn.Cell):
    """A primitive and the arguments that follow its tensors."""

    def __init__(self, primitive: Any, *rest: Any) -> None:
        super().__init__()
        self.primitive, self.rest = primitive, rest

    def construct(self, *tensors: Any) -> Any:
        """Tensors -> a tensor."""
        return self.primitive(*tensors, *self.rest)


class Channels(nn.Cell):
    """Channels `start` to `stop` of (N, C, H, W): an output of a Split."""

    def __init__(self, start: int, stop: int) -> None:
        super().__init__()
        self.start, self.stop = start, stop

    def construct(self, x: Any) -> Any:
        """(N, C, H, W) -> (N, stop - start, H, W)."""
        return x[:, self.start : self.stop]


class Segment(nn.Cell):
    """Steps in topological order; `sources` are, for each, the values it takes: 0 is the input, n what step n made."""

    def __init__(self, steps: Sequence[nn.Cell], sources: Sequence[Sources]) -> None:
        super().__init__()
        self.steps = nn.CellList(list(steps))
        self.sources = tuple(sources)

    def construct(self, x: Any) -> Any:
        """The input -> what the last step made."""
        values: tuple[Any, ...] = (x,)
        for index in range(len(self.sources)):
            taken = self.sources[index]
            # One call for each arity: MindSpore compiles a comprehension or a star as a loop of its own.
            if len(taken) == 1:
                values = (*values, self.steps[index](values[taken[0]]))
            else:
                values = (*values, self.steps[index](values[taken[0]], values[taken[1]]))
        return values[-1]


def _segments(steps: Sequence[nn.Cell], sources: Sequence[Sources]) -> nn.Cell:
    """The steps in a row of segments, cut wherever a single value is all that later steps take.

    MindSpore unrolls a segment's loop, one call inside the other, and a whole network would be too deep for it.
    """
    cells: list[nn.Cell] = []
    start = 0
    for end in range(1, len(steps) + 1):
        if min((source for later in sources[end:] for source in later), default=end) >= end:
            inner = [tuple(source - start for source in taken) for taken in sources[start:end]]
            cells.append(Segment(steps[start:end], inner))
            start = end
    return nn.SequentialCell(cells)


def read(path: PathLike) -> nn.Cell:
    """The graph in an ONNX file of stage 2; raises PipelineError where a node has no counterpart here, and names it."""
    graph = onnx_file.load(path).graph
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    values = {graph.input[0].name: 0}
    steps: list[nn.Cell] = []
    sources: list[Sources] = []
    for node in graph.node:
        attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        if node.op_type == "Constant":
            constants[node.output[0]] = onnx.numpy_helper.to_array(attributes["value"])
        elif node.op_type == "Identity":
            known: dict[str, Any] = values if node.input[0] in values else constants
            known[node.output[0]] = known[node.input[0]]
        else:
            taken = [constants[name] for name in node.input if name in constants]
            for name, step in zip(node.output, _steps(path, node, attributes, taken)):
                steps.append(step)
                sources.append(tuple(values[source] for source in node.input if source not in constants))
                values[name] = len(steps)
    return _segments(steps, sources)


def _steps(path: PathLike, node: Any, attributes: Attributes, constants: Constants) -> list[nn.Cell]:
    """A step for every output of `node`."""
    try:
        if node.op_type == "Split":
            return _split(attributes)
        return [_MAKERS[node.op_type](attributes, constants)]
    except (KeyError, ValueError) as error:
        raise PipelineError(
            f"{path}: node {node.name} ({node.op_type}) has no counterpart in MindSpore ({error!r}); "
            "give the file that resnest_pth2onnx.py writes with its default --opset 11"
        ) from None


def _expect(attributes: Attributes, **allowed: Any) -> None:
    """Raises ValueError for an attribute, where it is given, that has another value than the allowed one."""
    for name, value in allowed.items():
        if attributes.get(name, value) != value:
            raise ValueError(f"{name} {attributes[name]}, expected {value}")


def _conv(attributes: Attributes, constants: Constants) -> nn.Cell:
    weight = constants[0]
    group = attributes["group"]
    top, left, bottom, right = attributes["pads"]
    return nn.Conv2d(
        weight.shape[1] * group,
        weight.shape[0],
        tuple(attributes["kernel_shape"]),
        tuple(attributes["strides"]),
        pad_mode="pad",
        padding=(top, bottom, left, right),
        dilation=tuple(attributes["dilations"]),
        group=group,
        has_bias=len(constants) > 1,
        weight_init=mindspore.Tensor(weight),
        bias_init=mindspore.Tensor(constants[1]) if len(constants) > 1 else None,
    )


def _gemm(attributes: Attributes, constants: Constants) -> nn.Cell:
    _expect(attributes, alpha=1.0, beta=1.0, transA=0)
    if not attributes.get("transB"):
        raise ValueError("transB 0, expected 1")
    weight, bias = map(mindspore.Tensor, constants)
    return nn.Dense(weight.shape[1], weight.shape[0], weight_init=weight, bias_init=bias)


def _max_pool(attributes: Attributes, constants: Constants) -> nn.Cell:
    # Zeros are a neutral padding here: every maximum pooling of stage 2 follows a ReLU.
    _expect(attributes, dilations=[1, 1])
    return _pool(nn.MaxPool2d, attributes)


def _average_pool(attributes: Attributes, constants: Constants) -> nn.Cell:
    if any(attributes["pads"]) and not attributes.get("count_include_pad"):
        _expect(attributes, ceil_mode=0, pads=[1, 1, 1, 1])
        shape = tuple(attributes["kernel_shape"]), tuple(attributes["strides"])
        return nn.AvgPool2d(*shape, pad_mode="pad", padding=1, count_include_pad=False)
    return _pool(nn.AvgPool2d, attributes)


def _pool(kind: Callable[..., nn.Cell], attributes: Attributes) -> nn.Cell:
    """Padding as a step of its own, as MindSpore's model zoo has it: its padded poolings are three-dimensional."""
    top, left, bottom, right = attributes["pads"]
    shape = tuple(attributes["kernel_shape"]), tuple(attributes["strides"])
    if not any(attributes["pads"]):
        # Rounding up without padding is what "same" does to halves: the last window ends outside.
        return kind(*shape, pad_mode="same" if attributes.get("ceil_mode") else "valid")
    _expect(attributes, ceil_mode=0)
    return nn.SequentialCell(nn.Pad(((0, 0), (0, 0), (top, bottom), (left, right))), kind(*shape, pad_mode="valid"))


def _mean(attributes: Attributes, constants: Constants) -> nn.Cell:
    return Operator(ops.ReduceMean(keep_dims=bool(attributes["keepdims"])), tuple(attributes["axes"]))


def _softmax(attributes: Attributes, constants: Constants) -> nn.Cell:
    # Stage 2 moves the splits to the last of four axes.
    if attributes["axis"] not in (-1, 3):
        raise ValueError(f"axis {attributes['axis']}, expected 3")
    return nn.Softmax(axis=-1)


def _split(attributes: Attributes) -> list[nn.Cell]:
    _expect(attributes, axis=1)
    ends = np.cumsum(attributes["split"])
    return [Channels(int(end) - size, int(end)) for size, end in zip(attributes["split"], ends)]


_MAKERS: dict[str, Callable[[Attributes, Constants], nn.Cell]] = {
    "Add": lambda attributes, constants: Operator(ops.Add()),
    "AveragePool": _average_pool,
    "Conv": _conv,
    "Gemm": _gemm,
    "MaxPool": _max_pool,
    "Mul": lambda attributes, constants: Operator(ops.Mul()),
    "ReduceMean": _mean,
    "Relu": lambda attributes, constants: nn.ReLU(),
    "Reshape": lambda attributes, constants: Operator(ops.Reshape(), tuple(map(int, constants[0]))),
    "Sigmoid": lambda attributes, constants: nn.Sigmoid(),
    "Softmax": _softmax,
    "Sub": lambda attributes, constants: Operator(ops.Sub()),
    "Transpose": lambda attributes, constants: Operator(ops.Transpose(), tuple(attributes["perm"])),
}
