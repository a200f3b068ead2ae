"""Attributes of netlink messages, packed and taken apart by hand.

A list of 2000 devices takes pyroute2's decoder most of a second; its import costs 120 ms of CPU.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Attributes = Iterable[tuple[str, Any]]
"""Attributes by their UAPI names, as a message wants them: in this order."""

Packer = Callable[[Any], bytes]
Table = Mapping[str, tuple[int, Packer]]
"""What a message can hold: the number of an attribute, and how its value is packed."""

_HEADER = struct.Struct("=HH")
_TYPE_MASK = 0x3FFF
"""Without NLA_F_NESTED and NLA_F_NET_BYTEORDER."""
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")

u8: Packer = struct.Struct("=B").pack
u16: Packer = struct.Struct("=H").pack
u32: Packer = struct.Struct("=I").pack
s32: Packer = struct.Struct("=i").pack


def text(value: str) -> bytes:
    """A string with its NUL, as names are sent; any bytes come back as they were."""
    return value.encode(errors="surrogateescape") + b"\0"


def mac(value: str) -> bytes:
    """``02:00:00:00:00:01`` as bytes."""
    return bytes.fromhex(value.replace(":", ""))


def attribute(number: int, payload: bytes) -> bytes:
    """One attribute: its header, its payload, and the padding to a multiple of four."""
    return _HEADER.pack(4 + len(payload), number) + payload + _PADDING[len(payload) & 3]


def pack(table: Table, attributes: Attributes) -> bytes:
    """Attributes as bytes.

    :raises KeyError: ``table`` knows none of this name.
    """
    packed = []
    for name, value in attributes:
        number, packer = table[name]
        packed.append(attribute(number, packer(value)))
    return b"".join(packed)


def unpack(data: bytes, at: int = 0) -> dict[int, bytes]:
    """The payloads of the attributes of one level by number, from ``at`` to the end of ``data``."""
    found = {}
    end = len(data)
    unpack_from = _HEADER.unpack_from
    while at + 4 <= end:
        length, number = unpack_from(data, at)
        if length < 4:
            break
        found[number & _TYPE_MASK] = data[at + 4 : at + length]
        at += (length + 3) & ~3
    return found


def find(data: bytes, at: int, *numbers: int) -> dict[int, bytes]:
    """As `unpack`, but only some attributes, and no further than to the last of them."""
    found: dict[int, bytes] = {}
    end = len(data)
    unpack_from = _HEADER.unpack_from
    while at + 4 <= end and len(found) < len(numbers):
        length, number = unpack_from(data, at)
        if length < 4:
            break
        if number in numbers:
            found[number] = data[at + 4 : at + length]
        at += (length + 3) & ~3
    return found


def number_in(payload: bytes | None, default: int = 0) -> int:
    """The unsigned number that a payload of one, two or four bytes holds."""
    return default if payload is None else int.from_bytes(payload, _BYTE_ORDER)


def text_in(payload: bytes) -> str:
    """The string that a payload holds, up to its NUL."""
    return payload.split(b"\0", 1)[0].decode(errors="surrogateescape")


_BYTE_ORDER: Any = "little" if struct.pack("=H", 1) == b"\1\0" else "big"
