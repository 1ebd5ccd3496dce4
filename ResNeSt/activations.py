"""Networks whose intermediate values can be had by name: ONNX graphs and PyTorch checkpoints.

What names a value is the same for both: the exporter calls a node after the module that it comes from, so a value goes
by its ONNX name and, as the last one made there, by the path of its module: `/layer1/layer1.0` is a block's output.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Protocol, Sequence, Tuple

import numpy as np

from ResNeSt import network
from ResNeSt.cards import card, card_of_file
from ResNeSt.engines import RUNTIMES, TensorSpec, fill
from ResNeSt.errors import ArgumentError, MissingRuntimeError, PipelineError

Shape = Tuple[int, ...]


class Activations(Protocol):
    """A network; `names` maps each name of a value to the value's own, `shapes` those to shapes without batch axis."""

    input: TensorSpec
    names: Dict[str, str]
    shapes: Dict[str, Shape]

    def run(self, values: Sequence[str], images: np.ndarray) -> List[np.ndarray]:
        """The values (N, ...), float32, that float32 images (N, 3, H, W) lead to."""
        ...


class OnnxActivations:
    """An ONNX graph, run by ONNX Runtime; of its values those that are float32 and depend on the images.

    `nodes` says for each value the name of its node, `feeders` from which of the values it is made directly; both are
    in topological order.
    """

    def __init__(self, path: Path) -> None:
        import onnx

        found = network.read(path)
        self.path = path
        self._onnx = onnx
        self._model = onnx.load(str(path))
        batch = self._model.graph.input[0].type.tensor_type.shape.dim[0]
        self.fixed_batch: Optional[int] = batch.dim_value or None
        self.input = TensorSpec(found.input_name, tuple(found.shape(1)), "float32")
        self.nodes: Dict[str, str] = {}
        self.feeders: Dict[str, List[str]] = {}
        self.names: Dict[str, str] = {}
        self.shapes = self._infer_shapes()
        self._walk()

    @property
    def is_quantized(self) -> bool:
        """Whether some of its values are rounded to integers on the way."""
        return any(node.op_type == "QuantizeLinear" for node in self._model.graph.node)

    def _infer_shapes(self) -> Dict[str, Shape]:
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
        before: Dict[str, Dict[str, None]] = {self.input.name: {}}
        scopes: Dict[str, str] = {}
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

    def run(self, values: Sequence[str], images: np.ndarray) -> List[np.ndarray]:
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


def _scopes(node: str) -> List[str]:
    """`/layer1/layer1.0/conv3/Conv` -> the paths of the modules that it is in, from the network itself, called ""."""
    parts = node.split("/")[:-1]
    return ["/".join(parts[:end]) for end in range(1, len(parts) + 1)] if node.startswith("/") else [""]


class TorchActivations:
    """A checkpoint in its network's textbook form; batch norms are folded as the exporter folds them.

    Its values are the outputs of modules that run once for an input.
    """

    def __init__(self, path: Path, arch: Optional[str]) -> None:
        import torch

        from ResNeSt.checkpoint import load
        from ResNeSt.models.resnest import create_model
        from ResNeSt.rewrites.fold_batch_norm import fold_batch_norm

        found = card(arch) if arch else card_of_file(path)
        self._torch = torch
        self._model = create_model(found)
        load(self._model, path)
        fold_batch_norm(self._model.eval())
        self.input = TensorSpec("actual_input_1", (1, 3, found.size, found.size), "float32")
        self.names: Dict[str, str] = {}
        self.shapes: Dict[str, Shape] = {}
        made = self._made(None, np.zeros(self.input.shape, np.float32))
        for name, outputs in made.items():
            if len(outputs) == 1:
                self.names[_scope(name)] = name
                self.shapes[name] = outputs[0].shape[1:]

    def run(self, values: Sequence[str], images: np.ndarray) -> List[np.ndarray]:
        """The values (N, ...), float32, that float32 images (N, 3, H, W) lead to."""
        made = self._made(values, images)
        return [made[value][0] for value in values]

    def _made(self, wanted: Optional[Sequence[str]], images: np.ndarray) -> Mapping[str, List[np.ndarray]]:
        """What the modules `wanted` [all] put out, by their names, a list entry for every time that they ran."""
        made: Dict[str, List[np.ndarray]] = {}

        def keep(name: str) -> Any:
            return lambda module, inputs, output: made.setdefault(name, []).append(output.numpy())

        modules = {name: module for name, module in self._model.named_modules() if wanted is None or name in wanted}
        hooks = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
        with self._torch.inference_mode():
            self._model(self._torch.from_numpy(images))
        for hook in hooks:
            hook.remove()
        return made


def _scope(module: str) -> str:
    """`layer1.0.conv3` -> `/layer1/layer1.0/conv3`: a member of a sequence carries its sequence's name."""
    path: List[str] = [""]
    attribute = ""
    for part in filter(None, module.split(".")):
        attribute = f"{attribute}.{part}" if part.isdigit() else part
        path.append(attribute)
    return "/".join(path)


def open_activations(path: Path, arch: Optional[str]) -> Activations:
    """Opens a .onnx or a checkpoint.

    Raises ArgumentError for anything else, MissingRuntimeError where its packages are not.
    """
    if not path.is_file():
        raise PipelineError(f"{path}: no such model file")
    if path.suffix not in (".onnx", *RUNTIMES["torch"].suffixes):
        raise ArgumentError(
            f"{path}: --layers looks into .onnx and checkpoints; of a compiled model give the ONNX file it was made of"
        )
    try:
        return OnnxActivations(path) if path.suffix == ".onnx" else TorchActivations(path, arch)
    except ImportError as error:
        raise MissingRuntimeError(
            f"{path}: a package that looks into it is not installed ({error}); run: pip install -r requirements.txt"
        ) from None
