"""Stage 3 for a CPU: simplified ONNX -> OpenVINO IR (`.xml` and `.bin`) of static or free batch, ahead of time."""

from __future__ import annotations

import functools
import hashlib
import os
import re
from pathlib import Path
from types import ModuleType
from typing import Any, Callable

import numpy as np

from ResNeSt.common.cores import thread_limit
from ResNeSt.common.errors import MissingRuntimeError, PipelineError
from ResNeSt.common.files import remove_plain, scratch_folder
from ResNeSt.convert import full_precision
from ResNeSt.convert.targets import Batch, sizes_of
from ResNeSt.formats import onnx_header
from ResNeSt.models.model_info import SECTION
from ResNeSt.models.onnx_file import FREE, Network
from ResNeSt.tensors import nv12


def import_openvino() -> ModuleType:
    """The openvino package; raises MissingRuntimeError where it is not installed."""
    try:
        import openvino
    except ImportError:
        raise MissingRuntimeError("openvino is not installed here: pip install -r requirements.txt") from None
    package: ModuleType = openvino
    return package


def version() -> str:
    """OpenVINO's."""
    return str(import_openvino().get_version())


def form() -> str:
    """SHA-256 of the code that makes the files: what an earlier release made of the same network may be another one."""
    code = b"".join(Path(file).read_bytes() for file in (__file__, full_precision.__file__, nv12.__file__))
    return hashlib.sha256(code).hexdigest()


def compile_model(
    network: Network, target: Path, batch: Batch, dtype: str, precision: str, source: str, check: Callable[[Path], None]
) -> None:
    """Compiles `network` for `batch` images to `target` (.xml, with .bin beside it); several sizes leave its axis free.

    The input is float32 NCHW, for dtype "uint8" uint8 NHWC with the normalisation inside, for "yuv420sp" NV12 with the
    change to RGB before it. rt_info's section says
    what the model is, its `precision` for the engine to compute in, and `source`, the SHA-256 of the ONNX file.
    `check` gets the model before it has its name. Raises PipelineError where OpenVINO fails, where the result does not
    run, and what `check` raises; nothing is left at `target` then.
    """
    openvino = import_openvino()
    with scratch_folder(target.parent, "openvino") as scratch:
        temporary = Path(scratch, target.name)
        try:
            model = _shaped_model(openvino, network, batch, dtype)
            for key, value in _info(network, precision, source).items():
                model.set_rt_info(value, [SECTION, key])
            if precision == "fp32":
                full_precision.rewrite(openvino, model)
            _name_evenly(model, network.path)
            openvino.save_model(model, temporary, compress_to_fp16=False)
            if precision == "fp32":
                full_precision.forbid_less(temporary)
            _try(openvino, temporary, batch)
        except RuntimeError as error:
            raise PipelineError(f"{target}: OpenVINO cannot compile {network.path}: {error}") from error
        check(temporary)
        _move(temporary, target)


def has_bf16() -> bool:
    """Whether this machine's CPU computes in bfloat16."""
    return "BF16" in import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _shaped_model(openvino: ModuleType, network: Network, batch: Batch, dtype: str) -> Any:
    model = openvino.Core().read_model(network.path)
    model.reshape({network.input_name: network.shape(batch if isinstance(batch, int) else FREE)})
    if dtype == "float32":
        return model
    processor = openvino.preprocess.PrePostProcessor(model)
    images = processor.input()
    if dtype == "uint8":
        images.tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    images.model().set_layout(openvino.Layout("NCHW"))
    images.preprocess().convert_element_type(openvino.Type.f32)
    means, stds = network.normalisation
    images.preprocess().mean([255 * mean for mean in means]).scale([255 * std for std in stds])
    normalising = processor.build()
    if dtype == "yuv420sp":
        _take_nv12(openvino, normalising)
    return normalising


def _take_nv12(openvino: ModuleType, model: Any) -> None:
    """Gives a model of RGB levels, float32 NCHW, an input of uint8 NV12, with nv12.to_rgb in between.

    OpenVINO's own ColorFormat.NV12 is of narrow range, as in videos, and would stretch the levels of JPEG's pictures.
    """
    ops = openvino.opset13
    rgb = model.get_parameters()[0]
    batch, _, height, width = rgb.get_partial_shape()
    height, width = height.get_length(), width.get_length()
    pixels = ops.parameter(openvino.PartialShape([batch, height * 3 // 2, width]), openvino.Type.u8)
    pixels.set_friendly_name(rgb.get_friendly_name())
    pixels.output(0).set_names(rgb.output(0).get_names())
    luma, chroma = ops.variadic_split(pixels, 1, [height, height // 2]).outputs()
    # Each pair of U and V counts for two rows and two columns.
    pairs = ops.reshape(chroma, [0, height // 2, 1, width // 2, 1, 2], special_zero=True)
    repeated = ops.reshape(ops.tile(pairs, [1, 1, 2, 1, 2, 1]), [0, height, width, 2], special_zero=True)
    planes = [ops.unsqueeze(luma, 1), *ops.split(ops.transpose(repeated, [0, 3, 1, 2]), 1, 2).outputs()]
    columns = np.array(nv12.TO_RGB, np.float32).T.reshape(3, 1, 3, 1, 1)
    parts = [
        ops.multiply(ops.subtract(ops.convert(plane, "f32"), np.float32(bias)), column)
        for plane, bias, column in zip(planes, nv12.BIAS, columns)
    ]
    shifted = ops.floor(ops.divide(functools.reduce(ops.add, parts), np.float32(nv12.FRACTION)))
    rgb.output(0).replace(ops.clamp(shifted, 0.0, 255.0).output(0))
    model.remove_parameter(rgb)
    model.add_parameters([pixels])
    model.validate_nodes_and_infer_types()


def _info(network: Network, precision: str, source: str) -> dict[str, str]:
    return {**network.info, "precision": precision, "source": source}


def _try(openvino: ModuleType, path: Path, batch: Batch) -> None:
    """Runs the saved model, as the engine will load it; one of several batch sizes at two of them."""
    threads = str(thread_limit() or 0)  # 0: as many as it finds
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    compiled = openvino.Core().compile_model(path, "CPU", settings)
    images = compiled.input(0)
    sides = [side.get_length() for side in list(images.partial_shape)[1:]]
    for size in sizes_of(batch)[:2]:
        shape = [size, *sides]
        result = compiled(np.zeros(shape, images.element_type.to_dtype()))[0]
        if result.ndim != 2 or len(result) != size or not np.isfinite(result).all():
            raise RuntimeError(f"its output is {list(result.shape)} for an input of {shape}, or not finite")


def _name_evenly(model: Any, onnx: Path) -> None:
    """Numbers the nodes that OpenVINO named by their place, not by its count over all models of the process.

    So the same network is the same file, whatever was compiled before it.
    """
    given = {node.name for node in onnx_header.read(onnx).nodes}
    for place, node in enumerate(model.get_ordered_ops()):
        name = node.get_friendly_name()
        if name not in given and re.fullmatch(r"[A-Za-z]+_[0-9]+", name):
            node.set_friendly_name(f"{name.split('_')[0]}_of_{place}")


def _move(temporary: Path, target: Path) -> None:
    """The .xml goes first and comes last: where it is, the .bin that belongs to it is."""
    remove_plain(target)
    os.replace(temporary.with_suffix(".bin"), target.with_suffix(".bin"))
    os.replace(temporary, target)
