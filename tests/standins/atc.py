"""Stand-in for ATC: refuses what the contract says ATC refuses, and writes an `.om` for the stand-in client."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any, NoReturn

import aipp
import standin_om

Options = dict[str, str]
Shapes = dict[str, list[int]]

_CHIPS = """310 310P1 310P3 310P5 310P7 310B1 310B2 310B3 310B4 610 610Lite 910A 910B 910ProA 910ProB 910PremiumA 910B1
910B2 910B2C 910B3 910B4 910B4-1 910_9362 910_9372 910_9381 910_9382 910_9391 910_9392 910_9363 950PR_9589 350_354f"""

# Every option of the contract, with its values where the contract lists them.
_OPTIONS: dict[str, list[str] | None] = {
    "framework": ["5"],
    "model": None,
    "output": None,
    "soc_version": [f"Ascend{chip}" for chip in _CHIPS.split()],
    "input_format": ["NCHW", "NCDHW", "ND"],
    "input_shape": None,
    "dynamic_batch_size": None,
    "dynamic_image_size": None,
    "dynamic_dims": None,
    "insert_op_conf": None,
    "enable_small_channel": ["0", "1"],
    "output_type": ["FP32", "FP16"],
    "input_fp16_nodes": None,
    "precision_mode": ["force_fp16", "allow_fp32_to_fp16", "must_keep_origin_dtype", "allow_mix_precision"],
    "precision_mode_v2": None,
    "op_select_implmode": ["high_performance", "high_precision"],
    "keep_dtype": None,
    "op_compiler_cache_mode": None,
    "op_bank_path": None,
    "mdl_bank_path": None,
    "buffer_optimize": ["l1_optimize", "l2_optimize", "off_optimize", "l1_and_l2_optimize"],
    "log": ["debug", "info", "warning", "error", "null"],
    "mode": ["0", "3", "6"],
}
_BANK = re.compile(r"[A-Za-z0-9_./-]+")
_REQUIRED = ["framework", "model", "output", "soc_version"]
_OPSETS = range(9, 19)
# int8 reaches the chip as AscendQuant and AscendDequant.
_UNKNOWN_OPERATORS = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul"}


# Of the real path of a file that is read, and of the name of what is written.
_PATH = re.compile(r"[\u4e00-\u9fa5A-Za-z0-9./_-]+")


class AtcError(Exception):
    """One of ATC's error codes, with its message and its advice."""

    def __init__(self, code: str, message: str, solution: str) -> None:
        super().__init__(code, message, solution)


def _invalid(option: str, value: str, reason: str) -> AtcError:
    message = f"Value [{value}] for parameter [--{option}] is invalid. Reason: {reason}."
    return AtcError("E10001", message, "Try again with a valid argument.")


def _unloadable(path: str, reason: object) -> AtcError:
    return AtcError("E10041", f"Failed to load file [{path}]. Reason: {reason}.", "Check that the file is valid.")


def _beyond_the_stand_in(what: str) -> NoReturn:
    sys.exit(f"the stand-in does not carry out {what}")


def main(arguments: list[str]) -> int:
    """ATC's lines and exit codes."""
    if arguments == ["--help"]:
        print("usage: atc " + " ".join(f"--{name}=" for name in _OPTIONS))
        return 0
    print("ATC start working now, please wait for a moment.")
    try:
        _compile(check(arguments))
    except AtcError as error:
        return _failed(*error.args)
    print("ATC run success, welcome to the next use.")
    return 0


def _failed(code: str, message: str, solution: str) -> int:
    print("ATC run failed, Please check the detail log, Try 'atc --help' for more information")
    print(f"{code}: {message}")
    print(f"        Solution: {solution}")
    print("        TraceBack (most recent call last):")
    print("        the stand-in compiler refused[FUNC:main][FILE:atc.py]")
    return 255


def _parse(arguments: list[str]) -> Options:
    options: Options = {}
    for argument in arguments:
        name, _, value = argument[2:].partition("=")
        if name == "auto_tune_mode":
            raise _invalid(name, value, "the option was removed; tune with AOE, aoe --job_type=1 or 2")
        if not argument.startswith("--") or name not in _OPTIONS or "=" not in argument:
            raise _invalid(name, value, f"unknown command line flag [{argument}]")
        options[name] = value
    for name in _REQUIRED:
        if not options.get(name):
            message = f"The required parameter [--{name}] for ATC is empty."
            raise AtcError("E10054", message, "Set the parameter, with its value in quotation marks.")
    return options


def check(arguments: list[str]) -> Options:
    """The options; raises AtcError for those that are refused before the model is read."""
    options = _parse(arguments)
    _check_values(options)
    _check_combinations(options)
    return options


