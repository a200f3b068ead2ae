"""One type as pahole shows it: members with offsets and sizes, holes, cache lines."""

from __future__ import annotations

from collections.abc import Iterator

from netbpf.btf import types as t
from netbpf.btf.blob import Btf
from netbpf.btf.c_layout import Layouts
from netbpf.btf.declare import Declarator
from netbpf.btf.errors import BtfFormatError
from netbpf.errors import NotFoundError
from netbpf.records import field, record

CACHE_LINE = 64
_MAX_DEPTH = 32
_MAX_ROWS = 100_000
KINDS: dict[str, tuple[int, ...]] = {
    "struct": (t.KIND_STRUCT, t.KIND_FWD),
    "union": (t.KIND_UNION, t.KIND_FWD),
    "enum": (t.KIND_ENUM, t.KIND_ENUM64),
    "typedef": (t.KIND_TYPEDEF,),
    "func": (t.KIND_FUNC,),
    "var": (t.KIND_VAR,),
}
_WORDS = {
    t.KIND_INT: "int",
    t.KIND_STRUCT: "struct",
    t.KIND_UNION: "union",
    t.KIND_ENUM: "enum",
    t.KIND_ENUM64: "enum",
    t.KIND_FWD: "fwd",
    t.KIND_TYPEDEF: "typedef",
    t.KIND_FUNC: "func",
    t.KIND_VAR: "var",
    t.KIND_DATASEC: "datasec",
    t.KIND_FLOAT: "float",
}


@record(slots=True, frozen=True)
class Hole:
    """Bits that no member uses, counted from the start of the whole type."""

    bit_offset: int
    bits: int


@record(slots=True, frozen=True)
class Row:
    """A member; offsets count from the start of the whole type, in bytes and in bits.

    ``bit_size`` is None unless it is a bit field. ``type`` is its type without the name; in a
    declaration the name stands between ``before`` and ``behind``. ``members`` is None where the
    member is not opened; ``holes`` and ``padding`` are those inside of it.
    """

    name: str
    type: str
    before: str
    behind: str
    offset: int
    bit_offset: int
    size: int
    bit_size: int | None
    members: tuple[Row, ...] | None
    holes: tuple[Hole, ...]
    padding: int


@record(slots=True, frozen=True)
class Shown:
    """A type by itself; ``members`` for a struct or union, ``values`` for an enum, else None.

    ``declaration`` is the type as C, without a body. ``padding`` are the unused bits at the end.
    """

    id: int
    kind: str
    name: str
    declaration: str
    size: int | None
    members: tuple[Row, ...] | None = None
    values: tuple[tuple[str, int], ...] | None = None
    holes: tuple[Hole, ...] = field(default=())
    padding: int = 0


def find(btf: Btf, text: str) -> list[int]:
    """The ids of the types that ``text`` names: ``struct sk_buff``, ``enum x``, or ``sk_buff``.

    Also ``union``, ``typedef``, ``func`` and ``var``. A declaration without a body counts only
    where there is nothing else.

    :raises NotFoundError: there is no such type. :raises ValueError: the text names none.
    """
    words = text.split()
    if not words or len(words) > 2 or (len(words) == 2 and words[0] not in KINDS):
        # The compilers' own names hold spaces: unsigned int.
        words = [text.strip()] if btf.ids(text.strip()) else words
    if len(words) == 2 and words[0] in KINDS:
        kinds = KINDS[words[0]]
    elif len(words) == 1:
        kinds = tuple(_WORDS)
    else:
        raise ValueError(f"{text!r} is no type: write struct NAME, union NAME, enum NAME or NAME")
    name = words[-1]
    found = [i for i in btf.ids(name) if btf.kind(i) in kinds]
    bodies = [i for i in found if btf.kind(i) != t.KIND_FWD]
    if words[0] == "struct" and len(words) == 2 and not bodies:
        found = [i for i in found if not getattr(btf.type(i), "union", False)]
    if not (bodies or found):
        others = [f"{_WORDS[btf.kind(i)]} {name}" for i in btf.ids(name) if btf.kind(i) in _WORDS]
        hint = f"there is {', '.join(dict.fromkeys(others))}" if others else None
        raise NotFoundError("type", text.strip(), hint=hint)
    return bodies or found


