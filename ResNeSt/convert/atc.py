"""Stage 3 for an Ascend chip: simplified ONNX -> `.om`, by CANN's compiler ATC.

Options and file names are those of CANN 5 to 9. ATC needs no NPU in the machine.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Callable

from ResNeSt.common import tool
from ResNeSt.common.cann import Toolkit
from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import whole
from ResNeSt.convert import aoe, failure, taken_paths
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


def form(arguments: Iterable[str]) -> list[str]:
    """What of a command says what the model is like: all but the names of files and how much is logged."""
    return [argument for argument in arguments if argument.partition("=")[0] not in (*taken_paths.OPTIONS, "--log")]


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


def aipp_digest(network: Network, dtype: str) -> str:
    """SHA-256 of the file of `aipp_config`."""
    return hashlib.sha256(aipp_config(network, dtype).encode()).hexdigest()


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
    # ATC drops kernel_meta/ and fusion_result.json where it stands.
    with taken_paths.scratch_of(target.parent, "atc") as scratch:
        network.write_one_file(scratch)
        options = list(taken_paths.taken(arguments[1:], scratch))
        environment = aoe.with_bank_of(options, toolkit.compiling_environment())
        ended = tool.run([toolkit.atc, *options], scratch, environment)
        if verbose:
            print(ended.output, end="", flush=True)
        if ended.code != 0:
            raise PipelineError(f"{target.name}: ATC {failure.explain(ended)}")
        # <output>.om, or <output>_<os>_<arch>.om on some versions; nothing else has been written here.
        om_files = list(Path(scratch).glob("*.om"))
        if len(om_files) != 1:
            raise PipelineError(f"{target.name}: ATC reported success but left {len(om_files)} .om files, expected one")
        header = om_header.read(om_files[0])
        check(om_files[0])
        if scratch.parent == target.parent:
            os.replace(om_files[0], target)
        else:
            with whole(target) as temporary:
                shutil.copyfile(om_files[0], temporary)
    return header
