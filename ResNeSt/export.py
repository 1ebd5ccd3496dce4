"""Stage 2: checkpoint -> ONNX that compiles at any batch size."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

from ResNeSt.cards import Card
from ResNeSt.checkpoint import load
from ResNeSt.errors import ArgumentError, PipelineError
from ResNeSt.files import PathLike, sha256, whole
from ResNeSt.metadata import SECTION, describe
from ResNeSt.models.resnest import ResNeSt, create_model
from ResNeSt.rewrites import deploy

INPUT, OUTPUT = "actual_input_1", "output1"
SEED = 0
OPSETS = range(9, 19)  # what ATC takes (contract: ATC, ONNX it accepts)
FORMS = {"deploy": deploy, "reference": lambda model: model}
CHECKED_BATCHES = (1, 3)
# Largest difference between PyTorch and ONNX Runtime, relative to the largest logit: float32 rounding stays far below.
TOLERANCE = 1e-4


def export(
    card: Card, source: PathLike | None, target: PathLike, size: int, opset: int = 11, form: str = "deploy"
) -> float:
    """Writes the network of `card` with the weights of `source` to `target`; None takes seeded random weights.

    Input `actual_input_1` is float32 (N, 3, size, size), output `output1` float32 (N, classes), N free. `form` is one
    of FORMS: the textbook graph, or the same function in operators that compile well (ResNeSt.rewrites). Returns the
    largest relative difference between PyTorch and ONNX Runtime. Raises PipelineError where the checkpoint does not
    fit, or where the exported graph does not give PyTorch's answers, in which case nothing is left at `target`.
    """
    if opset not in OPSETS:
        raise ArgumentError(f"--opset {opset}: ATC takes {OPSETS[0]} to {OPSETS[-1]}; 11 fits every CANN release")
    model, weights = _loaded(card, source)
    with whole(target) as temporary:
        _write_onnx(FORMS[form](copy.deepcopy(model)), temporary, size, opset)
        _write_metadata(temporary, {**describe(card, size, weights), "form": form})
        return _check(model, temporary, Path(target), size)


def _loaded(card: Card, source: PathLike | None) -> tuple[ResNeSt, str]:
    torch.manual_seed(SEED)
    model = create_model(card)
    if source is None:
        return model.eval(), f"untrained, seed {SEED}"
    load(model, source)
    return model.eval(), f"{Path(source).name} sha256:{sha256(source)}"


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


def _check(model: ResNeSt, path: Path, target: Path, size: int) -> float:
    onnx.checker.check_model(str(path))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    random = np.random.default_rng(SEED)
    differences = []
    for batch in CHECKED_BATCHES:
        images = random.standard_normal((batch, 3, size, size)).astype(np.float32)
        with torch.inference_mode():
            expected = model(torch.from_numpy(images)).numpy()
        found = session.run(None, {INPUT: images})[0]
        differences.append(np.abs(found - expected).max() / np.abs(expected).max())
    worst = float(np.max(differences))
    if not worst <= TOLERANCE:  # NaN is not, either
        raise PipelineError(
            f"{target}: not written: ONNX Runtime and PyTorch differ by {worst:.1e} of the largest logit, "
            f"{TOLERANCE:.0e} is allowed; are the weights finite?"
        )
    return worst
