"""What int8 costs every layer: how far its output is off fp32's, by its own rounding and in the network that NNCF made.

Layers are the convolutions and products with weights. For its own rounding a layer gets fp32's values, rounded over the
range that the int8 file has for them, and the file's weights. A layer that was kept in floating point is rounded for
the occasion: its weights per output channel, its input over the range of the images at hand.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ResNeSt.common.cores import thread_limit
from ResNeSt.compare.agreement import ratio
from ResNeSt.convert.nncf import PER_CHANNEL_OPSET
from ResNeSt.engines.engine import fill
from ResNeSt.models import onnx_file
from ResNeSt.models.onnx_file import Network

OPERATORS = ("Conv", "Gemm", "MatMul")
# NNCF rounds before these instead of behind them, where they only move values.
MOVING = ("MaxPool", "Reshape", "Flatten", "Transpose", "Split", "Slice", "Identity")
MOST_LEVEL = 127


class LayerCost(NamedTuple):
    """A layer, and how far its output is off: Euclidean distance to fp32's, relative to the length of fp32's.

    `alone` is with fp32 before it; of a layer that is not `quantized`, but kept in floating point, what int8 would
    cost. `together` is in the int8 network, where what was rounded before adds up.
    """

    name: str
    operator: str
    quantized: bool
    alone: float
    together: float


def layer_costs(network: Network, quantized: Path, images: np.ndarray) -> list[LayerCost]:
    """Of the layers that both the network and the int8 ONNX file made of it have, on float32 images (N, 3, H, W).

    Needs the onnx package and ONNX Runtime, whose errors it raises.
    """
    import onnx

    exact = onnx.version_converter.convert_version(onnx_file.load(network.path), PER_CHANNEL_OPSET)
    rounded = _Rounded(onnx_file.load(quantized))
    added = _Added(exact)
    layers = [(node, rounded.nodes[node.output[0]]) for node in added.layers() if node.output[0] in rounded.nodes]
    alone = [added.alone(node, twin, rounded) for node, twin in layers]
    outputs = [node.output[0] for node, _ in layers]
    squares = _squares(network, _session(exact, [*outputs, *alone]), _session(rounded.model, outputs), images)
    return [
        LayerCost(
            node.name or node.output[0],
            node.op_type,
            rounded.weights(twin) is not None,
            *(ratio(math.sqrt(off), math.sqrt(length)) for off in offs),
        )
        for (node, twin), (length, *offs) in zip(layers, squares.tolist())
    ]


class _Rounded:
    """The int8 network; `nodes` are its layers by their output."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.made_by = {output: node for node in model.graph.node for output in node.output}
        self.nodes = {node.output[0]: node for node in model.graph.node if node.op_type in OPERATORS}
        self.constants = _constants(model)

    def weights(self, layer: Any) -> np.ndarray | None:
        """What its int8 weights stand for; None of a layer that was kept in floating point."""
        source = self.made_by.get(layer.input[1])
        if source is None or source.op_type != "DequantizeLinear" or source.input[0] not in self.constants:
            return None
        levels, scale, *zero = (self.constants[name] for name in source.input)
        axis = next((attribute.i for attribute in source.attribute if attribute.name == "axis"), 1)
        along = [-1 if place == axis % levels.ndim else 1 for place in range(levels.ndim)]
        shift = zero[0].astype(np.float32).reshape(along) if zero else np.float32(0)
        return np.asarray((levels.astype(np.float32) - shift) * scale.reshape(along), np.float32)

    def range(self, layer: Any) -> list[np.ndarray] | None:
        """Scale and zero point of its input; None where that is not rounded."""
        source = self.made_by.get(layer.input[0])
        while source is not None and source.op_type in MOVING:
            source = self.made_by.get(source.input[0])
        if source is None or source.op_type != "DequantizeLinear":
            return None
        return [self.constants[name] for name in source.input[1:]]


