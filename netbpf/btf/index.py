"""Names to type ids of a large BTF: made in one pass, kept as bytes, asked without one object."""

from __future__ import annotations

import struct
import sys
import zlib
from bisect import bisect_left

from netbpf.btf import types as t
from netbpf.btf.blob import Btf, Steps
from netbpf.btf.core_spec import essential
from netbpf.btf.errors import BtfFormatError
from netbpf.records import record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from array import array
    from collections.abc import Callable, Sequence

# What a packed index starts with: a word of this format (its second half is the version), the
# checksum of all that follows it, the counts of types, of those in order and of names, and the
# length of the identity, which comes next. The numbers are in this machine's byte order: another's
# do not fit.
_MAGIC = 0x6E620003
_HEAD = struct.Struct("=6I")

# Kinds that relocations look for by name. The rest of the names are those of functions, nearly all.
_ORDERED = frozenset(
    {
        t.KIND_INT,
        t.KIND_STRUCT,
        t.KIND_UNION,
        t.KIND_ENUM,
        t.KIND_FWD,
        t.KIND_TYPEDEF,
        t.KIND_FLOAT,
        t.KIND_ENUM64,
    }
)
_ENUMS = (t.KIND_ENUM, t.KIND_ENUM64)


@record(slots=True, frozen=True)
class Index:
    """What saves the pass over all types.

    ``offsets``: where each type starts (``Btf.offsets``). ``ordered``: the ids of all types with a
    name that are no functions or variables, by name. ``names``: the string offset of each type's
    name, or nothing: only who looks for functions needs them.
    """

    offsets: Sequence[int]
    ordered: Sequence[int]
    names: Sequence[int] = ()


class _Walked(Btf):
    # Notes on its way over the types which of them are to be ordered.

    ordered: list[int]

    def _read_words(self, start: int, length: int) -> Sequence[int]:
        from array import array

        words = array("I")
        words.frombytes(self.data[start : start + length])
        if self.byteorder != sys.byteorder:
            words.byteswap()
        return words

    def _walk(self) -> array[int]:
        from array import array

        words = self._words
        offsets = array("I")
        add = offsets.append
        self.ordered = []
        note = self.ordered.append
        known = Steps(self.data, self.header, self._prefix)
        # As those, but negative where the type is to be ordered.
        steps: dict[int, int] = {}
        position = 0
        end = len(words)
        first = self.first_id - 1
        try:
            while position < end:
                add(position)
                info = words[position + 1]
                try:
                    step = steps[info]
                except KeyError:
                    step = known[info] * (-1 if info >> 24 & 0x7F in _ORDERED else 1)
                    steps[info] = step
                if step < 0:
                    if words[position]:
                        note(first + len(offsets))
                    step = -step
                position += step
        except IndexError:
            position = end + 1
        if position != end:
            raise BtfFormatError("the last type is cut off")
        return offsets


def parse(data: bytes | memoryview, base: Btf | None = None) -> IndexedBtf:
    """Read a BTF with all its names; ``base`` is what a split one goes on from.

    :raises BtfFormatError: it is none, or malformed.
    """
    btf = _Walked(data, base)
    found = IndexedBtf(btf, Index(btf.offsets, btf.ordered))
    btf.ordered.sort(key=found.name if base is not None else _namer(btf))
    return found


def _namer(btf: Btf) -> Callable[[int], bytes]:
    # As IndexedBtf.name, in half the time: 14,000 names are asked for.
    words, offsets, (_, strings) = btf.words, btf.offsets, btf.strings

    def name(type_id: int) -> bytes:
        at = words[offsets[type_id - 1]]
        return strings[at : strings.find(b"\0", at)]

    return name


def pack(index: Index, identity: bytes) -> bytes:
    """The index as bytes; ``identity`` says what it is of."""
    from array import array

    lists = index.offsets, index.ordered, index.names
    counts = struct.pack("=4I", *map(len, lists), len(identity))
    parts: list[bytes | array[int]] = [counts, identity + bytes(-len(identity) % 4)]
    parts += (array("I", each) for each in lists)
    checksum = 0
    for part in parts:
        checksum = zlib.crc32(part, checksum)
    return b"".join((struct.pack("=2I", _MAGIC, checksum), *parts))