def _compile(options: Options) -> None:
    Path("kernel_meta").mkdir(exist_ok=True)
    model = _load(options["model"])
    _check_operators(model)
    shapes = _shapes(options, model)
    _fix_shapes(model, shapes)
    sizes = _batch_sizes(options)
    outputs = [_outputs(model, {name: [size, *shape[1:]] for name, shape in shapes.items()}) for size in sizes]
    description = _describe(options, shapes, outputs[0] if outputs else _outputs(model, shapes), sizes)
    Path("fusion_result.json").write_text("[]\n", encoding="utf-8")
    standin_om.write(_target(options["output"]), model.SerializeToString(), len(model.graph.node), description)


def _check_values(options: Options) -> None:
    for name, value in options.items():
        known = _OPTIONS[name]
        if known is not None and value not in known:
            raise _invalid(name, value, f"the value must be one of {known}")
    _check_paths(options)
    for name in ("insert_op_conf", "keep_dtype"):
        if name in options and not Path(options[name]).is_file():
            raise _unloadable(options[name], "no such file")
    if not Path(options["output"]).parent.is_dir():
        raise _invalid("output", options["output"], "the directory does not exist")
    if options.get("mode", "0") != "0":
        _beyond_the_stand_in("--mode other than 0")


def _check_paths(options: Options) -> None:
    paths = {name: os.path.realpath(options[name]) for name in ["model", "insert_op_conf"] if name in options}
    paths["output"] = options["output"]
    for name, path in paths.items():
        if not _PATH.fullmatch(path):
            raise _invalid(name, path, "the path has other characters than letters, digits, '.', '/', '_' and '-'")


def _check_combinations(options: Options) -> None:
    together = [
        ("precision_mode", "precision_mode_v2"),
        ("dynamic_batch_size", "dynamic_image_size"),
        ("dynamic_batch_size", "dynamic_dims"),
        # AIPP is on the only input, so any input_fp16_nodes names that one.
        ("input_fp16_nodes", "insert_op_conf"),
    ]
    for first, second in together:
        if first in options and second in options:
            raise _invalid(first, options[first], f"it cannot be used together with [--{second}]")
    for name in ("op_bank_path", "mdl_bank_path"):
        if name in options and not (Path(options[name]).is_dir() and _BANK.fullmatch(options[name])):
            raise _invalid(name, options[name], "it must be a directory, of letters, digits, _, - and .")
        if name in options and os.environ.get("TUNE_BANK_PATH", options[name]) != options[name]:
            sys.exit(f"the stand-in: TUNE_BANK_PATH goes before --{name}, which would not be read")
    if "mdl_bank_path" in options and options.get("buffer_optimize", "l2_optimize") == "off_optimize":
        raise _invalid("mdl_bank_path", options["mdl_bank_path"], "it needs [--buffer_optimize]")
    if options.get("enable_small_channel") == "1" and "insert_op_conf" not in options:
        raise _invalid("enable_small_channel", "1", "it needs static AIPP, [--insert_op_conf]")


def _load(path: str) -> Any:
    import onnx

    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf and the checker have no common ancestor below Exception
        raise _unloadable(path, " ".join(str(error).split())) from None
    return model


def _check_operators(model: Any) -> None:
    if len(model.opset_import) != 1:
        domains = [entry.domain or "ai.onnx" for entry in model.opset_import]
        message = f"The model has {len(domains)} domain_version fields {domains}, but only one is allowed."
        raise AtcError("E16005", message, "Export the model with one operator set.")
    opset = model.opset_import[0].version
    for node in model.graph.node:
        if opset not in _OPSETS or node.op_type in _UNKNOWN_OPERATORS:
            kind = f"ai.onnx::{opset}::{node.op_type}"
            message = f"No parser is registered for Op [{node.name}, optype [{kind}]]."
            raise AtcError("E19010", message, "Check the operator specification of this release.")


def _shapes(options: Options, model: Any) -> Shapes:
    stored = {value.name: value.type.tensor_type.shape.dim for value in model.graph.input}
    if len(stored) != 1:
        _beyond_the_stand_in(f"models with {len(stored)} inputs")
    text = options.get("input_shape", "")
    asked = _parse_shapes(text) if text else {}
    for name in [*asked, *filter(None, options.get("input_fp16_nodes", "").split(";"))]:
        if name not in stored:
            raise AtcError("E10016", f"Opname [{name}] is not found in the model.", "Check the input's name.")
    if not asked:
        asked = {name: [dim.dim_value for dim in dims] for name, dims in stored.items()}
    for name, shape in asked.items():
        _check_shape(options, shape, [dim.dim_value for dim in stored[name]])
    return asked


