"""The protobuf wire format, read and written without the protobuf package; who calls knows the schema's numbers.

All of these raise ValueError where a message is damaged. Views are into the data that was given, not copies.
"""

from __future__ import annotations

from collections.abc import Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_SIZES = {_FIXED64: 8, _FIXED32: 4}


def messages(data: memoryview, wanted: int) -> list[memoryview]:
    """Every occurrence of the field `wanted` that holds bytes: messages, strings, packed numbers."""
    return [value for number, value in fields(data) if number == wanted and isinstance(value, memoryview)]


def message(data: memoryview, wanted: int) -> memoryview:
    """The last one, which counts where a field is not repeated; empty where there is none."""
    return (messages(data, wanted) or [memoryview(b"")])[-1]


def string(data: memoryview, wanted: int) -> str:
    """A UTF-8 text field, empty where there is none."""
    return bytes(message(data, wanted)).decode("utf-8")


def integer(data: memoryview, wanted: int) -> int:
    """A number field, 0 where there is none."""
    return next((value for number, value in fields(data) if number == wanted and isinstance(value, int)), 0)


def integers(data: memoryview, wanted: int) -> list[int]:
    """Every value of a repeated number field, packed or one by one."""
    values: list[int] = []
    for number, value in fields(data):
        if number == wanted and isinstance(value, int):
            values.append(value)
        elif number == wanted and isinstance(value, memoryview):
            at = 0
            while at < len(value):
                each, at = _varint(value, at)
                values.append(each)
    return values


def fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, value) of every field; raises ValueError where a field does not fit into the message."""
    for number, value, _ in encoded_fields(data):
        yield number, value


def encoded_fields(data: memoryview) -> Iterator[tuple[int, int | memoryview, memoryview]]:
    """The same, and the field as it stands in the message, with its key and its length."""
    at = 0
    while at < len(data):
        start = at
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield number, value, data[start:at]
            continue
        if wire == _BYTES:
            size, at = _varint(data, at)
        elif wire in _FIXED_SIZES:
            size = _FIXED_SIZES[wire]
        else:
            raise ValueError(f"unknown wire type {wire}")
        if not 0 <= size <= len(data) - at:
            raise ValueError(f"field {number} of {size} bytes, {len(data) - at} are left")
        yield number, data[at : at + size], data[start : at + size]
        at += size


def head(number: int, size: int) -> bytes:
    """What stands before the `size` bytes of a field of bytes: its key and its length."""
    return _encoded((number << 3) | _BYTES) + _encoded(size)


def _encoded(value: int) -> bytes:
    """A number above or equal to 0 as a varint."""
    groups = [value & 0x7F]
    while value := value >> 7:
        groups[-1] |= 0x80
        groups.append(value & 0x7F)
    return bytes(groups)


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """The signed 64-bit number at `at`, seven bits a byte, and the place behind it."""
    value = 0
    for index, byte in enumerate(data[at : at + 10]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            value &= (1 << 64) - 1
            return value - (1 << 64 if value >> 63 else 0), at + index + 1
    raise ValueError("a number does not end")
