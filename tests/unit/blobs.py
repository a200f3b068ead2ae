"""BTF blobs written by hand, to be read by the tests."""

from __future__ import annotations

import struct

from netbpf.btf import types as t


class Blob:
    """Collects types and strings; ``bytes()`` gives the blob.

    :param order: ``<`` or ``>``, as struct has it.
    """

    def __init__(self, order: str = "<", strings: int = 0, types: int = 0) -> None:
        self.order = order
        self._first_string = strings
        self._types = bytearray()
        # A split blob's strings go on where its base's end, without an empty one of its own.
        self._strings = bytearray(b"" if strings else b"\0")
        self.count = types
        self.layout = b""

    def string(self, text: str) -> int:
        if not text:
            return 0
        at = len(self._strings) + self._first_string
        self._strings += text.encode() + b"\0"
        return at

    def add(
        self, kind: int, name: str = "", third: int = 0, *words: int, vlen: int = 0, flag: int = 0
    ) -> int:
        """One type out of raw words; its id."""
        info = kind << 24 | vlen | flag << 31
        words = (self.string(name), info, third, *(w & 0xFFFFFFFF for w in words))
        self._types += struct.pack(f"{self.order}{len(words)}I", *words)
        self.count += 1
        return self.count

    def int(self, name: str, size: int, encoding: int = 0) -> int:
        return self.add(t.KIND_INT, name, size, encoding << 24 | size * 8)

    def struct(self, name: str, size: int, *members: tuple[str, int, int], flag: int = 0) -> int:
        """Members are (name, type id, bit offset)."""
        words = [w for n, i, o in members for w in (self.string(n), i, o)]
        return self.add(t.KIND_STRUCT, name, size, *words, vlen=len(members), flag=flag)

    def __bytes__(self) -> bytes:
        types, strings = bytes(self._types), bytes(self._strings)
        parts = [0, len(types), len(types), len(strings)]
        length = 24
        if self.layout:
            parts += [len(types) + len(strings), len(self.layout)]
            length = 32
        head = struct.pack(f"{self.order}HBBI{len(parts)}I", 0xEB9F, 1, 0, length, *parts)
        return head + types + strings + self.layout
