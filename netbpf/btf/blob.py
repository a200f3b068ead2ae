"""Reading a BTF blob: header, strings, types by id and by name, without a copy per type."""

from __future__ import annotations

import struct
import sys

from netbpf.btf import types as t
from netbpf.btf.errors import BtfFormatError
from netbpf.btf.header import Header, read_header

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_MAX_DEPTH = 64
# The kernel takes names of 511 bytes; without a limit a hostile blob that names the tails of one
# long string fills the memory.
_MAX_NAME = 1024
# What is read of a string at first; most are shorter.
_PIECE = 64

# How many 32-bit words stand after the three that each type has: fixed ones, and per element.
_FIXED = {t.KIND_INT: 1, t.KIND_ARRAY: 3, t.KIND_VAR: 1, t.KIND_DECL_TAG: 1}
_PER_ELEMENT = {
    t.KIND_STRUCT: 3,
    t.KIND_UNION: 3,
    t.KIND_ENUM: 2,
    t.KIND_FUNC_PROTO: 2,
    t.KIND_DATASEC: 3,
    t.KIND_ENUM64: 3,
}


class Steps(dict[int, int]):
    """How many words a type takes, by its info word.

    The kernel's 126,000 types have a few hundred different ones, so that this costs half of
    computing it for each.
    """

    def __init__(self, data: bytes | memoryview, header: Header, prefix: str) -> None:
        super().__init__()
        self._kinds: dict[int, tuple[int, int]] = {}
        start, length = header.layout
        for kind in range(min(length // 4, 128)):
            info, each, _flags = struct.unpack_from(prefix + "BBH", data, start + kind * 4)
            if info % 4 == 0 and each % 4 == 0:
                self._kinds[kind] = (3 + info // 4, each // 4)
        for kind in range(1, t.KIND_ENUM64 + 1):
            self._kinds[kind] = (3 + _FIXED.get(kind, 0), _PER_ELEMENT.get(kind, 0))
        self._kinds.pop(0, None)

    def __missing__(self, info: int) -> int:
        kind = info >> 24 & 0x7F
        if kind not in self._kinds:
            raise BtfFormatError(f"a type is of unknown kind {kind}")
        fixed, element = self._kinds[kind]
        # FUNC keeps its linkage where others count their elements: element is 0 for it.
        step = self[info] = fixed + element * (info & 0xFFFFFF)
        return step


class Btf:
    """The types of one BTF blob, or of a split blob together with its ``base``.

    Types are decoded when asked for. Ids count from 1; 0 is void. A split blob's ids and string
    offsets go on where its base's end.
    """

    def __init__(
        self,
        data: bytes | memoryview,
        base: Btf | None = None,
        offsets: Sequence[int] | None = None,
    ) -> None:
        self.data = data
        self.base = base
        # The size of a pointer in the machine that the types are of.
        self.pointer: int = 8 if base is None else base.pointer
        self.header = header = read_header(data)
        self.byteorder = header.byteorder
        self._prefix = "<" if header.byteorder == "little" else ">"
        start, length = header.types
        if offsets is not None and header.byteorder == sys.byteorder:
            # Few of many types are looked at: nothing is copied.
            self._words: Sequence[int] = memoryview(data)[start : start + length].cast("I")
        else:
            self._words = self._read_words(start, length)
        start, length = header.strings
        # A piece of what is mapped stays there: few strings of the kernel's are looked at.
        self._strings: bytes | memoryview = data[start : start + length]
        if base is None and (not self._strings or self._strings[0]):
            raise BtfFormatError("the string section does not start with an empty string")
        if self._strings and self._strings[-1]:
            raise BtfFormatError("the string section does not end with NUL")
        self.first_id = 1 if base is None else len(base)
        self._first_string: int = 0 if base is None else base._first_string + len(base._strings)
        self._offsets = self._walk() if offsets is None else offsets
        self._names: Sequence[int] | None = None
        self._cache: dict[int, t.Type] = {0: t.Void()}
        self._read_names: dict[int, str] = {0: ""}

    @classmethod
    def parse(
        cls,
        data: bytes | memoryview,
        base: Btf | None = None,
        offsets: Sequence[int] | None = None,
    ) -> Btf:
        """Index ``data``; one pass over the types, none of them decoded.

        :param base: the BTF that a split blob (a kernel module's) goes on from.
        :param offsets: what an earlier ``offsets`` of the same blob gave; it saves the pass.
        :raises BtfFormatError: the blob is no BTF, or is malformed.
        """
        return cls(data, base, offsets)

    @property
    def offsets(self) -> Sequence[int]:
        """Where each type of this blob starts, in words of four bytes."""
        return self._offsets

    @property
    def words(self) -> Sequence[int]:
        """The numbers that the types of this blob are made of, in this machine's byte order."""
        return self._words

    @property
    def name_offsets(self) -> Sequence[int]:
        """The string offset of each type's name, 0 for those that have none."""
        if self._names is None:
            self._names = [self._words[offset] for offset in self._offsets]
        return self._names

    @property
    def strings(self) -> tuple[int, bytes]:
        """The offset that this blob's strings start at, and the string section."""
        self._strings = bytes(self._strings)
        return self._first_string, self._strings

    def _read_words(self, start: int, length: int) -> Sequence[int]:
        # Importing array takes longer than all that is done with the types of one object.
        return struct.unpack_from(f"{self._prefix}{length // 4}I", self.data, start)

    def _walk(self) -> Sequence[int]:
        words = self._words
        offsets: list[int] = []
        add = offsets.append
        steps = Steps(self.data, self.header, self._prefix)
        position = 0
        end = len(words)
        try:
            while position < end:
                add(position)
                position += steps[words[position + 1]]
        except IndexError:
            position = end + 1
        if position != end:
            raise BtfFormatError("the last type is cut off")
        return offsets

    def __len__(self) -> int:
        """The number of type ids, void and the base's included."""
        return self.first_id + len(self._offsets)

    def __iter__(self) -> Iterator[tuple[int, t.Type]]:
        """All types of this blob, not of its base, as (id, type)."""
        return ((i, self.type(i)) for i in range(self.first_id, len(self)))

    def string(self, offset: int) -> str:
        """The string at ``offset``.

        :raises BtfFormatError: outside of the string section.
        """
        return self.text(offset).decode("utf-8", "surrogateescape")

    def text(self, offset: int) -> bytes:
        """The bytes of the string at ``offset``.

        :raises BtfFormatError: outside of the string section.
        """
        at = offset - self._first_string
        if at < 0 and self.base is not None:
            return self.base.text(offset)
        size = _PIECE
        while 0 <= at < len(self._strings):
            text = bytes(self._strings[at : at + size])
            end = text.find(b"\0")
            if end >= 0:
                return text[:end]
            size *= 16
        raise BtfFormatError(f"string offset {offset} lies outside of the string section")

    def _name(self, offset: int) -> str:
        # The names of types and members: a few are used by many.
        found = self._read_names.get(offset)
        if found is None:
            found = self.string(offset)
            if len(found) > _MAX_NAME:
                raise BtfFormatError(f"the name at string offset {offset} is too long")
            self._read_names[offset] = found
        return found

    def type(self, type_id: int) -> t.Type:
        """The type with this id.

        :raises BtfFormatError: there is no such type.
        """
        found = self._cache.get(type_id)
        if found is None:
            if 0 < type_id < self.first_id and self.base is not None:
                return self.base.type(type_id)
            if not self.first_id <= type_id < len(self):
                raise BtfFormatError(f"there is no type {type_id}")
            found = self._cache[type_id] = self._decode(self._offsets[type_id - self.first_id])
        return found

    def kind(self, type_id: int) -> int:
        """The kind of a type, without decoding it; 0 for void."""
        if type_id == 0:
            return t.KIND_VOID
        if type_id < self.first_id and self.base is not None:
            return self.base.kind(type_id)
        if not self.first_id <= type_id < len(self):
            raise BtfFormatError(f"there is no type {type_id}")
        return self._words[self._offsets[type_id - self.first_id] + 1] >> 24 & 0x7F

    def position(self, type_id: int) -> int:
        """Where the type's bytes start in ``data``."""
        if not self.first_id <= type_id < len(self):
            raise BtfFormatError(f"there is no type {type_id}")
        return self.header.types[0] + 4 * self._offsets[type_id - self.first_id]

    def ids_of_kind(self, kind: int) -> list[int]:
        """The ids of all types of one kind, the base's included."""
        words = self._words
        own = [
            i
            for i, offset in enumerate(self._offsets, self.first_id)
            if words[offset + 1] >> 24 & 0x7F == kind
        ]
        return (self.base.ids_of_kind(kind) if self.base is not None else []) + own

    def ids(self, name: str) -> list[int]:
        """The ids of all types called ``name``, the base's first.

        Of a ``struct x`` the name is ``x``. A linear search in C: fine for some names in the
        kernel's BTF, not for thousands.
        """
        found = self.base.ids(name) if self.base is not None else []
        if not name:
            return found
        names = self.name_offsets
        for offset in self._string_offsets(name):
            at = -1
            while True:
                try:
                    at = names.index(offset, at + 1)
                except ValueError:
                    break
                found.append(self.first_id + at)
        return found

    def _string_offsets(self, name: str) -> list[int]:
        # A string may be the tail of another one, so every place counts; a split blob's types may
        # use strings of the base.
        needle = name.encode("utf-8", "surrogateescape") + b"\0"
        found = []
        part: Btf | None = self
        while part is not None:
            first, strings = part.strings
            at = strings.find(needle)
            while at >= 0:
                found.append(first + at)
                at = strings.find(needle, at + 1)
            part = part.base
        return found

    def find(self, name: str, *kinds: int) -> int | None:
        """The first id of a type called ``name`` of one of ``kinds``, of any when none is given."""
        for type_id in self.ids(name):
            if not kinds or self.kind(type_id) in kinds:
                return type_id
        return None

    def resolve(self, type_id: int) -> tuple[int, t.Type]:
        """Step over typedefs, const, volatile, restrict and type tags: (id, type) under them.

        :raises BtfFormatError: they go round in a circle.
        """
        for _ in range(_MAX_DEPTH):
            found = self.type(type_id)
            if not isinstance(found, t.Typedef | t.Qualifier | t.TypeTag):
                return type_id, found
            type_id = found.type_id
        raise BtfFormatError(f"type {type_id} refers to itself")

    def size(self, type_id: int, pointer: int = 8) -> int:
        """The size of a type in bytes; 0 for void and for functions.

        :raises BtfFormatError: the type has none (a forward declaration), or refers to itself.
        """
        factor = 1
        for _ in range(_MAX_DEPTH):
            type_id, found = self.resolve(type_id)
            if isinstance(found, t.Array):
                factor *= found.length
                type_id = found.type_id
                continue
            if isinstance(found, t.Ptr):
                return factor * pointer
            if isinstance(found, t.Var):
                type_id = found.type_id
                continue
            if isinstance(found, t.Void | t.Func | t.FuncProto):
                return 0
            if isinstance(found, t.Int | t.Struct | t.Union | t.Enum | t.Float | t.DataSec):
                return factor * found.size
            raise BtfFormatError(f"type {type_id} ({found.name}) has no size")
        raise BtfFormatError(f"type {type_id} refers to itself")

    def _decode(self, at: int) -> t.Type:
        words = self._words
        name_off, info, third = words[at], words[at + 1], words[at + 2]
        kind = info >> 24 & 0x7F
        vlen = info & 0xFFFFFF
        flag = bool(info >> 31)
        name = self._name(name_off)
        at += 3
        if kind == t.KIND_INT:
            word = words[at]
            return t.Int(name, third, word >> 24 & 0xF, word >> 16 & 0xFF, word & 0xFF)
        if kind == t.KIND_PTR:
            return t.Ptr(third)
        if kind == t.KIND_ARRAY:
            return t.Array(words[at], words[at + 1], words[at + 2])
        if kind in (t.KIND_STRUCT, t.KIND_UNION):
            members = tuple(
                t.Member(
                    self._name(words[i]),
                    words[i + 1],
                    words[i + 2] & 0xFFFFFF if flag else words[i + 2],
                    words[i + 2] >> 24 if flag else 0,
                )
                for i in range(at, at + 3 * vlen, 3)
            )
            return (t.Struct if kind == t.KIND_STRUCT else t.Union)(name, third, members)
        if kind == t.KIND_ENUM:
            values = tuple(
                (self._name(words[i]), _signed(words[i + 1], 32) if flag else words[i + 1])
                for i in range(at, at + 2 * vlen, 2)
            )
            # The flag is younger (Linux 6.0) than signed values: in older blobs a negative value
            # reads as a large one.
            return t.Enum(name, third, flag, values)
        if kind == t.KIND_ENUM64:
            wide = tuple(
                (
                    self._name(words[i]),
                    _signed(words[i + 1] | words[i + 2] << 32, 64)
                    if flag
                    else words[i + 1] | words[i + 2] << 32,
                )
                for i in range(at, at + 3 * vlen, 3)
            )
            return t.Enum(name, third, flag, wide, t.KIND_ENUM64)
        if kind == t.KIND_FUNC_PROTO:
            params = tuple(
                (self._name(words[i]), words[i + 1]) for i in range(at, at + 2 * vlen, 2)
            )
            return t.FuncProto(third, params)
        if kind == t.KIND_DATASEC:
            variables = tuple(
                t.SecVar(words[i], words[i + 1], words[i + 2]) for i in range(at, at + 3 * vlen, 3)
            )
            return t.DataSec(name, third, variables)
        return self._decode_plain(kind, name, third, vlen, flag, at)

    def _decode_plain(
        self, kind: int, name: str, third: int, vlen: int, flag: bool, at: int
    ) -> t.Type:
        # The kinds without elements.
        if kind == t.KIND_FWD:
            return t.Fwd(name, flag)
        if kind == t.KIND_TYPEDEF:
            return t.Typedef(name, third)
        if kind in (t.KIND_CONST, t.KIND_VOLATILE, t.KIND_RESTRICT):
            return t.Qualifier(third, kind)
        if kind == t.KIND_FUNC:
            return t.Func(name, third, vlen)
        if kind == t.KIND_VAR:
            return t.Var(name, third, self._words[at])
        if kind == t.KIND_FLOAT:
            return t.Float(name, third)
        if kind == t.KIND_DECL_TAG:
            return t.DeclTag(name, third, _signed(self._words[at], 32), flag)
        if kind == t.KIND_TYPE_TAG:
            return t.TypeTag(name, third, flag)
        return t.Unknown(name, kind)


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value
