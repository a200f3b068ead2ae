"""What a CO-RE relocation speaks of: its kind, and the way into a type that its text describes."""

from __future__ import annotations

from netbpf.btf import types as t
from netbpf.btf.blob import Btf
from netbpf.btf.ext import CoreRelo
from netbpf.records import record

# include/uapi/linux/bpf.h: enum bpf_core_relo_kind.
FIELD_BYTE_OFFSET = 0
FIELD_BYTE_SIZE = 1
FIELD_EXISTS = 2
FIELD_SIGNED = 3
FIELD_LSHIFT_U64 = 4
FIELD_RSHIFT_U64 = 5
TYPE_ID_LOCAL = 6
TYPE_ID_TARGET = 7
TYPE_EXISTS = 8
TYPE_SIZE = 9
ENUMVAL_EXISTS = 10
ENUMVAL_VALUE = 11
TYPE_MATCHES = 12

FIELD_KINDS = frozenset(range(FIELD_BYTE_OFFSET, FIELD_RSHIFT_U64 + 1))
TYPE_KINDS = frozenset({TYPE_ID_LOCAL, TYPE_ID_TARGET, TYPE_EXISTS, TYPE_SIZE, TYPE_MATCHES})
ENUMVAL_KINDS = frozenset({ENUMVAL_EXISTS, ENUMVAL_VALUE})

KIND_NAMES = {
    FIELD_BYTE_OFFSET: "byte_off",
    FIELD_BYTE_SIZE: "byte_sz",
    FIELD_EXISTS: "field_exists",
    FIELD_SIGNED: "signed",
    FIELD_LSHIFT_U64: "lshift_u64",
    FIELD_RSHIFT_U64: "rshift_u64",
    TYPE_ID_LOCAL: "local_type_id",
    TYPE_ID_TARGET: "target_type_id",
    TYPE_EXISTS: "type_exists",
    TYPE_SIZE: "type_size",
    ENUMVAL_EXISTS: "enumval_exists",
    ENUMVAL_VALUE: "enumval_value",
    TYPE_MATCHES: "type_matches",
}
"""The words that libbpf has for the kinds."""

# libbpf takes no longer way into a type than this (relo_core.h: BPF_CORE_SPEC_MAX_LEN), and no
# deeper chain of typedefs and arrays than MAX_DEPTH (btf.c: MAX_RESOLVE_DEPTH).
MAX_STEPS = 64
MAX_DEPTH = 32
_U32 = 0xFFFFFFFF

_KEYWORDS = {
    t.KIND_STRUCT: "struct ",
    t.KIND_UNION: "union ",
    t.KIND_ENUM: "enum ",
    t.KIND_ENUM64: "enum ",
    t.KIND_FWD: "struct ",
}


class CoreError(ValueError):
    """A relocation that makes no sense, or whose answer is not the same for all candidates."""


@record(slots=True, frozen=True)
class Step:
    """A member, by ``name`` and its ``position`` in ``type_id``, or (no name) an element of it."""

    type_id: int
    position: int
    name: str | None = None


class Spec:
    """A place in the types of ``btf``; ``bit_offset`` counts from the start of ``root``.

    Anonymous structs and unions on the way have no step of their own: programs and kernels may
    differ in them. ``length`` counts them.
    """

    __slots__ = ("bit_offset", "btf", "length", "root", "steps")

    def __init__(self, btf: Btf, root: int) -> None:
        self.btf = btf
        self.root = root
        self.steps: list[Step] = []
        self.bit_offset = 0
        self.length = 0

    def forward(self, bits: int) -> None:
        """Move on; libbpf counts in 32 bits."""
        self.bit_offset = self.bit_offset + bits & _U32

    def lengthen(self) -> None:
        """Count one step of the way.

        :raises CoreError: it is too long.
        """
        if self.length == MAX_STEPS:
            raise CoreError(f"a way of more than {MAX_STEPS} steps into a type")
        self.length += 1


def essential(name: str) -> str:
    """The name without its flavour: ``sock___old`` stands for ``sock``.

    The last ``___`` counts that has no underscore to its left or right.
    """
    at = name.rfind("___")
    while at > 0:
        if name[at - 1] != "_" and name[at + 3 : at + 4] not in ("", "_"):
            return name[:at]
        at = name.rfind("___", 0, at + 2)
    return name


def skip(btf: Btf, type_id: int) -> tuple[int, t.Type]:
    """Step over typedefs and qualifiers: (id, type) under them."""
    return btf.resolve(type_id)


def is_same_kind(one: t.Type, other: t.Type) -> bool:
    """Whether two types are of one kind; enums of 32 and 64 bits are."""
    return one.kind == other.kind or (isinstance(one, t.Enum) and isinstance(other, t.Enum))


