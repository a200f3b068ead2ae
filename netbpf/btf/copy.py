"""A copy of a BTF that types can be changed in and added to."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from netbpf.btf.blob import Btf
from netbpf.btf.header import MAGIC

_HEADER = struct.Struct("=HBBIIIII")


class Copy:
    """The types of ``btf`` as words of four bytes; those of this machine's byte order alone.

    Ids and string offsets stay as they are, what is added comes behind them.
    """

    def __init__(self, btf: Btf) -> None:
        start, length = btf.header.types
        self._types = bytearray(btf.data[start : start + length])
        self._start = start
        self._strings = bytearray(btf.strings[1])
        self._btf = btf
        self._next = len(btf)

    def word(self, type_id: int, index: int) -> int:
        """A word of a type: 0 its name, 1 kind and count, 2 its size or type, then the rest."""
        found: int = struct.unpack_from("=I", self._types, self._at(type_id, index))[0]
        return found

    def set(self, type_id: int, index: int, value: int) -> None:
        """Change a word of a type."""
        struct.pack_into("=I", self._types, self._at(type_id, index), value)

    def set_head(self, type_id: int, kind: int, count: int = 0) -> None:
        """Make a type one of another kind; the words behind the third stay what they are."""
        self.set(type_id, 1, kind << 24 | count)

    def add(self, words: Sequence[int]) -> int:
        """Add a type: its id."""
        self._types += struct.pack(f"={len(words)}I", *words)
        self._next += 1
        return self._next - 1

    def string(self, text: str) -> int:
        """Add a string: its offset."""
        at = len(self._strings)
        self._strings += text.encode() + b"\0"
        return at

    def __bytes__(self) -> bytes:
        types, strings = len(self._types), len(self._strings)
        head = _HEADER.pack(MAGIC, 1, 0, _HEADER.size, 0, types, types, strings)
        return head + self._types + self._strings

    def _at(self, type_id: int, index: int) -> int:
        return self._btf.position(type_id) - self._start + 4 * index