def unpack(data: bytes, identity: bytes) -> Index:
    """The index that ``pack`` made.

    :raises ValueError: it is of something else, of another version or machine, cut off or damaged.
    """
    if len(data) < _HEAD.size:
        raise ValueError("too short for an index")
    magic, checksum, types, ordered, names, length = _HEAD.unpack_from(data)
    if magic != _MAGIC:
        raise ValueError("no index of this version")
    start = _HEAD.size + length + -length % 4
    if len(data) != start + 4 * (types + ordered + names):
        raise ValueError("an index of another length than it says")
    if data[_HEAD.size : _HEAD.size + length] != identity:
        raise ValueError("an index of something else")
    view = memoryview(data)
    if zlib.crc32(view[8:]) != checksum:
        raise ValueError("a damaged index")
    words = view[start:].cast("I")
    return Index(words[:types], words[types : types + ordered], words[types + ordered :])


class IndexedBtf:
    """A BTF with its index: types by name in microseconds, functions in less than a millisecond.

    :param keep: is given the index when the first function that is looked for has added to it.
    """

    def __init__(self, btf: Btf, index: Index, keep: Callable[[Index], None] | None = None) -> None:
        self.btf = btf
        self.index = index
        self._keep = keep
        self._packed = b""

    def name(self, type_id: int) -> bytes:
        """The name of a type, as the bytes that stand in the BTF."""
        return self.btf.text(self.btf.words[self.index.offsets[type_id - self.btf.first_id]])

    def candidates(self, name: str, kind: int) -> list[int]:
        """The ids of all types of ``kind`` whose essential name is ``name``, by id.

        Enums of 32 and 64 bits are of one kind. The base's types are not among them.
        """
        if not name or essential(name) != name:
            # A name with a flavour is nobody's essential name.
            return []
        wanted = name.encode("utf-8", "surrogateescape")
        found = self._ordered(wanted)
        found += [
            type_id
            for type_id in self._ordered(wanted + b"___", start=True)
            if essential(self.btf.type(type_id).name) == name
        ]
        kinds = _ENUMS if kind in _ENUMS else (kind,)
        return sorted(type_id for type_id in found if self.btf.kind(type_id) in kinds)

    def _ordered(self, wanted: bytes, start: bool = False) -> list[int]:
        # The types whose name is ``wanted``, or with ``start`` begins with it.
        found = []
        ordered = self.index.ordered
        for place in range(bisect_left(ordered, wanted, key=self.name), len(ordered)):
            name = self.name(ordered[place])
            if name != wanted and not (start and name.startswith(wanted)):
                break
            found.append(ordered[place])
        return found

    def find(self, name: str, *kinds: int) -> int | None:
        """The first id of a type called ``name`` of one of ``kinds``, of any when none is given."""
        for type_id in self.ids(name, *kinds):
            return type_id
        return None

    def ids(self, name: str, *kinds: int) -> list[int]:
        """The ids of all types called ``name`` of one of ``kinds``, of any when none is given.

        Of a ``struct x`` the name is ``x``. The base's types are not among them.
        """
        if not name:
            return []
        wanted = name.encode("utf-8", "surrogateescape")
        if kinds and _ORDERED.issuperset(kinds):
            found = self._ordered(wanted)
        else:
            found = self._search(wanted + b"\0")
        return sorted(i for i in found if not kinds or self.btf.kind(i) in kinds)

    def _search(self, needle: bytes) -> list[int]:
        # Functions are not in order: their names are looked for where they stand. A string may be
        # there more than once, and may be the tail of another.
        packed = self._names()
        found = []
        part: Btf | None = self.btf
        while part is not None:
            first, strings = part.strings
            at = strings.find(needle)
            while at >= 0:
                word = struct.pack("=I", first + at)
                place = packed.find(word)
                while place >= 0:
                    if place % 4 == 0:
                        found.append(self.btf.first_id + place // 4)
                    place = packed.find(word, place + 1)
                at = strings.find(needle, at + 1)
            part = part.base
        return found

    def _names(self) -> bytes:
        if not self._packed:
            from array import array

            if not self.index.names:
                self.index = replace(self.index, names=self.btf.name_offsets)
                if self._keep is not None:
                    self._keep(self.index)
            self._packed = array("I", self.index.names).tobytes()
        return self._packed
