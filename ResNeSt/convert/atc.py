"""Stage 3 for an Ascend chip: simplified ONNX -> `.om`, by CANN's compiler ATC.

Options, messages and file names are those of CANN 5 to 8. ATC needs no NPU in the machine.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Callable

from ResNeSt.common.cann import Toolkit
from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import scratch_folder, whole
from ResNeSt.convert.targets import Batch
from ResNeSt.formats import om_header
from ResNeSt.models import sidecar
from ResNeSt.models.onnx_file import FREE, Network
from ResNeSt.tensors import nv12

AIPP = "aipp"  # key of a model's record: SHA-256 of the pre-processing file that it was compiled with
LOG_LEVELS = ("debug", "info", "warning", "error", "null")

# ATC's own default is force_fp16, so that a command without the option is the one everybody knows.
_PRECISION_OPTIONS = {
    "fp16": [],
    "fp32": ["--precision_mode=must_keep_origin_dtype"],
    "mixed": ["--precision_mode=allow_mix_precision"],
    "int8": [],  # what is to run in int8 stands in the graph that AMCT wrote; the rest runs in fp16
}

# What AIPP is told of the pixels; its matrix makes RGB of NV12, whose V follows U (rbuv_swap_switch is for NV21).
_COLOURS = {
    "uint8": ["input_format: RGB888_U8", "csc_switch: false"],
    "yuv420sp": [
        "input_format: YUV420SP_U8",
        "csc_switch: true",
        "rbuv_swap_switch: false",
        *(f"matrix_r{row}c{column}: {nv12.TO_RGB[row][column]}" for row in range(3) for column in range(3)),
        *(f"input_bias_{channel}: {bias}" for channel, bias in enumerate(nv12.BIAS)),
    ],
}

_HINTS = {
    "E10001": "a value is refused: does this CANN release know the chip and every option (atc --help)?",
    "E10016": "the graph has no such node or input: was the .onnx exported by resnest_pth2onnx.py?",
    "E10041": "the file cannot be loaded: is it whole, and may ATC read it?",
    "E10054": "an option is empty: run with --dry-run to see the command",
    "E16002": "no parser for an operator: export at opset 11, which every CANN release takes",
    "E16005": "two operator sets in one file: export again with resnest_pth2onnx.py",
    "E19010": "no parser for an operator: export at opset 11, which every CANN release takes",
    "EZ3003": "the chip has no kernel for an operator in this precision: use --precision fp16 or mixed",
}
_ERROR_LINE = re.compile(r"\b(E[0-9A-Z]\d{4})\b")


def command(
    network: Network, batch: Batch, chip: str, precision: str, name: str, aipp: Path | None, log: str | None
) -> list[str]:
    """The ATC command that compiles `network` for `batch` images to `name` (no suffix) in the current directory.

    `aipp` is the file of `aipp_config`, for inputs of pixels.
    """
    shape = ",".join(str(side) for side in network.shape(batch if isinstance(batch, int) else FREE))
    arguments = [
        "atc",
        "--framework=5",
        f"--model={network.one_file}",
        f"--output={name}",
        "--input_format=NCHW",
        f"--input_shape={network.input_name}:{shape}",
        *([] if isinstance(batch, int) else [f"--dynamic_batch_size={','.join(map(str, batch))}"]),
        f"--soc_version=Ascend{chip}",
        *_PRECISION_OPTIONS[precision],
    ]
    if aipp is not None:
        arguments += [f"--insert_op_conf={aipp.absolute()}", "--enable_small_channel=1"]
    if log is not None:
        arguments.append(f"--log={log}")
    return arguments


def aipp_config(network: Network, dtype: str) -> str:
    """ATC's image pre-processing (AIPP): uint8 NHWC RGB in, (value - 255 mean) / (255 std) into the network.

    The chip computes (value - mean_chn - min_chn) * var_reci_chn; mean_chn is an integer, so it stays 0. For dtype
    "yuv420sp" NV12 comes in, and is changed to RGB before that (tensors.nv12).
    """
    means, stds = network.normalisation
    lines = [
        "aipp_mode: static",
        *_COLOURS[dtype],
        f"src_image_size_w: {network.width}",
        f"src_image_size_h: {network.height}",
        *(f"min_chn_{channel}: {255 * mean:.10g}" for channel, mean in enumerate(means)),
        *(f"var_reci_chn_{channel}: {1 / (255 * std):.16f}" for channel, std in enumerate(stds)),
    ]
    return "aipp_op {\n" + "".join(f"  {line}\n" for line in lines) + "}\n"


def is_own_aipp(network: Network, path: Path, models: Iterable[Path]) -> bool:
    """Whether the file at `path` is that of `aipp_config`, for `network` or when one of `models` was compiled."""
    text = path.read_bytes()
    digest = hashlib.sha256(text).hexdigest()
    told = [sidecar.recorded(model, [AIPP]) for model in models]
    return text in [aipp_config(network, dtype).encode() for dtype in _COLOURS] or {AIPP: digest} in told


def write_aipp(network: Network, dtype: str, path: Path) -> None:
    """Writes `aipp_config` to `path`, whole or not at all."""
    with whole(path) as temporary:
        temporary.write_text(aipp_config(network, dtype), encoding="utf-8")


def compile_model(
    toolkit: Toolkit,
    network: Network,
    arguments: list[str],
    target: Path,
    verbose: bool,
    check: Callable[[Path], None],
) -> om_header.Om:
    """Runs the ATC command `arguments` for `network`, which writes to `target.stem`, and moves the model to `target`.

    Returns the model's header. `check` gets the model before it has its name. Raises PipelineError where ATC fails,
    after printing what it says of the reason, or where what it wrote is no model, and what `check` raises; nothing is
    left at `target` then. `verbose` shows all that ATC prints.
    """
    # ATC drops kernel_meta/ and fusion_result.json where it stands. The folder lies beside the target, so that the
    # model is renamed and not copied.
    with scratch_folder(target.parent, "atc") as scratch:
        network.write_one_file(scratch)
        result = subprocess.run(
            [toolkit.atc, *arguments[1:]],
            cwd=scratch,
            env=toolkit.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )
        if verbose:
            print(result.stdout, end="", flush=True)
        if result.returncode != 0:
            raise PipelineError(f"{target.name}: ATC failed (exit code {result.returncode}){_explain(result.stdout)}")
        # <output>.om, or <output>_<os>_<arch>.om on some versions; nothing else has been written here.
        om_files = list(Path(scratch).glob("*.om"))
        if len(om_files) != 1:
            raise PipelineError(f"{target.name}: ATC reported success but left {len(om_files)} .om files, expected one")
        header = om_header.read(om_files[0])
        check(om_files[0])
        os.replace(om_files[0], target)
    return header


def _explain(output: str) -> str:
    """Prints ATC's own lines about the reason, or its last ones; returns the hint for the first code that has one."""
    lines = output.splitlines()
    reasons = [line for line in lines if _ERROR_LINE.search(line) or line.lstrip().startswith("Solution:")]
    print("\n".join(reasons or lines[-10:]), file=sys.stderr)
    codes = [match.group(1) for line in reasons for match in [_ERROR_LINE.search(line)] if match]
    return next((f"; {code}: {_HINTS[code]}" for code in codes if code in _HINTS), "")
