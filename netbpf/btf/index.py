"""Names to type ids of a large BTF: made in one pass, kept as bytes, asked without one object."""

from __future__ import annotations

import struct
import zlib
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from netbpf.btf import types as t
from netbpf.btf.blob import Btf
from netbpf.btf.core_spec import essential

# What a packed index starts with: a word of this format (its second half is the version), the
# checksum of all that follows it, the counts of types, names and flavours, and the length of the
# identity, which comes next. The numbers are in this machine's byte order: another's do not fit.
_MAGIC = 0x6E620001
_HEAD = struct.Struct("=6I")


@dataclass(slots=True, frozen=True)
class Index:
    """``offsets``: where each type starts (``Btf.offsets``). ``names``: the string offsets of all
    named types, rising; ``ids``: their types in that order. ``flavours``: ids of the types whose
    essential name is not their name.
    """

    offsets: Sequence[int]
    names: Sequence[int]
    ids: Sequence[int]
    flavours: Sequence[int]


def build(btf: Btf) -> Index:
    """Index the types of ``btf``, those of its base not."""
    by_id = btf.name_offsets
    order = sorted(range(len(by_id)), key=by_id.__getitem__)
    names = array("I", map(by_id.__getitem__, order))
    unnamed = bisect_right(names, 0)
    names = names[unnamed:]
    ids = array("I", map(btf.first_id.__add__, order[unnamed:]))
    return Index(btf.offsets, names, ids, _flavours(btf, names, ids))


def _flavours(btf: Btf, names: array[int], ids: array[int]) -> array[int]:
    # Few names have a "___" at all: they are looked for in the strings, not type by type. A name
    # may start anywhere in a string, and a split blob's may be a string of its base.
    found = set()
    part: Btf | None = btf
    while part is not None:
        first, strings = part.strings
        at = strings.find(b"___")
        while at >= 0:
            end = strings.find(b"\0", at)
            start = strings.rfind(b"\0", 0, at) + 1
            low = bisect_left(names, first + start)
            for place in range(low, bisect_left(names, first + end)):
                name = btf.string(names[place])
                if essential(name) != name:
                    found.add(ids[place])
            at = strings.find(b"___", end)
        part = part.base
    return array("I", sorted(found))


def pack(index: Index, identity: bytes) -> bytes:
    """The index as bytes; ``identity`` says what it is of."""
    parts = [index.offsets, index.names, index.ids, index.flavours]
    body = _padded(identity) + b"".join(array("I", part).tobytes() for part in parts)
    counts = struct.pack(
        "=4I", len(index.offsets), len(index.names), len(index.flavours), len(identity)
    )
    return struct.pack("=2I", _MAGIC, zlib.crc32(counts + body)) + counts + body


def unpack(data: bytes, identity: bytes) -> Index:
    """The index that ``pack`` made.

    :raises ValueError: it is of something else, of another version or machine, cut off or damaged.
    """
    if len(data) < _HEAD.size:
        raise ValueError("too short for an index")
    magic, checksum, types, names, flavours, length = _HEAD.unpack_from(data)
    if magic != _MAGIC:
        raise ValueError("no index of this version")
    start = _HEAD.size + len(_padded(bytes(length) if length <= 1024 else b""))
    if len(data) != start + 4 * (types + 2 * names + flavours):
        raise ValueError("an index of another length than it says")
    if data[_HEAD.size : _HEAD.size + length] != identity:
        raise ValueError("an index of something else")
    view = memoryview(data)
    if zlib.crc32(view[8:]) != checksum:
        raise ValueError("a damaged index")
    words = view[start:].cast("I")
    ends = [types, types + names, types + 2 * names]
    return Index(
        words[: ends[0]], words[ends[0] : ends[1]], words[ends[1] : ends[2]], words[ends[2] :]
    )


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


class IndexedBtf:
    """A BTF with its index: types by name in microseconds."""

    def __init__(self, btf: Btf, index: Index | None = None) -> None:
        self.btf = btf
        self.index = build(btf) if index is None else index
        self._flavours: dict[str, list[int]] | None = None
        self._found: dict[str, list[int]] = {}

    def ids(self, name: str) -> list[int]:
        """The ids of all types called ``name``, the base's not among them.

        Of a ``struct x`` the name is ``x``.
        """
        found = self._found.get(name)
        if found is None:
            found = self._found[name] = self._search(name) if name else []
        return list(found)

    def _search(self, name: str) -> list[int]:
        # Strings may be there more than once, and one may be the tail of another.
        needle = name.encode("utf-8", "surrogateescape") + b"\0"
        names, ids = self.index.names, self.index.ids
        found = []
        part: Btf | None = self.btf
        while part is not None:
            first, strings = part.strings
            at = strings.find(needle)
            while at >= 0:
                place = bisect_left(names, first + at)
                while place < len(names) and names[place] == first + at:
                    found.append(ids[place])
                    place += 1
                at = strings.find(needle, at + 1)
            part = part.base
        return sorted(found)

    def find(self, name: str, *kinds: int) -> int | None:
        """The first id of a type called ``name`` of one of ``kinds``, of any when none is given."""
        for type_id in self.ids(name):
            if not kinds or self.btf.kind(type_id) in kinds:
                return type_id
        return None

    def candidates(self, name: str, kind: int) -> list[int]:
        """The ids of all types of ``kind`` whose essential name is ``name``, by id.

        Enums of 32 and 64 bits are of one kind.
        """
        if self._flavours is None:
            self._flavours = {}
            for type_id in self.index.flavours:
                full = self.btf.type(type_id).name
                self._flavours.setdefault(essential(full), []).append(type_id)
        # A name that itself ends in a flavour stands for nothing here.
        found = self.ids(name) if essential(name) == name else []
        enums = (t.KIND_ENUM, t.KIND_ENUM64)
        kinds = enums if kind in enums else (kind,)
        found += self._flavours.get(name, [])
        return [type_id for type_id in sorted(found) if self.btf.kind(type_id) in kinds]
