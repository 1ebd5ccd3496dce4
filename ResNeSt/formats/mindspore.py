"""MindSpore's .ckpt: MindCV's ResNeSts (mindcv/models/resnest.py) and the model zoo's (research/cv/ResNeSt50).

The file is a protobuf message (mindspore/ccsrc/utils/checkpoint.proto):

    Checkpoint { repeated Value value = 1 }         TensorProto { repeated int64 dims = 1; string tensor_type = 2;
    Value { string tag = 1; TensorProto tensor = 2 }              bytes tensor_content = 3 }

What its optimizers keep goes by the name of the parameter that it belongs to, behind a word of theirs:
`moments.fc.bias` (nn/optim in its source); the learning rate is a number, or one for each step.

Both call a batch norm's entries gamma, beta, moving_mean and moving_variance. MindCV pools with pad_mode "same"; the
zoo pads by hand, as the official source does, and keeps a convolution's groups apart: `convs.0` and so on.
"""

from __future__ import annotations

import math
import mmap
import re
from collections.abc import Iterator

import numpy as np

from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import PathLike
from ResNeSt.formats.checkpoints import Foreign
from ResNeSt.formats.protobuf import fields, message, messages, string

_DTYPES = {"Float16": np.float16, "Float32": np.float32, "Float64": np.float64, "BFloat16": np.uint16}
_LEAVES = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
_OPTIMIZER = re.compile(
    r"(moments|moment[12]?|vhat|accum|accum_update|accumulate_|stat|adam_[mv]|lamb_[mv]|exp_avg|exp_avg_sq|ema"
    r"|mean_square|mean_grad)\..+|(.+\.)?learning_rate"
)
_GROUP = re.compile(r"\.convs\.(\d+)\.")


def read(path: PathLike) -> Foreign:
    """The network's entries; those of the optimizer and single numbers (learning rate, step) are left out.

    Raises ValueError where the file is damaged, PipelineError for numbers of a type that no network here has.
    """
    groups: dict[str, dict[int, np.ndarray]] = {}
    pooling = "same"
    for tag, value in _tensors(path):
        group = _GROUP.search(tag)
        pooling = "zeros" if group else pooling
        groups.setdefault(_official(tag), {})[int(group[1]) if group else 0] = value
    if not groups:
        raise ValueError("it holds no tensors")
    return Foreign({name: np.concatenate([parts[i] for i in sorted(parts)]) for name, parts in groups.items()}, pooling)


def _official(tag: str) -> str:
    path, _, leaf = _GROUP.sub(".", tag).rpartition(".")
    return f"{path}.{_LEAVES.get(leaf, leaf)}"


def _tensors(path: PathLike) -> Iterator[tuple[str, np.ndarray]]:
    with open(path, "rb") as file:
        content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    for value in messages(content, 1):
        tag, tensor = string(value, 1), message(value, 2)
        shape = [dim for number, dim in fields(tensor) if number == 1 and isinstance(dim, int)]
        is_number = math.prod(shape) <= 1 and not tag.endswith(
            tuple(f".{leaf}" for leaf in (*_LEAVES, "weight", "bias"))
        )
        if not is_number and not _OPTIMIZER.fullmatch(tag):
            yield tag, _array(path, tag, shape, tensor)


def _array(path: PathLike, tag: str, shape: list[int], tensor: memoryview) -> np.ndarray:
    stored = string(tensor, 2)
    if stored not in _DTYPES:
        raise PipelineError(
            f"{path}: {tag} is of {stored}, expected one of {', '.join(_DTYPES)}; save the network's weights alone"
        )
    values = np.frombuffer(message(tensor, 3), _DTYPES[stored]).reshape(shape)
    # The upper half of a float32; NumPy has no such type.
    return (values.astype(np.uint32) << 16).view(np.float32) if stored == "BFloat16" else values
