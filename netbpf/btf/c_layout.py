"""How a C compiler would lay a struct out, and what must be said to it where BTF differs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from netbpf.btf import types as t
from netbpf.btf.blob import Btf
from netbpf.btf.errors import BtfFormatError

POINTER = 8
_MAX_DEPTH = 32
_ALIGNMENTS = frozenset({1, 2, 4, 8, 16})
_UNITS = {1: "char", 2: "short", 4: "int", 8: "long"}


@dataclass(slots=True)
class Plan:
    """What a struct needs in C beside its members.

    ``gaps`` are bits that no member uses and the compiler would not leave by itself: by the index
    of the member that they come before (the number of members: the end), as (first bit, end).
    """

    packed: bool
    align: int
    gaps: dict[int, tuple[int, int]]


class Layouts:
    """Sizes, alignments and plans of the types of one BTF, each computed once."""

    def __init__(self, btf: Btf) -> None:
        self._btf = btf
        self._sizes: dict[int, int] = {}
        self._aligns: dict[int, int] = {}
        self._plans: dict[int, Plan] = {}

    def size(self, type_id: int) -> int:
        """The size in bytes.

        :raises BtfFormatError: the type has none.
        """
        found = self._sizes.get(type_id)
        if found is None:
            found = self._sizes[type_id] = self._btf.size(type_id, POINTER)
        return found

    def align(self, type_id: int, depth: int = 0) -> int:
        """The alignment that the type has as it is printed, in bytes.

        :raises BtfFormatError: it contains itself.
        """
        known = self._aligns.get(type_id)
        if known is not None:
            return known
        under, found = self._btf.resolve(type_id)
        for _ in range(_MAX_DEPTH):
            if not isinstance(found, t.Array):
                break
            under, found = self._btf.resolve(found.type_id)
        if isinstance(found, t.Struct | t.Union):
            align = self.plan(under, depth + 1).align
        elif isinstance(found, t.Ptr):
            align = POINTER
        else:
            size = getattr(found, "size", 1)
            align = size if size in _ALIGNMENTS else 1
        self._aligns[type_id] = align
        return align

    def plan(self, type_id: int, depth: int = 0) -> Plan:
        """The plan of a struct or union.

        :raises BtfFormatError: its members overlap, have no size, or it contains itself.
        """
        known = self._plans.get(type_id)
        if known is not None:
            return known
        if depth > _MAX_DEPTH:
            raise BtfFormatError(f"type {type_id} contains itself, or is nested too deeply")
        found = self._btf.type(type_id)
        assert isinstance(found, t.Struct | t.Union)
        align = max((self.align(m.type_id, depth) for m in found.members), default=1)
        if isinstance(found, t.Union):
            plan = self._union(found, align)
        else:
            plan = self._natural(type_id, found, align) or self._packed(type_id, found)
        self._plans[type_id] = plan
        return plan

    def bits(self, member: t.Member) -> tuple[int, int]:
        """Where a member starts, in bits, and how wide a bit field it is (0: it is none)."""
        if member.bit_size:
            return member.bit_offset, member.bit_size
        _, found = self._btf.resolve(member.type_id)
        # Before Linux 4.20 a bit field had an integer type of its own, fewer bits than its size.
        if isinstance(found, t.Int) and 0 < found.bits < 8 * found.size and not found.bool_:
            return member.bit_offset + found.offset, found.bits
        if member.bit_offset % 8:
            return member.bit_offset, 8 * self.size(member.type_id)
        return member.bit_offset, 0

    def _union(self, found: t.Union, align: int) -> Plan:
        ends = (
            start + (width or 8 * self.size(m.type_id))
            for m in found.members
            for start, width in (self.bits(m),)
        )
        end = max(ends, default=0)
        if end > 8 * found.size:
            raise BtfFormatError(f"union {found.name} is smaller than its members")
        packed = found.size % align != 0 or _up(end, 8 * align) > 8 * found.size
        if packed:
            align = 1
        gaps = {}
        if _up(end, 8 * align) < 8 * found.size:
            gaps[len(found.members)] = (0, 8 * found.size)
        return Plan(packed, align, gaps)

    def _natural(self, type_id: int, found: t.Struct, align: int) -> Plan | None:
        # None: with its members at their natural places the struct cannot be had.
        if found.size % align:
            return None
        gaps = {}
        here = 0
        for index, member in enumerate(found.members):
            start, width = self.bits(member)
            unit = 8 * self.align(member.type_id)
            size = 8 * self.size(member.type_id)
            if width:
                # A bit field starts anywhere, but does not cross a boundary of its type.
                if start % unit + width > size:
                    return None
                next_ = here if here % unit + width <= size else _up(here, unit)
            else:
                if start % unit:
                    return None
                next_ = _up(here, unit)
            if start < here:
                raise BtfFormatError(f"the members of type {type_id} overlap")
            if next_ < start:
                gaps[index] = (here, start)
            elif next_ > start:
                return None
            here = start + (width or size)
        return self._end(type_id, found, here, Plan(False, align, gaps))

    def _packed(self, type_id: int, found: t.Struct) -> Plan:
        gaps = {}
        here = 0
        for index, member in enumerate(found.members):
            start, width = self.bits(member)
            if start < here:
                raise BtfFormatError(f"the members of type {type_id} overlap")
            if (here if width else _up(here, 8)) < start:
                gaps[index] = (here, start)
            here = start + (width or 8 * self.size(member.type_id))
        return self._end(type_id, found, here, Plan(True, 1, gaps))

    def _end(self, type_id: int, found: t.Struct, here: int, plan: Plan) -> Plan:
        if here > 8 * found.size:
            raise BtfFormatError(f"the members of type {type_id} do not fit into it")
        if _up(here, 8 * plan.align) < 8 * found.size:
            plan.gaps[len(found.members)] = (here, 8 * found.size)
        return plan


def paddings(start: int, end: int, align: int) -> Iterator[tuple[str, int]]:
    """Unnamed bit fields, as (type, bits), that take the bits from ``start`` to ``end``.

    None crosses a boundary of its type, and no type is larger than the struct's alignment.
    """
    unit = min(align, 8)
    while start < end:
        bits = min(end - start, 8 * unit - start % (8 * unit))
        yield _UNITS[unit], bits
        start += bits


def _up(value: int, unit: int) -> int:
    return (value + unit - 1) // unit * unit