def _parse_shapes(text: str) -> Shapes:
    try:
        pairs = [entry.rsplit(":", 1) for entry in text.split(";")]
        return {name: [int(dim) for dim in dims.split(",")] for name, dims in pairs}
    except ValueError:
        raise _invalid("input_shape", text, 'expected "name:d0,d1,..."') from None


def _check_shape(options: Options, shape: list[int], stored: list[int]) -> None:
    """The batch size, the first dimension, is the caller's to set even where the file says 1; the others are fixed."""
    text = options.get("input_shape", "")
    if len(shape) != len(stored) or any(0 < old != new for old, new in zip(stored[1:], shape[1:])):
        raise _invalid("input_shape", text, f"the model's input is {stored}")
    if options.get("input_format", "NCHW") == "NCHW" and len(shape) != 4:
        raise _invalid("input_shape", text, "NCHW has four dimensions")
    dynamic = "dynamic_batch_size" in options
    if dynamic and shape[0] != -1:
        raise _invalid("dynamic_batch_size", options["dynamic_batch_size"], "N must be -1 in [--input_shape]")
    if any(dim <= 0 for dim in (shape[1:] if dynamic else shape)):
        raise _invalid("input_shape", text, "every dimension must be greater than 0")


def _batch_sizes(options: Options) -> list[int]:
    """Those of `--dynamic_batch_size`, in ascending order; none where the batch is static."""
    text = options.get("dynamic_batch_size")
    if text is None:
        return []
    if not all(part.isdigit() and int(part) > 0 for part in text.split(",")):
        raise _invalid("dynamic_batch_size", text, "expected whole numbers above 0, separated by commas")
    sizes = {int(part) for part in text.split(",")}
    for code, wrong, bound in (("E10035", len(sizes) < 2, "minimum 2"), ("E10036", len(sizes) > 100, "maximum 100")):
        if wrong:
            message = f"--dynamic_batch_size has {len(sizes)} profiles, the {bound}."
            raise AtcError(code, message, "Ensure that the number of profiles is within the range.")
    return sorted(sizes)


def _fix_shapes(model: Any, shapes: Shapes) -> None:
    """Sets the input's dimensions and forgets every shape that followed from the old ones."""
    for value in model.graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim, shapes[value.name]):
            if size == -1:
                dim.dim_param = "batch"
            else:
                dim.dim_value = size
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]


def _outputs(model: Any, shapes: Shapes) -> list[dict[str, Any]]:
    """Runs the graph once: a batch size that is baked into it shows here, as it does in ATC's shape inference."""
    import numpy as np
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        results = session.run(None, {name: np.zeros(shape, np.float32) for name, shape in shapes.items()})
    except Exception as error:  # the runtime's errors share no narrower type
        message = f"Inner Error! InferShapeAndType failed: {' '.join(str(error).split())}"
        raise AtcError("EZ9999", message, "Check the shapes in the model.") from None
    names = [output.name for output in session.get_outputs()]
    return [{"name": name, "shape": list(result.shape)} for name, result in zip(names, results)]


def _describe(options: Options, shapes: Shapes, outputs: list[dict[str, Any]], sizes: list[int]) -> dict[str, Any]:
    ((name, shape),) = shapes.items()
    tensor = {"name": name, "shape": shape, "dtype": "float16" if options.get("input_fp16_nodes") else "float32"}
    constants = None
    if "insert_op_conf" in options:
        constants = _aipp(options["insert_op_conf"], shape)
        batch, channels, height, width = shape
        rows = [height * 3 // 2, width, 1] if constants["matrix"] else [height, width, channels]
        tensor = {"name": name, "shape": [batch, *rows], "dtype": "uint8"}
    kind = "float16" if options.get("output_type") == "FP16" else "float32"
    free = {"shape": [-1, *outputs[0]["shape"][1:]]} if sizes else {}
    results = [{**output, **free, "dtype": kind} for output in outputs]
    return {"inputs": [tensor], "outputs": results, "aipp": constants, "sizes": sizes}


def _aipp(path: str, shape: list[int]) -> dict[str, Any]:
    if len(shape) != 4 or shape[1] != 3:
        raise _invalid("insert_op_conf", path, f"AIPP needs an input N,3,H,W, not {shape}")
    try:
        constants: dict[str, Any] = aipp.read(path, *shape[2:])
        return constants
    except aipp.AippError as error:
        key, value, reason = error.args
        raise _invalid("insert_op_conf", f"{key}: {value}", reason) from None


def _target(output: str) -> Path:
    suffixed = os.environ.get("STANDIN_ATC_SUFFIX") == "1"
    return Path(output + ("_linux_x86_64.om" if suffixed else ".om"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
