"""Reads an AIPP file (a prototxt) as strictly as the stand-in compiler needs it (contract atc, AIPP)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

_CHANNELS = range(3)
_MEAN = [f"mean_chn_{channel}" for channel in _CHANNELS]
_MIN = [f"min_chn_{channel}" for channel in _CHANNELS]
_SCALE = [f"var_reci_chn_{channel}" for channel in _CHANNELS]
_MATRIX = [f"matrix_r{row}c{column}" for row in _CHANNELS for column in _CHANNELS]
_INPUT_BIAS = [f"input_bias_{channel}" for channel in _CHANNELS]
_OUTPUT_BIAS = [f"output_bias_{channel}" for channel in _CHANNELS]
_SWITCHES = ["rbuv_swap_switch", "ax_swap_switch", "crop", "padding"]
_SIZES = ["src_image_size_w", "src_image_size_h"]
_MODES = ["aipp_mode", "input_format", "csc_switch", "related_input_rank"]
_KEYS = {*_MODES, *_SIZES, *_SWITCHES, *_MEAN, *_MIN, *_SCALE, *_MATRIX, *_INPUT_BIAS, *_OUTPUT_BIAS}
# Whose pixels the network's RGB is made of, and whether that takes the matrix.
_FORMATS = {"RGB888_U8": "false", "YUV420SP_U8": "true"}


class AippError(Exception):
    """`key`, its `value` and the reason why the file is refused."""

    def __init__(self, key: str, value: str, reason: str) -> None:
        super().__init__(key, value, reason)


def read(path: str, height: int, width: int) -> dict[str, Any]:
    """What the chip does for a model input of `height` x `width`: {"mean", "min", "var_reci"}, a number per channel.

    For YUV420SP_U8 "matrix", nine integers in 1/256, and "input_bias" as well; else they are None. `min` and
    `var_reci` are rounded to float16, which is what the chip holds. Raises AippError, OSError.
    """
    values = _parse(Path(path).read_text(encoding="utf-8"))
    kind = values.get("input_format", "")
    if kind not in _FORMATS:
        raise AippError("input_format", kind, f"it must be one of {list(_FORMATS)} for this model")
    expected = {"aipp_mode": "static", "csc_switch": _FORMATS[kind]}
    expected.update(src_image_size_w=str(width), src_image_size_h=str(height))
    for key, value in expected.items():
        if values.get(key) != value:
            raise AippError(key, values.get(key, ""), f"it must be {value} for this model")
    for key in [*_SWITCHES, "related_input_rank"]:
        if values.get(key, "false") not in ("false", "0"):
            raise AippError(key, values[key], "the stand-in does not carry it out")
    yuv = kind == "YUV420SP_U8"
    for key, side in zip(_SIZES, (width, height)):
        if yuv and side % 2:
            raise AippError(key, str(side), "it must be even for YUV420SP_U8")
    return {
        "mean": [_integer(values, key) for key in _MEAN],
        "min": [_half(values, key, "0") for key in _MIN],
        "var_reci": [_half(values, key, "1") for key in _SCALE],
        # The chip has defaults for these (BT.601, narrow range), which are not what a file that leaves them out means.
        "matrix": [_required(values, key, -32677, 32676) for key in _MATRIX] if yuv else None,
        "input_bias": [_required(values, key, 0, 255) for key in _INPUT_BIAS] if yuv else None,
    }


def _parse(text: str) -> dict[str, str]:
    block = re.fullmatch(r"\s*aipp_op\s*\{([^{}]*)\}\s*", re.sub(r"#.*", "", text))
    if block is None:
        raise AippError("aipp_op", "", "expected one block aipp_op { key: value }")
    pairs = re.findall(r"(\w+)\s*:\s*(\S+)", block.group(1))
    if re.sub(r"\w+\s*:\s*\S+", "", block.group(1)).strip():
        raise AippError("aipp_op", "", "the file does not parse as key: value pairs")
    for index, (key, value) in enumerate(pairs):
        if key not in _KEYS:
            raise AippError(key, value, "there is no such field")
        if key in dict(pairs[:index]):
            raise AippError(key, value, "the field is there twice")
    return dict(pairs)


def _integer(values: dict[str, str], key: str) -> float:
    value = values.get(key, "0")
    if not value.isdigit() or int(value) > 255:
        raise AippError(key, value, "it must be an integer from 0 to 255")
    return int(value)


def _required(values: dict[str, str], key: str, least: int, most: int) -> int:
    value = values.get(key, "")
    if not re.fullmatch(r"-?\d+", value) or not least <= int(value) <= most:
        raise AippError(key, value, f"it must be an integer from {least} to {most}")
    return int(value)


def _half(values: dict[str, str], key: str, default: str) -> Any:
    import numpy as np

    value = values.get(key, default)
    try:
        return float(np.float16(value))
    except ValueError:
        raise AippError(key, value, "it must be a number") from None
