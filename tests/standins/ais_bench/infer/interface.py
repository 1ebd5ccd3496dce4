"""`InferSession`, the client's Python API (contract ais_bench), on ONNX Runtime."""

from __future__ import annotations

import dataclasses
import enum
import math
import os
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import standin_om

from ais_bench.infer.session import open_session

if "STANDIN_LIBRARY" in os.environ and not any(
    os.path.isfile(f"{folder}/libascendcl.so") for folder in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
):
    raise ImportError("libascendcl.so: cannot open shared object file: No such file or directory")

_STATIC = "[ERROR] the dynamic_batch_size parameter is not specified for model conversion"


def log(message: str) -> None:
    """The real client's log line."""
    print(f"[INFO] {message}", flush=True)


class dtype(enum.Enum):  # noqa: N801 - the real client's name; it prints as dtype.float32
    """Element types of tensors."""

    float32 = "float32"
    float16 = "float16"
    uint8 = "uint8"


@dataclasses.dataclass(frozen=True)
class TensorDesc:
    """One input or output: `size` in bytes, of the largest batch where that is dynamic; `realsize` of the one set."""

    name: str
    shape: list[int]
    datatype: dtype
    size: int
    realsize: int


class InferSession:
    """A loaded `.om`. Times are in milliseconds and stay until `reset_summaryinfo`."""

    def __init__(self, device_id: int, model_path: str) -> None:
        log("acl init success")
        if str(device_id) == os.environ.get("STANDIN_BROKEN_DEVICE", "63"):
            print(f"[ERROR] open device {device_id} failed, errorCode is 507033", flush=True)
            raise RuntimeError("acl set device failed")
        log(f"open device {device_id} success")
        self._description, graph = _load(model_path)
        self._session: Any | None = open_session(graph)
        log(f"load model {model_path} success")
        log("create model description success")
        self._loop = 1
        self._sizes: list[int] = self._description["sizes"]
        self._batch: int | None = None
        self.reset_summaryinfo()

    def get_inputs(self) -> list[TensorDesc]:
        return self._descriptors("inputs")

    def get_outputs(self) -> list[TensorDesc]:
        return self._descriptors("outputs")

    def _descriptors(self, kind: str) -> list[TensorDesc]:
        largest = max(self._sizes, default=-1)
        return [_descriptor(entry, largest, self._batch or largest) for entry in self._description[kind]]

    def set_staticbatch(self) -> None:
        self._batch = None

    def set_dynamic_batchsize(self, dym_batch: int) -> None:
        """RuntimeError where the model was not compiled for it."""
        if dym_batch not in self._sizes:
            print("[ERROR] the dymBatch parameter is not correct" if self._sizes else _STATIC, flush=True)
            raise RuntimeError(f"set dynamic batchsize {dym_batch} failed")
        self._batch = dym_batch

    def get_max_dym_batchsize(self) -> int:
        return max(self._sizes, default=0)

    def set_loop_count(self, loop: int) -> None:
        self._loop = loop

    def infer(self, feeds: Sequence[np.ndarray], mode: str = "static") -> list[np.ndarray]:
        """Runs `feeds`, of which only the bytes count; RuntimeError where their number or size is not the model's."""
        if mode not in ("static", "dymbatch"):
            raise RuntimeError(f"the stand-in does not carry out mode {mode}")
        if len(feeds) != len(self.get_inputs()):
            raise RuntimeError(f"input count {len(feeds)} not match {len(self.get_inputs())}")
        if mode == "static":
            self.set_staticbatch()
        else:
            self._prepare_dymbatch([feed.shape for feed in feeds])
        return self.run(feeds)

    def _prepare_dymbatch(self, shapes: Sequence[tuple[int, ...]]) -> None:
        """The batch size is the dimension of the first feed that the model leaves free; those before it must fit."""
        for shape, tensor in zip(shapes, self.get_inputs()):
            for actual, expected in zip(shape, tensor.shape):
                if expected < 0:
                    self.set_dynamic_batchsize(actual)
                    return
                if actual != expected:
                    raise RuntimeError("input datas and intensors dim not matched!")
        raise RuntimeError("not a dymbatch model!")

    def run(self, feeds: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Runs `feeds` at the batch size that was set."""
        if self._session is None:
            raise RuntimeError("the session has been freed")
        if self._sizes and self._batch is None:
            raise RuntimeError("the model's batch is dynamic, and none is set")
        inputs = self.get_inputs()
        start = time.perf_counter()
        tensors = {tensor.name: self._to_device(feed, tensor) for feed, tensor in zip(feeds, inputs)}
        self.h2d.append(_since(start))
        for _ in range(self._loop):
            start = time.perf_counter()
            results = self._session.run(None, tensors)
            self._times.append(_since(start))
        return self._to_host(results)

    def _to_device(self, feed: np.ndarray, tensor: TensorDesc) -> np.ndarray:
        if feed.nbytes != tensor.realsize:
            raise RuntimeError(f"input {tensor.name} size {feed.nbytes} not match {tensor.realsize}")
        array = np.frombuffer(feed.tobytes(), tensor.datatype.value).reshape(tensor.shape)
        constants = self._description["aipp"]
        if constants is None:
            return array.astype(np.float32)
        return _preprocess(array, constants)

    def _to_host(self, results: Sequence[np.ndarray]) -> list[np.ndarray]:
        start = time.perf_counter()
        arrays = [result.astype(tensor.datatype.value) for result, tensor in zip(results, self.get_outputs())]
        self.d2h.append(_since(start))
        return arrays

    def summary(self) -> SimpleNamespace:
        return SimpleNamespace(exec_time_list=list(self._times))

    def reset_summaryinfo(self) -> None:
        self._times: list[float] = []
        self.h2d: list[float] = []
        self.d2h: list[float] = []

    def free_resource(self) -> None:
        self._session = None


def _load(path: str) -> Any:
    try:
        return standin_om.read(path)
    except (OSError, ValueError) as error:
        print(f"[ERROR] load model from file failed, model file is {path}: {error}")
        raise RuntimeError("load model failed") from None


def _descriptor(entry: dict[str, Any], largest: int, batch: int) -> TensorDesc:
    shape, kind = list(entry["shape"]), dtype(entry["dtype"])
    bytes_of = [np.dtype(kind.value).itemsize * math.prod(n if s < 0 else s for s in shape) for n in (largest, batch)]
    return TensorDesc(entry["name"], shape, kind, *bytes_of)


def _preprocess(array: np.ndarray, constants: dict[str, Any]) -> np.ndarray:
    """AIPP: uint8 [N,H,W,3] to float32 [N,3,H,W], (in - mean_chn - min_chn) * var_reci_chn.

    NV12, [N,3H/2,W,1], becomes RGB before that: (matrix (YUV - input_bias)) >> 8, within a byte.
    """
    if constants["matrix"] is not None:
        array = _rgb(array, constants)
    mean, low, scale = (np.array(constants[key], np.float32) for key in ("mean", "min", "var_reci"))
    normalised = (array.astype(np.float32) - mean - low) * scale
    return np.ascontiguousarray(normalised.transpose(0, 3, 1, 2))


def _rgb(nv12: np.ndarray, constants: dict[str, Any]) -> np.ndarray:
    images, rows, width, _ = nv12.shape
    height = rows * 2 // 3
    yuv = np.empty((images, height, width, 3), np.int32)
    yuv[..., 0] = nv12[:, :height, :, 0]
    for channel in (1, 2):
        # U is at even places, V after it; a value is that of two by two pixels.
        plane = nv12[:, height:, channel - 1 :: 2, 0]
        for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
            yuv[:, row::2, column::2, channel] = plane
    yuv -= np.array(constants["input_bias"])
    matrix = np.array(constants["matrix"]).reshape(3, 3)
    return np.asarray(np.clip(np.einsum("rc,nhwc->nhwr", matrix, yuv) >> 8, 0, 255))


def _since(start: float) -> float:
    return (time.perf_counter() - start) * 1000
