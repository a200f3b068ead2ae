"""From a value's bytes to Python, by its BTF type, in this machine's byte order."""

from __future__ import annotations

import struct
import sys
from typing import Any

from netbpf.btf import types as t
from netbpf.btf.blob import Btf

_FLOATS = {4: "f", 8: "d"}


def decode(btf: Btf, type_id: int, data: bytes) -> Any:
    """The value that ``data`` is, as Python has it.

    Integers, enums and pointers are int, ``_Bool`` is bool, a char array is str up to its first NUL
    (bytes in hex where it is no text), structs and unions are dicts by member name, arrays are
    lists. What has no Python shape is hex.

    :raises BtfFormatError: the type has no size, or refers to itself.
    """
    type_id, found = btf.resolve(type_id)
    match found:
        case t.Int():
            number = int.from_bytes(data[: found.size], sys.byteorder, signed=found.signed)
            return bool(number) if found.bool_ else number
        case t.Enum():
            return int.from_bytes(data[: found.size], sys.byteorder, signed=found.signed)
        case t.Ptr():
            return int.from_bytes(data[:8], sys.byteorder)
        case t.Float() if found.size in _FLOATS:
            return struct.unpack(_FLOATS[found.size], data[: found.size])[0]
        case t.Array():
            return _array(btf, found, data)
        case t.Struct() | t.Union():
            return _members(btf, found, data)
    return data.hex()


def _array(btf: Btf, array: t.Array, data: bytes) -> Any:
    element_id, element = btf.resolve(array.type_id)
    if isinstance(element, t.Int) and element.size == 1 and element.name in ("char", "signed char"):
        text = data[: array.length].split(b"\0")[0]
        return text.decode() if text.isascii() else data[: array.length].hex()
    size = btf.size(element_id)
    return [decode(btf, element_id, data[i * size : (i + 1) * size]) for i in range(array.length)]


def _members(btf: Btf, found: t.Struct | t.Union, data: bytes) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for member in found.members:
        if member.bit_size:
            values[member.name] = _bit_field(btf, member, data)
            continue
        size = btf.size(member.type_id)
        value = decode(btf, member.type_id, data[member.offset : member.offset + size])
        if not member.name and isinstance(value, dict):
            # The members of an anonymous struct or union belong to the one around it.
            values.update(value)
        else:
            values[member.name] = value
    return values


def _bit_field(btf: Btf, member: t.Member, data: bytes) -> int:
    whole = int.from_bytes(data, sys.byteorder)
    if sys.byteorder == "little":
        shift = member.bit_offset
    else:
        shift = 8 * len(data) - member.bit_offset - member.bit_size
    number = whole >> shift & (1 << member.bit_size) - 1
    _, kind = btf.resolve(member.type_id)
    if isinstance(kind, t.Int) and kind.signed and number >> member.bit_size - 1:
        number -= 1 << member.bit_size
    return number
