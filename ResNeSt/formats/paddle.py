"""Paddle's .pdparams: PaddleClas's ResNeSts (ppcls/arch/backbone/model_zoo/resnest.py).

The file is a pickled mapping from names to NumPy arrays. A pickle can run anything, so this one may name nothing but
what NumPy arrays are made of. Entries go by the names of layers (`layer1.layer1_bottleneck_0.conv1._conv.weight`, which
is what Layer.state_dict gives) or, in files of static graphs, of parameters (`layer1_bottleneck_0_conv1_weight`). The
attention's biases have no name of their own there: Paddle numbers them in the order of the blocks (`conv2d_6.b_0`).

Paddle keeps the classifier's weight as (inputs, outputs), and its average pooling leaves padding out of the mean.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import PathLike
from ResNeSt.formats.checkpoints import Arrays, Foreign

_TABLE = "StructuredToParameterName@@"  # paddle.save adds it: layers' names -> parameters' names
_NUMBERED = re.compile(r"conv2d_(\d+)\.b_0")
_BLOCK = re.compile(r"(layer\d)(?:\.layer\d)?_bottleneck_(\d+)[._]")
# A batch norm's entries: of the layer, of the parameters, official.
_NORM = [
    ("weight", "scale", "weight"),
    ("bias", "offset", "bias"),
    ("_mean", "mean", "running_mean"),
    ("_variance", "variance", "running_var"),
]

FLOATS = (np.float16, np.float32, np.float64)  # long doubles are no type of PyTorch's


def _pairs(pairs: Sequence[tuple[str, str, str, str]]) -> dict[str, str]:
    """Paddle's names -> official ones; of a convolution with its batch norm as layer, as parameters, and officially."""
    names = {}
    for layer, parameters, conv, norm in pairs:
        names.update(dict.fromkeys((f"{layer}_conv.weight", f"{parameters}weight"), f"{conv}.weight"))
        for of_layer, of_parameter, official in _NORM:
            of_both = (f"{layer}_batch_norm.{of_layer}", f"{parameters}{of_parameter}")
            names.update(dict.fromkeys(of_both, f"{norm}.{official}"))
    return names


_IN_NETWORK = {
    **_pairs(
        [
            ("stem.conv1.", "conv1_", "conv1.0", "conv1.1"),
            ("stem.conv2.", "conv2_", "conv1.3", "conv1.4"),
            ("stem.conv3.", "conv3_", "conv1.6", "bn1"),
        ]
    ),
    "out.weight": "fc.weight",
    "fc_weights": "fc.weight",
    "out.bias": "fc.bias",
    "fc_offset": "fc.bias",
}
_IN_BLOCK = {
    **_pairs(
        [
            ("conv1.", "conv1_", "conv1", "bn1"),
            ("conv2.conv1.", "splat_1_weights_", "conv2.conv", "conv2.bn0"),
            ("conv2.conv2.", "splat_2_weights_", "conv2.fc1", "conv2.bn1"),
            ("conv3.", "conv3_", "conv3", "bn3"),
            ("", "shortcut_", "downsample.1", "downsample.2"),
        ]
    ),
    "conv2.conv3.weight": "conv2.fc2.weight",
    "conv2.conv3.bias": "conv2.fc2.bias",
    "splat_weights": "conv2.fc2.weight",
    "splat_bias": "conv2.fc2.bias",
    "conv4.weight": "downsample.1.weight",
    "weights": "downsample.1.weight",
}


def read(path: PathLike) -> Foreign:
    """The network's entries.

    Raises UnpicklingError where the file is damaged, PipelineError for a pickle of something else.
    """
    with open(path, "rb") as file:
        unpickler = _ArraysOnly(file)
        try:
            loaded = unpickler.load()
        except _StrangerError as error:
            raise _other(path, f"holds {error}, which no array needs") from None
    if not isinstance(loaded, dict):
        raise _other(path, f"holds a {type(loaded).__name__}")
    given = {name: _array(path, name, value) for name, value in loaded.items() if name != _TABLE}
    if given and not any(_official(name) != name for name in given):
        raise _other(path, f"has none of PaddleClas's names (but {', '.join(list(given)[:3])})")
    state: Arrays = {_official(name): value for name, value in _with_biases(given).items()}
    if "fc.weight" in state:
        state["fc.weight"] = state["fc.weight"].T
    return Foreign(state, "trimmed")


def _other(path: PathLike, what: str) -> PipelineError:
    return PipelineError(
        f"{path}: a pickle that {what}, expected PaddleClas's mapping from names to arrays; save PyTorch's weights "
        "alone: torch.save(model.state_dict(), ...)"
    )


def _with_biases(given: Arrays) -> Arrays:
    """With Paddle's numbered biases under the parameters' names, where there is one for each block."""
    numbered = sorted((name for name in given if _NUMBERED.fullmatch(name)), key=lambda name: int(name[7:-4]))
    blocks = sorted({(block[1], int(block[2])) for name in given if (block := _BLOCK.match(name))})
    if len(numbered) != len(blocks):
        return given
    names = {name: f"{stage}_bottleneck_{index}_splat_bias" for name, (stage, index) in zip(numbered, blocks)}
    return {names.get(name, name): value for name, value in given.items()}


def _official(name: str) -> str:
    """PaddleClas's name as the official one; any other as it is."""
    block = _BLOCK.match(name)
    if block is None:
        return _IN_NETWORK.get(name, name)
    rest = name[block.end() :]
    return f"{block[1]}.{block[2]}.{_IN_BLOCK.get(rest, rest)}"


def _array(path: PathLike, name: Any, value: Any) -> np.ndarray:
    """The array itself; Paddle 2.0 wrapped some as (name, array)."""
    if isinstance(value, tuple) and len(value) == 2:
        value = value[1]
    if not isinstance(name, str) or not isinstance(value, np.ndarray) or value.dtype not in FLOATS:
        raise _other(path, f"holds {name!r}, no array of floating-point numbers")
    return value


def _latin1(text: str, encoding: str) -> bytes:
    """How pickles of protocol 2 spell bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in encoding {encoding!r}")
    return text.encode("latin1")


# NumPy 1 and 2 keep this function in different modules; an empty array tells where.
_reconstruct: Any = np.empty(0).__reduce__()[0]
_KNOWN: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _latin1,
    ("builtins", "tuple"): tuple,
    ("__builtin__", "tuple"): tuple,
}


class _StrangerError(Exception):
    """A global that an array is not made of."""


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that knows the makers of NumPy arrays and refuses every other global."""

    def find_class(self, module: str, name: str) -> Any:
        """What the pickle may call; raises _StrangerError for anything else."""
        if (module, name) not in _KNOWN:
            raise _StrangerError(f"{module}.{name}")
        return _KNOWN[module, name]