def describe(btf: Btf, type_id: int, depth: int = 0) -> Shown:
    """What a type is and where its members lie.

    A typedef is described as what it stands for, under its own name.

    :param depth: how many levels of named structs are opened; those without a name always are.
    :raises BtfFormatError: the type contains itself, or a type in it has no size.
    """
    return _Reader(btf).shown(type_id, depth)


class _Reader:
    def __init__(self, btf: Btf) -> None:
        self._btf = btf
        self._layouts = Layouts(btf)
        self._names = Declarator(btf)
        self._rows_left = _MAX_ROWS

    def shown(self, type_id: int, depth: int) -> Shown:
        top = self._btf.type(type_id)
        kind = _WORDS.get(top.kind, "other")
        declaration = self._declaration(type_id, top)
        under, found = self._btf.resolve(type_id) if isinstance(top, t.Typedef) else (type_id, top)
        head = (type_id, kind, top.name, declaration)
        if isinstance(found, t.Struct | t.Union):
            members, holes, padding = self._members(under, found, 0, depth, 0)
            return Shown(*head, found.size, members, None, holes, padding)
        if isinstance(found, t.Enum):
            return Shown(*head, found.size, None, found.values)
        if isinstance(found, t.Fwd | t.Func | t.FuncProto | t.Void):
            return Shown(*head, None)
        if isinstance(found, t.DataSec):
            return Shown(*head, found.size)
        return Shown(*head, self._layouts.size(under))

    def _declaration(self, type_id: int, found: t.Type) -> str:
        if isinstance(found, t.Typedef):
            return f"typedef {self._names.declare(found.type_id, found.name)}"
        if isinstance(found, t.Func | t.Var):
            return self._names.declare(found.type_id, found.name)
        if isinstance(found, t.DataSec):
            return found.name
        return self._names.declare(type_id)

    def _members(
        self, type_id: int, found: t.Struct | t.Union, base: int, depth: int, level: int
    ) -> tuple[tuple[Row, ...], tuple[Hole, ...], int]:
        # ``base`` is the bit at which this struct starts in the whole type.
        if level > _MAX_DEPTH:
            raise BtfFormatError(f"type {type_id} contains itself, or is nested too deeply")
        rows, holes = [], []
        end = 0
        for member in found.members:
            self._rows_left -= 1
            if self._rows_left < 0:
                raise BtfFormatError(f"type {type_id} has too many members")
            start, width = self._layouts.bits(member)
            size = self._layouts.size(member.type_id)
            if isinstance(found, t.Struct) and start > end:
                holes.append(Hole(base + end, start - end))
            end = max(end, start + (width or 8 * size))
            rows.append(self._row(member, base + start, width, size, depth, level))
        return tuple(rows), tuple(holes), max(0, 8 * found.size - end)

    def _row(
        self, member: t.Member, start: int, width: int, size: int, depth: int, level: int
    ) -> Row:
        before, behind, _ = self._names.parts(member.type_id)
        members: tuple[Row, ...] | None = None
        holes: tuple[Hole, ...] = ()
        padding = 0
        inner = self._opened(member, depth)
        if inner is not None:
            inner_id, found, anonymous = inner
            deeper = depth if anonymous else depth - 1
            members, holes, padding = self._members(inner_id, found, start, deeper, level + 1)
        return Row(
            name=member.name,
            type=f"{before}{behind}".strip(),
            before=before,
            behind=behind,
            offset=start // 8,
            bit_offset=start,
            size=size,
            bit_size=width or None,
            members=members,
            holes=holes,
            padding=padding,
        )

    def _opened(self, member: t.Member, depth: int) -> tuple[int, t.Struct | t.Union, bool] | None:
        # The struct to open for a member, and whether it is one without a name. A member without
        # a name is as good as that: its members are those of the outer struct.
        type_id = member.type_id
        named = False
        for _ in range(_MAX_DEPTH):
            found = self._btf.type(type_id)
            if isinstance(found, t.Struct | t.Union):
                named = bool(member.name) and (named or bool(found.name))
                return (type_id, found, not named) if depth > 0 or not named else None
            if not isinstance(found, t.Typedef | t.Qualifier | t.TypeTag | t.Array):
                return None
            named = named or isinstance(found, t.Typedef)
            type_id = found.type_id
        raise BtfFormatError(f"type {type_id} refers to itself")


