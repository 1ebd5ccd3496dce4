"""Networks whose intermediate values can be had by name: ONNX graphs and PyTorch checkpoints.

What names a value is the same for both: the exporter calls a node after the module that it comes from, so a value goes
by its ONNX name and, as the last one made there, by the path of its module: `/layer1/layer1.0` is a block's output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ResNeSt.common.errors import ArgumentError, MissingRuntimeError, PipelineError
from ResNeSt.engines.engine import TensorSpec, fill
from ResNeSt.engines.opening import CHECKPOINTS
from ResNeSt.models import onnx_file
from ResNeSt.models.model_info import INPUT

Shape = tuple[int, ...]


class Activations(Protocol):
    """A network; `names` maps each name of a value to the value's own, `shapes` those to shapes without batch axis."""

    input: TensorSpec
    names: dict[str, str]
    shapes: dict[str, Shape]

    def run(self, values: Sequence[str], images: np.ndarray) -> list[np.ndarray]:
        """The values (N, ...), float32, that float32 images (N, 3, H, W) lead to."""
        ...


class OnnxActivations:
    """An ONNX graph, run by ONNX Runtime; of its values those that are float32 and depend on the images.

    `nodes` says for each value the name of its node, `feeders` from which of the values it is made directly; both are
    in topological order.
    """

    def __init__(self, path: Path) -> None:
        import onnx

        network = onnx_file.read(path)
        self.path = path
        self._onnx = onnx
        self._model = onnx_file.load(path)
        batch = self._model.graph.input[0].type.tensor_type.shape.dim[0]
        self.fixed_batch: int | None = batch.dim_value or None
        self.input = TensorSpec(network.input_name, tuple(network.shape(1)), "float32")
        self.nodes: dict[str, str] = {}
        self.feeders: dict[str, list[str]] = {}
        self.names: dict[str, str] = {}
        self.shapes = self._infer_shapes()
        self._walk()

    @property
    def is_quantized(self) -> bool:
        """Whether some of its values are rounded to integers on the way."""
        return any(node.op_type == "QuantizeLinear" for node in self._model.graph.node)

    def _infer_shapes(self) -> dict[str, Shape]:
        graph = self._onnx.shape_inference.infer_shapes(self._model).graph
        shapes = {}
        for value in [*graph.value_info, *graph.output]:
            tensor = value.type.tensor_type
            rest = [dim.dim_value for dim in tensor.shape.dim][1:]
            if tensor.elem_type == self._onnx.TensorProto.FLOAT and all(rest):
                shapes[value.name] = tuple(rest)
        return shapes

    def _walk(self) -> None:
        # For every value that depends on the images: the nearest values before it that can be compared.
        before: dict[str, dict[str, None]] = {self.input.name: {}}
        scopes: dict[str, str] = {}
        for node in self._model.graph.node:
            sources = [name for name in node.input if name in before]
            if not sources:
                continue
            near = {value: None for name in sources for value in ([name] if name in self.feeders else before[name])}
            for name in node.output:
                before[name] = near
                if name in self.shapes and not node.op_type.endswith("QuantizeLinear"):
                    self.nodes[name] = node.name or name
                    self.feeders[name] = list(near)
                    self.names[name] = name
                    scopes.update({scope: name for scope in _scopes(node.name)})
        self.names.update({scope: name for scope, name in scopes.items() if scope not in self.names})

    def run(self, values: Sequence[str], images: np.ndarray) -> list[np.ndarray]:
        """The values (N, ...), float32, that float32 images (N, 3, H, W) lead to; nodes behind them are not run."""
        import onnxruntime

        outputs = self._model.graph.output
        del outputs[:]
        outputs.extend(self._onnx.helper.make_empty_tensor_value_info(value) for value in values)
        try:
            session = onnxruntime.InferenceSession(self._model.SerializeToString(), providers=["CPUExecutionProvider"])
            size = self.fixed_batch or len(images)
            parts = [
                session.run(list(values), {self.input.name: fill(images[start : start + size], size)})
                for start in range(0, len(images), size)
            ]
        except Exception as error:  # ONNX Runtime's errors share no base class of their own
            raise PipelineError(f"{self.path}: ONNX Runtime cannot run it ({error}); export it again") from None
        return [np.concatenate(value)[: len(images)] for value in zip(*parts)]


