"""The header of a BTF blob: where its types and strings lie."""

from __future__ import annotations

import struct

from netbpf.btf.errors import BtfFormatError
from netbpf.records import record

MAGIC = 0xEB9F
_HEADER = 24


@record(slots=True, frozen=True)
class Header:
    """The header of a BTF blob; ``types`` and ``strings`` are (start, length) in the blob."""

    byteorder: str
    length: int
    types: tuple[int, int]
    strings: tuple[int, int]
    layout: tuple[int, int]


def read_header(data: bytes | memoryview) -> Header:
    """Read and check the header of a blob.

    :raises BtfFormatError: it is no BTF, or its parts lie outside of it.
    """
    if len(data) < _HEADER:
        raise BtfFormatError(f"{len(data)} bytes are too few for a BTF header")
    for prefix in "<>":
        magic, version, _flags, length = struct.unpack_from(prefix + "HBBI", data)
        if magic == MAGIC:
            break
    else:
        raise BtfFormatError("no BTF magic number at the start")
    if version != 1:
        raise BtfFormatError(f"BTF version {version} is not known")
    if not _HEADER <= length <= len(data):
        raise BtfFormatError(f"header length {length} is impossible")
    type_off, type_len, str_off, str_len = struct.unpack_from(prefix + "4I", data, 8)
    # Linux 7.1 and later: a layout section that tells the sizes of every kind.
    layout_off, layout_len = struct.unpack_from(prefix + "2I", data, 24) if length >= 32 else (0, 0)
    parts = []
    for what, offset, size in (
        ("type", type_off, type_len),
        ("string", str_off, str_len),
        ("layout", layout_off, layout_len),
    ):
        if length + offset + size > len(data):
            raise BtfFormatError(f"the {what} section ends outside of the blob")
        parts.append((length + offset, size))
    if type_off % 4 or type_len % 4:
        raise BtfFormatError("the type section is not aligned to four bytes")
    return Header("little" if prefix == "<" else "big", length, parts[0], parts[1], parts[2])
