"""Stage 2: checkpoint -> ONNX that compiles at any batch size."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

from ResNeSt.common.arguments import check_side
from ResNeSt.common.errors import ArgumentError
from ResNeSt.common.files import PathLike, whole
from ResNeSt.common.paths import refuse_clashes
from ResNeSt.export.rewrites.deploy import deploy
from ResNeSt.export.same_logits import BATCHES, SEED, Same, check_same
from ResNeSt.models.cards import Card
from ResNeSt.models.checkpoint import load
from ResNeSt.models.model_info import INPUT, OUTPUT, SECTION, describe, weights_of
from ResNeSt.models.resnest import ResNeSt, create_model

OPSETS = range(9, 19)  # what ATC takes (contract: ATC, ONNX it accepts)
FORMS: dict[str, Callable[[ResNeSt], ResNeSt]] = {"deploy": deploy, "reference": lambda model: model}


@dataclasses.dataclass(frozen=True)
class Exported:
    """An ONNX file: of which network, from which weights (None: random ones), at what size in pixels.

    `entries` says which of a checkpoint's were read, where there is a choice or a prefix. `difference` is the largest
    between ONNX Runtime's and PyTorch's logits, relative to the largest logit; `note` says so where the network is
    ill-conditioned.
    """

    path: Path
    model: str
    weights: Path | None
    size: int
    opset: int
    form: str
    entries: str
    difference: float
    note: str = ""


def export(
    card: Card,
    source: PathLike | None,
    target: PathLike,
    size: int | None = None,
    opset: int = 11,
    form: str = "deploy",
    ema: bool | None = None,
) -> Exported:
    """Writes the network of `card` with the weights of `source` to `target`; None takes seeded random weights.

    Input `actual_input_1` is float32 (N, 3, size, size), output `output1` float32 (N, classes), N free; `size` is the
    card's if None. `form` is one of FORMS: the textbook graph, or the same function in operators that compile well
    (ResNeSt.export.rewrites); `ema` chooses in a checkpoint that holds its weights' moving average, too. Raises
    ArgumentError for an operator set that ATC does not take, PipelineError where the checkpoint does not fit, or where
    the exported graph does not give PyTorch's answers; nothing is left at `target` then.
    """
    size = check_side(card.size if size is None else size)
    if opset not in OPSETS:
        raise ArgumentError(f"--opset {opset}: ATC takes {OPSETS[0]} to {OPSETS[-1]}; 11 fits every CANN release")
    refuse_clashes([] if source is None else [source], [target])
    model, weights, entries = _loaded(card, source, ema)
    with whole(target) as temporary:
        _write_onnx(FORMS[form](copy.deepcopy(model)), temporary, size, opset)
        _write_metadata(temporary, {**describe(card, size, weights), "form": form})
        same = _check(model, temporary, Path(target), size)
    return Exported(Path(target), card.name, Path(source) if source else None, size, opset, form, entries, *same)


def _loaded(card: Card, source: PathLike | None, ema: bool | None) -> tuple[ResNeSt, str, str]:
    """The network, what its file says of its weights, and which entries of the checkpoint they are."""
    torch.manual_seed(SEED)
    model = create_model(card)
    if source is None:
        return model.eval(), f"untrained, seed {SEED}", ""
    entries = str(load(model, source, ema, card))
    return model.eval(), weights_of(source, ema), entries


def _write_onnx(model: ResNeSt, path: Path, size: int, opset: int) -> None:
    with warnings.catch_warnings():
        # The TorchScript exporter is called legacy, but its successor writes opset 18 and up, and 11 is what every
        # CANN release takes.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            model,
            (torch.zeros(1, 3, size, size),),
            str(path),
            opset_version=opset,
            dynamo=False,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes={INPUT: {0: "N"}, OUTPUT: {0: "N"}},
        )


def _write_metadata(path: Path, metadata: dict[str, str]) -> None:
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {f"{SECTION}.{key}": value for key, value in metadata.items()})
    onnx.save(model, path)


def _check(model: ResNeSt, path: Path, target: Path, size: int) -> Same:
    onnx.checker.check_model(str(path))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def by_onnxruntime(images: np.ndarray) -> np.ndarray:
        return np.asarray(session.run(None, {INPUT: images})[0])

    def by_torch(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(model(torch.from_numpy(images)).numpy())

    def by_torch_in_float64(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(copy.deepcopy(model).double()(torch.from_numpy(images).double()).numpy())

    sides, names = (by_onnxruntime, by_torch, by_torch_in_float64), ("ONNX Runtime", "PyTorch")
    return check_same(target, *sides, (3, size, size), BATCHES, names, "the weights")