def _scopes(node: str) -> list[str]:
    """`/layer1/layer1.0/conv3/Conv` -> the paths of the modules that it is in, from the network itself, called ""."""
    parts = node.split("/")[:-1]
    return ["/".join(parts[:end]) for end in range(1, len(parts) + 1)] if node.startswith("/") else [""]


class TorchActivations:
    """A checkpoint in its network's textbook form; batch norms are folded as the exporter folds them.

    Its values are the outputs of modules that run once for an input.
    """

    def __init__(self, path: Path, arch: str | None, ema: bool | None) -> None:
        import torch

        from ResNeSt.export.rewrites.fold_batch_norm import fold_batch_norm
        from ResNeSt.models.checkpoint import card_for, load
        from ResNeSt.models.resnest import create_model

        model_card = card_for(path, arch)
        self._torch = torch
        self._model = create_model(model_card)
        load(self._model, path, ema, model_card)
        fold_batch_norm(self._model.eval())
        self.input = TensorSpec(INPUT, (1, 3, model_card.size, model_card.size), "float32")
        self.names: dict[str, str] = {}
        self.shapes: dict[str, Shape] = {}
        recorded = self._record(None, np.zeros(self.input.shape, np.float32))
        for name, outputs in recorded.items():
            if len(outputs) == 1:
                self.names[_scope(name)] = name
                self.shapes[name] = outputs[0].shape[1:]

    def run(self, values: Sequence[str], images: np.ndarray) -> list[np.ndarray]:
        """The values (N, ...), float32, that float32 images (N, 3, H, W) lead to."""
        recorded = self._record(values, images)
        return [recorded[value][0] for value in values]

    def _record(self, wanted: Sequence[str] | None, images: np.ndarray) -> Mapping[str, list[np.ndarray]]:
        """What the modules `wanted` [all] put out, by their names, a list entry for every time that they ran."""
        recorded: dict[str, list[np.ndarray]] = {}

        def keep(name: str) -> Any:
            return lambda module, inputs, output: recorded.setdefault(name, []).append(output.numpy())

        modules = {name: module for name, module in self._model.named_modules() if wanted is None or name in wanted}
        hooks = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
        with self._torch.inference_mode():
            self._model(self._torch.from_numpy(images))
        for hook in hooks:
            hook.remove()
        return recorded


def _scope(module: str) -> str:
    """`layer1.0.conv3` -> `/layer1/layer1.0/conv3`: a member of a sequence carries its sequence's name."""
    path: list[str] = [""]
    attribute = ""
    for part in filter(None, module.split(".")):
        attribute = f"{attribute}.{part}" if part.isdigit() else part
        path.append(attribute)
    return "/".join(path)


def open_activations(path: Path, arch: str | None, ema: bool | None = None) -> Activations:
    """Opens a .onnx or a checkpoint.

    Raises ArgumentError for anything else, MissingRuntimeError where its packages are not.
    """
    if not path.is_file():
        raise PipelineError(f"{path}: no such model file")
    if path.suffix not in (".onnx", *CHECKPOINTS):
        raise ArgumentError(
            f"{path}: --layers looks into .onnx and checkpoints; of a compiled model give the ONNX file it was made of"
        )
    try:
        return OnnxActivations(path) if path.suffix == ".onnx" else TorchActivations(path, arch, ema)
    except ImportError as error:
        raise MissingRuntimeError(
            f"{path}: a package that looks into it is not installed ({error}); run: pip install -r requirements.txt"
        ) from None
