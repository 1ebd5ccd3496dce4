"""What an NVIDIA GPU runs: the network's ONNX file, for one batch size or any, in fp32 or fp16.

ONNX Runtime and TensorRT compile it when they open it, for the card that is there, so the file itself needs no GPU to
be made; in fp16 its ends stay float32, as in every other model here.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ResNeSt.common.errors import PipelineError, library_text
from ResNeSt.common.files import scratch_folder
from ResNeSt.convert.targets import Batch, sizes_of
from ResNeSt.models import onnx_file
from ResNeSt.models.model_info import CHIP, CUDA, SECTION
from ResNeSt.models.onnx_file import Network

FREE_AXIS = "N"


def version() -> str:
    """ONNX Runtime's, whose converter makes fp16."""
    import onnxruntime

    return str(onnxruntime.__version__)


def form() -> str:
    """SHA-256 of the code that makes the files, as of OpenVINO's (convert.openvino_ir)."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()


def compile_model(
    network: Network, target: Path, batch: Batch, precision: str, source: str, check: Callable[[Path], None]
) -> None:
    """Writes `network` for `batch` images to `target` (.onnx); several sizes leave its axis free.

    Its metadata say what the model is, its `precision`, that it is for a GPU, and `source`, the SHA-256 of the ONNX
    file that it is made of. `check` gets the file before it has its name. Raises PipelineError where the result does
    not run on this machine's CPU, and what `check` raises; nothing is left at `target` then.
    """
    import onnx

    with scratch_folder(target.parent, "onnx") as scratch:
        temporary = Path(scratch, target.name)
        try:
            model = _of_size(onnx_file.load(network.path), network, batch)
            if precision == "fp16":
                model = _halved(model)
            for key, value in {**network.info, "precision": precision, CHIP: CUDA, "source": source}.items():
                _tell(model, f"{SECTION}.{key}", value)
            onnx.save(model, temporary)
            _try(temporary, network, batch)
        except Exception as error:  # of ONNX's and ONNX Runtime's errors, which share no base class of their own
            if isinstance(error, PipelineError):
                raise
            raise PipelineError(f"{target}: cannot be made of {network.path} ({library_text(error)})") from None
        check(temporary)
        os.replace(temporary, target)


def _of_size(model: Any, network: Network, batch: Batch) -> Any:
    """The model with its batch axis set or free; shapes in between, which tell another size, are taken away."""
    del model.graph.value_info[:]
    for port in (*(each for each in model.graph.input if each.name == network.input_name), *model.graph.output):
        axis = port.type.tensor_type.shape.dim[0]
        axis.Clear()
        if isinstance(batch, int):
            axis.dim_value = batch
        else:
            axis.dim_param = FREE_AXIS
    return model


def _halved(model: Any) -> Any:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    return convert_float_to_float16(model, keep_io_types=True)


def _tell(model: Any, key: str, value: str) -> None:
    for entry in [entry for entry in model.metadata_props if entry.key == key]:
        model.metadata_props.remove(entry)
    model.metadata_props.add(key=key, value=value)


def _try(path: Path, network: Network, batch: Batch) -> None:
    """Runs the file on the CPU; one of several batch sizes at two of them. Raises RuntimeError where it gives NaN."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for size in sizes_of(batch)[:2]:
        shape = network.shape(size)
        (result,) = session.run(None, {network.input_name: np.zeros(shape, np.float32)})
        if result.ndim != 2 or len(result) != size or not np.isfinite(result).all():
            raise RuntimeError(f"its output is {list(result.shape)} for an input of {shape}, or not finite")
