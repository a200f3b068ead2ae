"""Ways to break an object file where it hurts: headers, tables, types, records."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

_EDGES = (0, 1, 2, 3, 4, 7, 8, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)
_WIDE = (0, 1, 8, 1 << 31, 1 << 32, (1 << 63) - 1, (1 << 64) - 1)
# The fields of a section header: offset, size in bytes.
_FIELDS = ((0, 4), (4, 4), (8, 8), (24, 8), (32, 8), (40, 4), (44, 4), (56, 8))
_SYMBOL = 24
_REL = 16


@dataclass(frozen=True)
class Place:
    """A section of the good file."""

    header: int
    name: str
    type: int
    offset: int
    size: int


class Broken:
    """A good object file, and copies of it that are not.

    It takes the file apart itself, and believes it: that of the reader is under test.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._order = "<" if data[5] == 1 else ">"
        (start,) = struct.unpack_from(self._order + "Q", data, 40)
        count, names_at = struct.unpack_from(self._order + "HH", data, 60)
        headers = [
            struct.unpack_from(self._order + "IIQQQQIIQQ", data, start + 64 * i)
            for i in range(count)
        ]
        names = data[headers[names_at][4] :][: headers[names_at][5]]
        self.sections = [
            Place(start + 64 * i, _text(names, h[0]), h[1], h[4], h[5] if h[1] != 8 else 0)
            for i, h in enumerate(headers)
        ]
        self._ways: tuple[Callable[[Random, bytearray], None], ...] = (
            self._file_header,
            self._section_header,
            self._symbol,
            self._relocation,
            self._btf,
            self._btf,
            self._btf_ext,
            self._content,
            self._swap,
            self._copy,
        )

    def mutant(self, random: Random) -> bytes:
        """One broken copy."""
        changed = bytearray(self.data)
        for _ in range(random.choice((1, 1, 1, 2, 3, 6))):
            random.choice(self._ways)(random, changed)
        if random.random() < 0.03:
            del changed[random.randrange(len(changed)) :]
        return bytes(changed)

    def _put(self, random: Random, data: bytearray, at: int, size: int) -> None:
        if at + size > len(data):
            return
        old = int.from_bytes(data[at : at + size], "little" if self._order == "<" else "big")
        way = random.randrange(4)
        if way == 0:
            value = random.choice(_WIDE if size == 8 else _EDGES)
        elif way == 1:
            value = old + random.choice((-8, -1, 1, 8, 0x100))
        elif way == 2:
            value = old ^ 1 << random.randrange(8 * size)
        else:
            value = random.randrange(1 << min(8 * size, random.choice((8, 12, 16, 32, 64))))
        value &= (1 << 8 * size) - 1
        data[at : at + size] = value.to_bytes(size, "little" if self._order == "<" else "big")

    def _pick(self, random: Random, *names: str, kind: int = -1) -> Place | None:
        fitting = [s for s in self.sections if s.size and (s.name in names or s.type == kind)]
        return random.choice(fitting) if fitting else None

    def _file_header(self, random: Random, data: bytearray) -> None:
        at, size = random.choice(((4, 1), (5, 1), (16, 2), (18, 2), (40, 8), (58, 2), (60, 2)))
        self._put(random, data, at, size)

    def _section_header(self, random: Random, data: bytearray) -> None:
        at, size = random.choice(_FIELDS)
        self._put(random, data, random.choice(self.sections).header + at, size)

    def _symbol(self, random: Random, data: bytearray) -> None:
        table = self._pick(random, kind=2)
        if table is not None:
            at = table.offset + random.randrange(table.size // _SYMBOL) * _SYMBOL
            field, size = random.choice(((0, 4), (4, 1), (5, 1), (6, 2), (8, 8), (16, 8)))
            self._put(random, data, at + field, size)

    def _relocation(self, random: Random, data: bytearray) -> None:
        table = self._pick(random, kind=9)
        if table is not None:
            at = table.offset + random.randrange(table.size // _REL) * _REL
            field, size = random.choice(((0, 8), (8, 4), (12, 4)))
            self._put(random, data, at + field, size)

    def _btf(self, random: Random, data: bytearray) -> None:
        self._words(random, data, ".BTF")

    def _btf_ext(self, random: Random, data: bytearray) -> None:
        self._words(random, data, ".BTF.ext")

    def _words(self, random: Random, data: bytearray, name: str) -> None:
        section = self._pick(random, name)
        if section is None:
            return
        end = section.size
        if random.random() < 0.15:
            end = min(end, 40)  # the header
        elif name == ".BTF":
            end = min(end, max(40, end * 2 // 3))  # rather types than strings
        at = section.offset + random.randrange(0, max(end - 3, 1), 4)
        if random.random() < 0.4:
            self._put(random, data, at, 4)
        else:
            self._put(random, data, at + random.randrange(4), 1)

    def _content(self, random: Random, data: bytearray) -> None:
        section = random.choice(self.sections)
        if section.size:
            self._put(random, data, section.offset + random.randrange(section.size), 1)

    def _swap(self, random: Random, data: bytearray) -> None:
        one, other = random.choice(self.sections), random.choice(self.sections)
        size = 64
        first = bytes(data[one.header : one.header + size])
        data[one.header : one.header + size] = data[other.header : other.header + size]
        data[other.header : other.header + size] = first

    def _copy(self, random: Random, data: bytearray) -> None:
        # Bytes of one place in another one: types that refer to themselves, strings as tables.
        section = random.choice(self.sections)
        if section.size > 8:
            size = random.choice((4, 8, 12, 16, 24))
            source = section.offset + random.randrange(section.size) // 4 * 4
            target = section.offset + random.randrange(section.size) // 4 * 4
            piece = bytes(data[source : source + size])
            data[target : target + len(piece)] = piece


def _text(names: bytes, at: int) -> str:
    return names[at : names.index(b"\0", at)].decode()