def render(shown: Shown) -> Iterator[str]:
    """The lines of a type, with offset and size beside each member; of a bit field offset:bit."""
    if shown.values is not None:
        yield f"{_head(shown)} {{"
        yield from (f"\t{name} = {value}," for name, value in shown.values)
        yield ""
        yield f"\t/* size: {shown.size}, values: {len(shown.values)} */"
        yield f"}}{_foot(shown)}"
        return
    if shown.members is None:
        size = "" if shown.size is None else f"  /* size: {shown.size} */"
        yield f"{shown.declaration};{size}"
        return
    yield f"{_head(shown)} {{"
    yield from _lines(shown.members, shown.holes, 1, [0])
    yield ""
    count = ((shown.size or 0) + CACHE_LINE - 1) // CACHE_LINE
    yield f"\t/* size: {shown.size}, cachelines: {count}, members: {len(shown.members)} */"
    if shown.holes:
        unused = sum(hole.bits for hole in shown.holes)
        yield f"\t/* holes: {len(shown.holes)}, sum holes: {_bits(unused)} */"
    if shown.padding:
        yield f"\t/* padding: {_bits(shown.padding)} */"
    if (shown.size or 0) % CACHE_LINE:
        yield f"\t/* last cacheline: {(shown.size or 0) % CACHE_LINE} bytes */"
    yield f"}}{_foot(shown)}"


def _head(shown: Shown) -> str:
    return shown.declaration.replace(" {...}", "").removesuffix(
        f" {shown.name}" if shown.kind == "typedef" else "\0"
    )


def _foot(shown: Shown) -> str:
    return f" {shown.name};" if shown.kind == "typedef" else ";"


def _lines(
    rows: tuple[Row, ...], holes: tuple[Hole, ...], level: int, line: list[int]
) -> Iterator[str]:
    # ``line`` holds the last cache line whose start was told.
    tab = "\t" * level
    before = {hole.bit_offset + hole.bits: hole for hole in holes}
    for row in rows:
        hole = before.pop(row.bit_offset, None)
        if hole is not None:
            yield from ("", f"{tab}/* {_bits(hole.bits)} hole */", "")
        if row.offset // CACHE_LINE > line[0]:
            line[0] = row.offset // CACHE_LINE
            ago = row.offset % CACHE_LINE
            was = f" was {ago} bytes ago" if ago else ""
            start = line[0] * CACHE_LINE
            yield f"{tab}/* --- cacheline {line[0]} boundary ({start} bytes){was} --- */"
        bits = f":{row.bit_size}" if row.bit_size else ""
        if row.members is None:
            text = f"{tab}{row.before}{row.name}{row.behind}{bits};".replace(" ;", ";")
        else:
            yield f"{tab}{row.before.replace(' {...}', '').rstrip()} {{"
            yield from _lines(row.members, row.holes, level + 1, line)
            text = f"{tab}}} {row.name}{row.behind};".replace(" ;", ";")
        place = f"{row.offset}:{row.bit_offset % 8}" if row.bit_size else str(row.offset)
        width = len(text.expandtabs(8))
        yield f"{text}{' ' * max(1, 64 - width)}/* {place:>7} {row.size:>5} */"


def _bits(count: int) -> str:
    if count % 8:
        return f"{count} bits"
    return f"{count // 8} byte{'' if count == 8 else 's'}"