class _Added:
    """The fp32 network, to which every layer is added once more, rounded by itself."""

    def __init__(self, model: Any) -> None:
        self._graph = model.graph
        self._constants = _constants(model)
        self._count = 0

    def layers(self) -> list[Any]:
        """Its layers, in topological order."""
        return [node for node in self._graph.node if node.op_type in OPERATORS and node.input[1] in self._constants]

    def alone(self, layer: Any, twin: Any, rounded: _Rounded) -> str:
        """Adds `layer` as its `twin` of the int8 network has it; returns the name of its output."""
        weights, scale = rounded.weights(twin), rounded.range(twin)
        bias = [rounded.constants[name] for name in twin.input[2:]]
        if weights is None:
            weights, scale = _round(self._constants[layer.input[1]], _output_axis(layer)), None
        values = self._by_range(layer.input[0], scale) if scale else self._by_itself(layer.input[0])
        rest = [self._constant(array) for array in (weights, *bias)]
        (output,) = self._node(layer.op_type, [values, *rest], attributes=layer.attribute)
        return output

    def _by_range(self, values: str, scale: Sequence[np.ndarray]) -> str:
        scale_and_zero = [self._constant(array) for array in scale]
        (levels,) = self._node("QuantizeLinear", [values, *scale_and_zero])
        (back,) = self._node("DequantizeLinear", [levels, *scale_and_zero])
        return back

    def _by_itself(self, values: str) -> str:
        (back,) = self._node("DequantizeLinear", self._node("DynamicQuantizeLinear", [values], 3))
        return back

    def _node(
        self, operator: str, inputs: Sequence[str], outputs: int = 1, attributes: Sequence[Any] = ()
    ) -> list[str]:
        import onnx

        names = [self._name() for _ in range(outputs)]
        node = onnx.helper.make_node(operator, inputs, names)
        node.attribute.extend(attributes)
        self._graph.node.append(node)
        return names

    def _constant(self, array: np.ndarray) -> str:
        import onnx

        name = self._name()
        self._graph.initializer.append(onnx.numpy_helper.from_array(array, name))
        return name

    def _name(self) -> str:
        self._count += 1
        return f"alone:{self._count}"


def _constants(model: Any) -> dict[str, np.ndarray]:
    import onnx

    return {value.name: onnx.numpy_helper.to_array(value) for value in model.graph.initializer}


def _output_axis(layer: Any) -> int:
    """Of its weights, that of the output channels."""
    transposed = any(attribute.name == "transB" and attribute.i for attribute in layer.attribute)
    return 0 if layer.op_type == "Conv" or transposed else -1


def _round(weights: np.ndarray, axis: int) -> np.ndarray:
    """To int8 and back, symmetrically, with a scale for each place along `axis`."""
    others = tuple(place for place in range(weights.ndim) if place != axis % weights.ndim)
    scale = np.abs(weights).max(axis=others, keepdims=True) / MOST_LEVEL
    scale[scale == 0] = 1
    return np.asarray(np.rint(weights / scale) * scale, np.float32)


def _session(model: Any, values: Sequence[str]) -> Any:
    """Gives `values`; computes in floating point as the nodes stand, since integers saturate on some CPUs."""
    import onnx
    import onnxruntime

    del model.graph.output[:]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(value) for value in values)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.intra_op_num_threads = thread_limit() or 0
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _squares(network: Network, exact: Any, rounded: Any, images: np.ndarray) -> np.ndarray:
    """(layers, 3): squared lengths of fp32's outputs, and of how far those alone and those together are off.

    One batch at a time, since all values of a large network are kept.
    """
    size = network.batch or 1
    total: Any = 0
    for start in range(0, len(images), size):
        batch = images[start : start + size]
        given = {network.input_name: fill(batch, size)}
        expected, together = exact.run(None, given), rounded.run(None, given)
        layers = zip(expected[: len(together)], expected[len(together) :], together)
        total = total + np.array([_squared(len(batch), *values) for values in layers])
    return np.asarray(total)


def _squared(count: int, expected: np.ndarray, alone: np.ndarray, together: np.ndarray) -> list[float]:
    lengths = (expected[:count], (alone - expected)[:count], (together - expected)[:count])
    return [float(np.square(values).sum(dtype=np.float64)) for values in lengths]
