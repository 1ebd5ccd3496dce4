"""Stand-in for `amct_onnx calibration`: refuses what cannot be calibrated, and rounds the weights it would quantize.

What it writes is a plain ONNX file, in which every convolution that is not skipped has its weights rounded to int8 per
channel, so that the stand-in compiler and client can run it; the real one writes AscendQuant and AscendDequant.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

# Fields of AMCT's simplified configuration that a stage may use.
_FIELD = re.compile(r'(batch_num) : (\d+)|(skip_layers) : "([^"]+)"')


class AmctError(Exception):
    """Why it does not calibrate."""


def main() -> int:
    """AMCT's exit codes; errors come as tracebacks, as the real one's do."""
    options = _parse()
    model = _load(options.model)
    config = _configuration(options.calibration_config)
    name, shape = _shape(options.input_shape, model)
    _run(model, name, shape, _batches(options.data_dir, shape, int(config["batch_num"][-1])))
    skipped = set(config["skip_layers"])
    _round_weights(model, skipped)
    _save(model, f"{options.save_path}_deploy_model.onnx")
    _save(model, f"{options.save_path}_fake_quant_model.onnx")
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="amct_onnx", allow_abbrev=False)
    calibration = parser.add_subparsers(required=True).add_parser("calibration", allow_abbrev=False)
    for name in ("model", "save_path", "input_shape", "data_dir", "data_types"):
        calibration.add_argument(f"--{name}", required=True)
    calibration.add_argument("--calibration_config")
    options = parser.parse_args()
    if options.data_types != "float32":
        raise AmctError(f"the stand-in calibrates on float32, not on {options.data_types}")
    return options


def _load(path: str) -> Any:
    import onnx

    model = onnx.load(path)
    onnx.checker.check_model(model)
    if model.opset_import[0].version not in range(8, 15):
        raise AmctError(f"{path}: operator set {model.opset_import[0].version}, expected 8 to 14")
    return model


def _configuration(path: str) -> dict[str, list[str]]:
    config: dict[str, list[str]] = {"batch_num": ["1"], "skip_layers": []}
    for line in Path(path).read_text(encoding="utf-8").splitlines() if path else []:
        match = _FIELD.fullmatch(line.strip())
        if match is None:
            raise AmctError(f"{path}: cannot parse {line!r}")
        config[match[1] or match[3]].append(match[2] or match[4])
    return config


def _shape(text: str, model: Any) -> tuple[str, list[int]]:
    (stored,) = model.graph.input
    name, _, dims = text.rpartition(":")
    shape = [int(dim) for dim in dims.split(",")]
    fixed = [dim.dim_value for dim in stored.type.tensor_type.shape.dim]
    if name != stored.name or len(shape) != len(fixed) or any(0 < old != new for old, new in zip(fixed, shape)):
        raise AmctError(f"input_shape {text!r} does not fit the model's {stored.name} {fixed}")
    return name, shape


def _batches(folder: str, shape: list[int], count: int) -> list[Any]:
    import numpy as np

    files = sorted(path for path in Path(folder).iterdir() if path.suffix == ".bin")
    if len(files) < count:
        raise AmctError(f"{folder}: {len(files)} .bin files, batch_num is {count}")
    batches = [np.fromfile(path, np.float32) for path in files[:count]]
    for path, batch in zip(files, batches):
        if batch.size != np.prod(shape):
            raise AmctError(f"{path}: {batch.size} values, {shape} takes {np.prod(shape)}")
    return [batch.reshape(shape) for batch in batches]


def _run(model: Any, name: str, shape: list[int], batches: list[Any]) -> None:
    import numpy as np
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for batch in batches:
        if not all(np.isfinite(output).all() for output in session.run(None, {name: batch})):
            raise AmctError("the activations are not finite")


def _round_weights(model: Any, skipped: set[str]) -> None:
    import numpy as np
    from onnx import numpy_helper

    layers = [node for node in model.graph.node if node.op_type == "Conv"]
    unknown = skipped - {node.name for node in layers}
    if unknown:
        raise AmctError(f"skip_layers: {sorted(unknown)} are no layers that can be quantized")
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in layers:
        if node.name not in skipped:
            tensor = weights[node.input[1]]
            values = numpy_helper.to_array(tensor)
            step = np.abs(values).max(axis=(1, 2, 3), keepdims=True) / 127
            rounded = np.rint(values / np.maximum(step, np.finfo(np.float32).tiny)) * step
            tensor.CopyFrom(numpy_helper.from_array(rounded.astype(np.float32), tensor.name))


def _save(model: Any, path: str) -> None:
    import onnx

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    print(f"INFO - [AMCT]:[Utils]: The model file is saved in {path}")


if __name__ == "__main__":
    sys.exit(main())
