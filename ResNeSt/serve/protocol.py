"""An inference request and its answer, as both forms of the Open Inference Protocol have them, and the REST form.

Sources: the Open Inference Protocol's REST API (KServe V2), Triton's extensions "binary tensor data" and
"classification".
"""

from __future__ import annotations

import base64
import binascii
import itertools
import math
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple, Union

import numpy as np

from ResNeSt.serve.errors import RequestError

ELEMENTS: dict[str, np.dtype[Any]] = {"FP32": np.dtype("<f4"), "UINT8": np.dtype("u1")}  # little-endian in binary data
BYTES = "BYTES"
VERSION = "1"  # of the one model that is served
DATATYPES = (*ELEMENTS, BYTES)

Data = Union[np.ndarray, Sequence[bytes]]


class Tensor(NamedTuple):
    """A named tensor: `data` is an array of `shape`, or, of datatype BYTES, its elements in row-major order."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Data


class Wanted(NamedTuple):
    """An output that is asked for: its values, or the `top` classes; `binary` is how REST is to send it."""

    name: str
    top: int | None = None
    binary: bool = False


class Request(NamedTuple):
    """What is asked; no `outputs` are all of them, `binary` as REST is to send them."""

    id: str
    input: Tensor
    outputs: Sequence[Wanted]
    binary: bool = False


def checked(name: Any, datatype: Any, shape: Any) -> tuple[str, str, tuple[int, ...]]:
    """The three as they are; raises RequestError for what no tensor can have."""
    if not isinstance(name, str):
        raise RequestError(f"an input's name is {_short(name)}, expected text")
    if datatype not in DATATYPES:
        raise RequestError(f"input {name!r:.99}: datatype {_short(datatype)}, expected one of {', '.join(DATATYPES)}")
    sides = shape if isinstance(shape, list) else [None]
    if not sides or not all(type(side) is int and 1 <= side < 2**31 for side in sides):
        raise RequestError(f"input {name!r:.99}: shape {_short(shape)}, expected whole numbers from 1, a side each")
    return name, datatype, tuple(sides)


def of_bytes(name: str, datatype: str, shape: tuple[int, ...], content: bytes | memoryview) -> Data:
    """Values of a tensor as little-endian bytes; raises RequestError unless they are as many as `shape` says."""
    count = math.prod(shape)
    if datatype == BYTES:
        return of_elements(name, shape, _elements(name, content))
    element = ELEMENTS[datatype]
    _check_count(name, shape, count * element.itemsize, len(content), "bytes")
    return np.frombuffer(content, element).reshape(shape)


def _elements(name: str, content: bytes | memoryview) -> list[bytes]:
    """Elements of BYTES: each behind its length as 4 little-endian bytes."""
    found, start = [], 0
    while start < len(content):
        stop = start + 4
        if stop <= len(content):
            (length,) = struct.unpack_from("<I", content, start)
            stop += length
        if stop > len(content):
            raise RequestError(
                f"input {name!r:.99}: its bytes end within an element, expected each behind its length (4 bytes, "
                "little-endian)"
            )
        found.append(bytes(content[start + 4 : stop]))
        start = stop
    return found


def of_values(name: str, datatype: str, shape: tuple[int, ...], values: Any) -> Data:
    """Values of a tensor as a (nested) list of JSON; raises RequestError where they are not as `shape` says.

    Elements of BYTES are base64.
    """
    if not isinstance(values, list):
        raise RequestError(f"input {name!r:.99}: data is {_short(values)}, expected a list")
    if datatype == BYTES:
        return of_elements(name, shape, [_unpacked(name, value) for value in _flat(values)])
    try:
        found = np.asarray(values)
    except (ValueError, OverflowError, RecursionError):
        found = np.array("ragged")
    if found.dtype.kind not in "iuf" or not _only_numbers(values):
        raise RequestError(f"input {name!r:.99}: data is ragged or holds other things than numbers")
    return of_array(name, datatype, shape, found)


def _only_numbers(values: list[Any]) -> bool:
    """Whether lists that are not ragged have no true and false among their numbers, which NumPy takes for 1 and 0."""
    while values and isinstance(values[0], list):
        values = list(itertools.chain.from_iterable(values))
    return bool not in set(map(type, values))


def of_elements(name: str, shape: tuple[int, ...], elements: Sequence[bytes]) -> Sequence[bytes]:
    """`elements`, of BYTES; raises RequestError unless they are as many as `shape` says."""
    _check_count(name, shape, math.prod(shape), len(elements), "elements")
    return elements


def of_array(name: str, datatype: str, shape: tuple[int, ...], found: np.ndarray) -> np.ndarray:
    """Numbers, flat or of `shape`, as a tensor; raises RequestError where they are others than the datatype has."""
    if found.ndim == 1:
        _check_count(name, shape, math.prod(shape), len(found), "values")
    elif found.shape != shape:
        raise RequestError(f"input {name!r:.99}: data is of shape {list(found.shape)}, its shape says {list(shape)}")
    element = ELEMENTS[datatype]
    if element.kind == "u" and not ((found >= 0) & (found <= 255) & (found == np.floor(found))).all():
        raise RequestError(f"input {name!r:.99}: data holds other values than whole numbers from 0 to 255")
    with np.errstate(over="ignore"):  # infinity is refused with the others that are not finite
        return found.astype(element).reshape(shape)


def _flat(values: Any) -> list[Any]:
    if not isinstance(values, list):
        return [values]
    return [one for value in values for one in (value if isinstance(value, list) else [value])]


def _unpacked(name: str, value: Any) -> bytes:
    try:
        return base64.b64decode(value, validate=True) if isinstance(value, str) else _not_base64()
    except (ValueError, binascii.Error):
        raise RequestError(
            f"input {name!r:.99}: an element of BYTES is {_short(value)}, expected base64; or send it as binary data"
        ) from None


def _not_base64() -> bytes:
    raise ValueError


def _check_count(name: str, shape: Sequence[int], expected: int, found: int, what: str) -> None:
    if expected != found:
        raise RequestError(f"input {name!r:.99}: shape {list(shape)} takes {expected:,} {what}, found {found:,}")


def request_of(head: Any, tail: memoryview) -> Request:
    """The request in `head`, parsed JSON, with its binary data in `tail`; raises RequestError."""
    if not isinstance(head, dict):
        raise RequestError("the body is no JSON object")
    asked = "" if head.get("id") is None else head["id"]
    if not isinstance(asked, str):
        raise RequestError(f"id is {_short(asked)}, expected text")
    inputs = _objects(head, "inputs")
    if len(inputs) != 1:
        raise RequestError(f"{len(inputs)} inputs, expected one")
    binary = _parameter(head, "binary_data_output", bool, False)
    return Request(
        asked,
        _input(inputs[0], tail),
        [_wanted(output, binary) for output in _objects(head, "outputs")],
        binary,
    )


def _objects(head: dict[str, Any], key: str) -> list[dict[str, Any]]:
    found = [] if head.get(key) is None else head[key]
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise RequestError(f"{key} is {_short(found)}, expected a list of objects")
    return found


def _parameter(holder: dict[str, Any], key: str, kind: type, default: Any) -> Any:
    parameters = {} if holder.get("parameters") is None else holder["parameters"]
    if not isinstance(parameters, dict):
        raise RequestError(f"parameters is {_short(parameters)}, expected an object")
    if any(name.startswith("shared_memory") for name in parameters):
        raise RequestError("shared memory is not offered here; send the data")
    found = parameters.get(key, default)
    if found is not default and type(found) is not kind:
        raise RequestError(f"parameter {key} is {_short(found)}, expected {kind.__name__}")
    return found


def _input(given: dict[str, Any], tail: memoryview) -> Tensor:
    name, datatype, shape = checked(given.get("name"), given.get("datatype"), given.get("shape"))
    size = _parameter(given, "binary_data_size", int, None)
    if (size is None) == ("data" not in given):
        raise RequestError(f"input {name!r:.99}: expected either data or the parameter binary_data_size")
    if (size or 0) != len(tail):
        raise RequestError(f"input {name!r:.99}: binary_data_size is {size or 0}, the body has {len(tail)} bytes of it")
    data = of_values(name, datatype, shape, given["data"]) if size is None else of_bytes(name, datatype, shape, tail)
    return Tensor(name, datatype, shape, data)


def _wanted(given: dict[str, Any], binary: bool) -> Wanted:
    name = given.get("name")
    if not isinstance(name, str):
        raise RequestError(f"an output's name is {_short(name)}, expected text")
    top = _parameter(given, "classification", int, None)
    return Wanted(name, checked_top(top), _parameter(given, "binary_data", bool, binary))


def checked_top(top: int | None) -> int | None:
    """The parameter `classification`, where it is given; raises RequestError for a number below 1."""
    if top is not None and top < 1:
        raise RequestError(f"parameter classification is {top}, expected how many classes, 1 or more")
    return top


def packed(tensor: Tensor) -> bytes:
    """Its data as binary data."""
    if isinstance(tensor.data, np.ndarray):
        return bytes(tensor.data.astype(ELEMENTS[tensor.datatype], copy=False).tobytes())
    return b"".join(struct.pack("<I", len(element)) + element for element in tensor.data)


def answer_of(
    model: str, asked: str, outputs: Sequence[Tensor], binary: Sequence[bool]
) -> tuple[dict[str, Any], bytes]:
    """The answer as JSON, its arrays flat, and the binary data that goes behind it."""
    head: dict[str, Any] = {"model_name": model, "model_version": VERSION, "outputs": []}
    if asked:
        head["id"] = asked
    tail = []
    for output, as_bytes in zip(outputs, binary):
        told: dict[str, Any] = {"name": output.name, "datatype": output.datatype, "shape": list(output.shape)}
        if as_bytes:
            tail.append(packed(output))
            told["parameters"] = {"binary_data_size": len(tail[-1])}
        elif isinstance(output.data, np.ndarray):
            told["data"] = output.data.reshape(-1)
        else:
            told["data"] = [element.decode("utf-8") for element in output.data]
        head["outputs"].append(told)
    return head, b"".join(tail)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
