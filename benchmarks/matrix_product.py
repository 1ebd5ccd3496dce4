"""Multiply-adds/s of plain matrix products in each precision: the peak that a network can come near.

OpenVINO runs a chain of products, so that nothing but products counts; PyTorch runs single ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import openvino as ov
import torch
from openvino import opset13 as operators

from benchmarks.rounds import repeated
from ResNeSt.engines.openvino import PRECISION_HINTS

SIDE, CHAIN = 1024, 8
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.int8}
PRODUCT = SIDE**3 / 1e9  # G multiply-adds


def contenders() -> Mapping[str, Mapping[str, Callable[[], float]]]:
    """For each precision and library a function that measures G multiply-adds/s for a second."""
    return {
        precision: {
            "OpenVINO": repeated(_openvino(precision), CHAIN * PRODUCT),
            "PyTorch": repeated(_torch(kind), PRODUCT),
        }
        for precision, kind in TYPES.items()
    }


def _torch(kind: torch.dtype) -> Callable[[], object]:
    if kind is torch.int8:
        left, right = (torch.randint(-128, 128, (SIDE, SIDE), dtype=kind) for _ in "ab")
        return lambda: torch._int_mm(left, right)
    left, right = (torch.randn(SIDE, SIDE).to(kind) for _ in "ab")
    return lambda: torch.mm(left, right)


def _openvino(precision: str) -> Callable[[], object]:
    model = ov.Core().compile_model(
        _chain(precision),
        "CPU",
        {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": PRECISION_HINTS[precision]},
    )
    request = model.create_infer_request()
    values = np.random.default_rng(0).random((SIDE, SIDE), np.float32)
    return lambda: request.infer([values], share_inputs=True)


def _chain(precision: str) -> ov.Model:
    random = np.random.default_rng(0)
    start = operators.parameter([SIDE, SIDE], np.float32)
    values: Any = start
    for _ in range(CHAIN):
        weights: Any = operators.constant((random.standard_normal((SIDE, SIDE)) / SIDE**0.5).astype(np.float32))
        if precision == "int8":
            values = _levels(values, 0, 2.55, 256)
            weights = _levels(weights, -0.127, 0.127, 255)
        values = operators.relu(operators.matmul(values, weights, False, False))
    return ov.Model([values], [start])


def _levels(values: Any, low: float, high: float, count: int) -> Any:
    bounds = [operators.constant(np.float32(bound)) for bound in (low, high, low, high)]
    return operators.fake_quantize(values, *bounds, count)