def size_of(btf: Btf, type_id: int) -> int:
    """The size of a type in bytes, in the machine that the BTF is of.

    :raises CoreError: it has none.
    """
    count = 1
    for _ in range(MAX_DEPTH):
        _, found = skip(btf, type_id)
        size: int | None = None
        if isinstance(found, t.Int | t.Struct | t.Union | t.Enum | t.DataSec | t.Float):
            size = found.size
        elif isinstance(found, t.Ptr):
            size = btf.pointer
        elif isinstance(found, t.Array):
            count *= found.length
            type_id = found.type_id
        elif isinstance(found, t.Var | t.DeclTag):
            type_id = found.type_id
        else:
            break
        if size is not None:
            if count * size > _U32:
                break
            return count * size
        if count > _U32:
            break
    raise CoreError(f"type {type_id} has no size")


def is_flexible(btf: Btf, steps: list[Step], found: t.Array) -> bool:
    """Whether the array that ``steps`` lead to has no end: the last member, of no size."""
    if found.length or not steps or steps[-1].name is None:
        return False
    outer = btf.type(steps[-1].type_id)
    return isinstance(outer, t.Struct | t.Union) and steps[-1].position == len(outer.members) - 1


def parse(btf: Btf, relo: CoreRelo) -> Spec:
    """The place that ``relo`` means in the program's own types.

    :param btf: the BTF of the object file, whose pointers have 8 bytes.
    :raises CoreError: its text and its type contradict each other.
    """
    parts = relo.access.split(":")
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise CoreError(f"{relo.access!r} is no way into a type")
    spec = Spec(btf, relo.type_id)
    if relo.kind in TYPE_KINDS:
        if relo.access != "0":
            raise CoreError(f"{relo.access!r} in a relocation of a whole type")
        return spec
    # Nothing longer than ten digits fits into an int.
    raw = [int(part.lstrip("0")[:11] or "0") for part in parts[: MAX_STEPS + 1]]
    if len(raw) > MAX_STEPS or max(raw) >= 1 << 31:
        raise CoreError(f"{relo.access!r} leads too deep into a type")
    type_id, found = skip(btf, relo.type_id)
    spec.length = len(raw)
    if relo.kind in ENUMVAL_KINDS:
        if not isinstance(found, t.Enum) or len(raw) > 1 or raw[0] >= len(found.values):
            raise CoreError(f"{relo.access!r} is no value of type {relo.type_id}")
        spec.steps.append(Step(type_id, raw[0], found.values[raw[0]][0]))
        return spec
    if relo.kind not in FIELD_KINDS:
        raise CoreError(f"relocations of kind {relo.kind} are not known")
    spec.steps.append(Step(type_id, raw[0]))
    spec.forward(raw[0] * size_of(btf, type_id) * 8)
    for index in raw[1:]:
        type_id = _advance(spec, type_id, index)
    return spec


def _advance(spec: Spec, type_id: int, index: int) -> int:
    # One step of the access string; the id of the type it leads to.
    btf = spec.btf
    type_id, found = skip(btf, type_id)
    if isinstance(found, t.Struct | t.Union):
        if index >= len(found.members):
            raise CoreError(f"{found.name or 'a type without a name'} has no member {index}")
        member = found.members[index]
        spec.forward(member.bit_offset)
        if member.name:
            spec.steps.append(Step(type_id, index, member.name))
        return member.type_id
    if isinstance(found, t.Array):
        element, _ = skip(btf, found.type_id)
        if index >= found.length and not is_flexible(btf, spec.steps, found):
            raise CoreError(f"element {index} of an array of {found.length}")
        spec.steps.append(Step(element, index))
        spec.forward(index * size_of(btf, element) * 8)
        return element
    raise CoreError(f"type {type_id} has no members")


def type_name(btf: Btf, type_id: int) -> str:
    """A type as C calls it, without its flavour: ``struct sock``."""
    found = btf.type(type_id)
    keyword = _KEYWORDS.get(found.kind, "")
    if isinstance(found, t.Fwd) and found.union:
        keyword = "union "
    return f"{keyword}{essential(found.name)}" if found.name else f"{keyword}without a name"


def describe(btf: Btf, relo: CoreRelo) -> str:
    """What ``relo`` speaks of in C's words: ``struct sock.sk_state``, ``enum color RED``."""
    name = type_name(btf, relo.type_id)
    try:
        spec = parse(btf, relo)
    except ValueError:
        return name
    if relo.kind in TYPE_KINDS:
        return name
    if relo.kind in ENUMVAL_KINDS:
        return f"{name} {essential(spec.steps[0].name or '')}"
    first = f"[{spec.steps[0].position}]" if spec.steps[0].position else ""
    return (
        name
        + first
        + "".join(
            f"[{step.position}]" if step.name is None else f".{step.name}"
            for step in spec.steps[1:]
        )
    )
