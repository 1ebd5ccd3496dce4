"""OpenVINO on the CPU: compiled `.xml`, or `.onnx` as it is."""

from __future__ import annotations

import copy
import threading
from pathlib import Path
from typing import Any, Callable, NamedTuple

import numpy as np
import openvino as ov

from ResNeSt.common.cores import thread_limit
from ResNeSt.common.errors import PipelineError
from ResNeSt.engines.engine import ANY_SIZE, Opening, TensorSpec, as_logits, fitting
from ResNeSt.formats import onnx_header
from ResNeSt.formats.onnx_header import Node, Tensor
from ResNeSt.models import classifier
from ResNeSt.models.classifier import Classifier
from ResNeSt.models.files import check_record
from ResNeSt.models.model_info import SECTION, of_onnx

# int8 is in the graph; the hint is for what stays in floating point. Without bf16 in the CPU, OpenVINO takes f32.
PRECISION_HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "bf16"}


class Counter(NamedTuple):
    """Of one operator of the compiled graph: its kernel (like brgconv_avx512_int8), its mean seconds of all runs."""

    name: str
    type: str
    kernel: str
    seconds: float


class _Once:
    """What `make` gives, made at the first call, for all threads."""

    def __init__(self, make: Callable[[], ov.CompiledModel]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._made: ov.CompiledModel | None = None

    def __call__(self) -> ov.CompiledModel:
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return self._made


class OpenVINOEngine:
    """A model on the CPU, in the precision that its file asks for.

    One that leaves its batch size free is compiled for `asked.batch`, since small networks run a fifth faster so, and
    once more for all others when the first of them comes, such as a short last batch.
    """

    def __init__(
        self, path: Path, model: ov.Model, asked: Opening, info: dict[str, str], probabilities: bool, counts: bool
    ) -> None:
        self.title = f"OpenVINO {ov.__version__.split('-')[0]}"
        self.info = info
        self.probabilities = probabilities
        self._path = path
        port = model.input(0)
        set_size, *sides = port.partial_shape
        self.sizes = ANY_SIZE if set_size.is_dynamic else (set_size.get_length(),)
        shape = (fitting(self.sizes, asked.batch), *(side.get_length() for side in sides))
        counting = {"PERF_COUNT": "YES"} if counts else {}
        of_size = model
        if set_size.is_dynamic:
            of_size = model.clone()
            of_size.reshape({0: shape})

        def compiled(instances: int | None, model: ov.Model = of_size) -> ov.CompiledModel:
            return ov.Core().compile_model(model, "CPU", {**_settings(instances, _precision(info)), **counting})

        busy = asked.busy(shape[0])
        wanted = asked.instances or (1 if busy == 1 else None)
        self._compiled = compiled(wanted)
        # Of the hint THROUGHPUT: as many as there are streams, which the plugin chooses by cores and network.
        best = int(self._compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        if wanted is None and busy < best:
            self._compiled = compiled(busy)
        self.instances = wanted or min(best, busy)
        self.input = TensorSpec(port.any_name, shape, np.dtype(port.element_type.to_dtype()).name)
        self._compiled_free = _Once(lambda: compiled(self.instances, model)) if set_size.is_dynamic else None
        self._request = self._compiled.create_infer_request()
        self._free_request: ov.InferRequest | None = None

    def another(self) -> OpenVINOEngine:
        """One more request of the compiled model."""
        instance = copy.copy(self)
        instance._request, instance._free_request = self._compiled.create_infer_request(), None
        return instance

    def _request_for(self, size: int) -> ov.InferRequest:
        if size == self.input.shape[0] or self._compiled_free is None:
            return self._request
        if self._free_request is None:
            self._free_request = self._compiled_free().create_infer_request()
        return self._free_request

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Logits, float32 (N, classes)."""
        try:
            # share_inputs: the batch is read where it lies.
            output = self._request_for(len(batch)).infer([batch], share_inputs=True)[0]
        except RuntimeError as error:  # a batch size that is set inside of it, for one
            reason = str(error).strip().split("\n")[-1]
            raise PipelineError(
                f"{self._path}: OpenVINO cannot run it for {len(batch)} images ({reason}); export it again"
            ) from None
        return as_logits(self._path, np.array(output), len(batch))  # a copy, since the next run overwrites it

    def counters(self) -> list[Counter]:
        """Of every operator that took time, by the microsecond; the model has to be opened with `counts`."""
        return [
            Counter(each.node_name, each.node_type, each.exec_type, each.real_time.total_seconds())
            for each in self._request.profiling_info
            if each.status.name == "EXECUTED"
        ]


def open_model(path: Path, asked: Opening, counts: bool = False) -> OpenVINOEngine:
    """Reads `path`; one with a free batch axis is opened for `asked.batch`. With `counts` it times operators."""
    check_record(path)
    try:
        # Not mapped: weights that are written over while the model runs would change its answers, or end the process.
        model = ov.Core().read_model(path, config={"ENABLE_MMAP": False})
        network = classifier.read(path) if path.suffix == ".onnx" else _classifier(path, model)
        return OpenVINOEngine(path, model, asked, _info(path, model), network.probabilities, counts)
    except RuntimeError as error:
        reason = str(error).strip().split("\n")[-1]
        raise PipelineError(f"{path}: OpenVINO cannot compile it ({reason}); make it again with convert.sh") from None


def _settings(instances: int | None, precision: str) -> dict[str, str]:
    settings = {
        "PERFORMANCE_HINT": "LATENCY" if instances == 1 else "THROUGHPUT",
        "INFERENCE_PRECISION_HINT": PRECISION_HINTS[precision],
    }
    if instances is not None:
        settings["NUM_STREAMS"] = str(instances)
    if (threads := thread_limit()) is not None:
        settings["INFERENCE_NUM_THREADS"] = str(threads)
    return settings


def _classifier(path: Path, model: ov.Model) -> Classifier:
    nodes = [
        Node(
            name=node.get_friendly_name(),
            operator=node.get_type_name(),
            domain="",
            inputs=tuple(_value(port.get_source_output()) for port in node.inputs()),
            outputs=tuple(map(_value, node.outputs())),
            trains=False,
        )
        for node in model.get_ordered_ops()
    ]
    inputs = [_tensor(port) for port in model.inputs]
    outputs = [_tensor(result.input_value(0)) for result in model.get_results()]
    return classifier.of_graph(path, inputs, outputs, nodes, ("float32", "uint8"))


def _value(port: Any) -> str:
    return f"{port.get_node().get_friendly_name()}:{port.get_index()}"


def _tensor(port: Any) -> Tensor:
    shape = port.partial_shape
    sides = None if shape.rank.is_dynamic else tuple("" if side.is_dynamic else side.get_length() for side in shape)
    return Tensor(_value(port), np.dtype(port.element_type.to_dtype()).name, sides)


def _info(path: Path, model: ov.Model) -> dict[str, str]:
    if path.suffix == ".onnx":
        return of_onnx(onnx_header.read(path).metadata)
    section = model.get_rt_info(SECTION).value if model.has_rt_info(SECTION) else {}
    return {key: str(value) for key, value in section.items()}


def _precision(info: dict[str, str]) -> str:
    precision = info.get("precision", "fp32")
    if precision not in PRECISION_HINTS:
        raise RuntimeError(f"its precision is {precision!r}, expected one of {', '.join(PRECISION_HINTS)}")
    return precision
