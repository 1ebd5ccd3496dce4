"""An OpenVINO model in fp32 that stays so in programs that do not ask for it.

On a CPU with bfloat16 OpenVINO computes in it unless told otherwise (INFERENCE_PRECISION_HINT), and a file cannot carry
that hint. It can forbid it node by node: by the attribute `precise`, which the CPU's compiler obeys unless it replaces
the node by another one, as it does with the newer kinds of MaxPool and Softmax, with a MatMul of constant weights, with
a Subtract, and with an Add before a Multiply. So these are written as what it leaves alone: the first kind of MaxPool
and Softmax, a convolution of one pixel, an Add of the negative, and a Multiply before an Add, which is what it makes of
them itself. The function is the same.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np


def rewrite(openvino: ModuleType, model: Any) -> None:
    """Replaces, in an `openvino.Model`, the nodes on which `forbid_less` would be lost."""
    operators = openvino.opset1
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        new = _REWRITES[kind](operators, node) if kind in _REWRITES else None
        if new is not None:
            new.set_friendly_name(node.get_friendly_name())
            node.output(0).replace(new.output(0))
    model.validate_nodes_and_infer_types()


def _max_pool(operators: Any, node: Any) -> Any:
    settings = node.get_attributes()
    unlike = set(settings.get("dilations", [])) - {1} or settings["rounding_type"] == "ceil_torch"
    if unlike or (node.get_output_size() > 1 and node.output(1).get_target_inputs()):
        return None
    names = ("strides", "pads_begin", "pads_end", "kernel", "rounding_type", "auto_pad")
    return operators.max_pool(node.input_value(0), *(settings[name] for name in names))


def _softmax(operators: Any, node: Any) -> Any:
    images, axis = node.input_value(0), node.get_attributes()["axis"]
    if images.get_partial_shape().rank.is_dynamic:
        return None
    return operators.softmax(images, axis % len(images.get_partial_shape()))


def _fully_connected(operators: Any, node: Any) -> Any:
    """[N, C] by constant weights -> [N, classes], over [N, C, 1, 1]."""
    images, weights = node.input_value(0), node.input_value(1).get_node()
    settings = node.get_attributes()
    if weights.get_type_name() != "Constant" or len(weights.get_output_shape(0)) != 2 or settings["transpose_a"]:
        return None
    if images.get_partial_shape().rank.is_dynamic or len(images.get_partial_shape()) != 2:
        return None
    kernel = weights.get_data() if settings["transpose_b"] else weights.get_data().T
    classes, channels = kernel.shape
    pixels = operators.reshape(images, np.array([-1, channels, 1, 1], np.int64), False)
    constant = operators.constant(np.ascontiguousarray(kernel[:, :, None, None]))
    answers = operators.convolution(pixels, constant, [1, 1], [0, 0], [0, 0], [1, 1])
    return operators.reshape(answers, np.array([-1, classes], np.int64), False)


def _difference(operators: Any, node: Any) -> Any:
    """images - others -> images + others * -1, and of constant others images + (-others)."""
    images, others = node.input_values()
    shape = others.get_partial_shape()
    if others.get_element_type().to_dtype() != np.float32 or shape.rank.is_dynamic:
        return None
    if others.get_node().get_type_name() == "Constant":
        return operators.add(images, operators.constant(-others.get_node().get_data()))
    if len(shape) < 2 or shape[1].is_dynamic:
        return None
    # One factor a channel: of a single one OpenVINO makes a Subtract again.
    factors = np.full([1, shape[1].get_length(), *[1] * (len(shape) - 2)], -1, np.float32)
    return operators.add(images, operators.multiply(others, operators.constant(factors)))


def _affine(operators: Any, node: Any) -> Any:
    """(images + shift) * scale -> images * scale + shift * scale."""
    total, scale = node.input_value(0).get_node(), node.input_value(1).get_node()
    if total.get_type_name() != "Add" or scale.get_type_name() != "Constant":
        return None
    shift = total.input_value(1).get_node()
    if shift.get_type_name() != "Constant" or len(total.output(0).get_target_inputs()) > 1:
        return None
    product = operators.multiply(total.input_value(0), operators.constant(scale.get_data()))
    return operators.add(product, operators.constant(shift.get_data() * scale.get_data()))


_REWRITES = {
    "MaxPool": _max_pool,
    "Softmax": _softmax,
    "MatMul": _fully_connected,
    "Subtract": _difference,
    "Multiply": _affine,
}


def forbid_less(xml: Path) -> None:
    """Marks every node of a saved model, which OpenVINO's Python interface cannot."""
    tree = ElementTree.parse(xml)  # noqa: S314 (OpenVINO has just written it)
    for layer in tree.iterfind("layers/layer"):
        marks = layer.find("rt_info")
        marks = ElementTree.SubElement(layer, "rt_info") if marks is None else marks
        ElementTree.SubElement(marks, "attribute", name="precise", version="0")
    tree.write(xml, encoding="utf-8", xml_declaration=True)
