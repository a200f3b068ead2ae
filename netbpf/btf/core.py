"""CO-RE: the value that an instruction has to have for the types of the kernel it is loaded into.

The rules are libbpf's (relo_core.c), because a program's tag is made of its instructions: the same
object loaded by either has the same tag.
"""

from __future__ import annotations

from netbpf.btf import types as t
from netbpf.btf.blob import Btf
from netbpf.btf.core_match import match
from netbpf.btf.core_patch import Resolution, apply
from netbpf.btf.core_spec import (
    ENUMVAL_EXISTS,
    ENUMVAL_KINDS,
    FIELD_BYTE_OFFSET,
    FIELD_BYTE_SIZE,
    FIELD_EXISTS,
    FIELD_KINDS,
    FIELD_LSHIFT_U64,
    FIELD_RSHIFT_U64,
    FIELD_SIGNED,
    KIND_NAMES,
    TYPE_ID_LOCAL,
    TYPE_ID_TARGET,
    TYPE_KINDS,
    TYPE_SIZE,
    CoreError,
    Spec,
    describe,
    essential,
    parse,
    size_of,
    skip,
    type_name,
)
from netbpf.btf.ext import CoreRelo
from netbpf.records import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "Candidate",
    "CoreError",
    "Resolution",
    "apply",
    "describe",
    "essential",
    "resolve",
    "type_name",
]

_U32 = 0xFFFFFFFF
_U64 = 0xFFFFFFFFFFFFFFFF


@record(slots=True, frozen=True)
class Candidate:
    """A type of the kernel, or of one of its modules, that has the name looked for."""

    btf: Btf
    type_id: int


@record(slots=True, frozen=True)
class _Value:
    number: int
    validate: bool = True
    size: int = 0
    type_id: int = 0


def resolve(
    local: Btf, relo: CoreRelo, candidates: Sequence[Candidate]
) -> tuple[Resolution, Sequence[Candidate]]:
    """The answer to one relocation, and the candidates to ask for the next one of the same type.

    Those that fit are what is left of ``candidates``; when none does, all are.

    :param local: the types of the object file.
    :param candidates: the kernel's types with the same essential name and of the same kind.
    :raises CoreError: the relocation makes no sense, or the candidates do not agree.
    """
    spec = parse(local, relo)
    if relo.kind == TYPE_ID_LOCAL:
        # A linker may have renumbered the types since the instruction was written.
        return Resolution(relo.type_id, relo.type_id, validate=False), candidates
    if not local.type(relo.type_id).name:
        raise CoreError(f"{type_name(local, relo.type_id)} cannot be looked for in the kernel")
    answer: Resolution | None = None
    place = 0
    fitting = []
    for candidate in candidates:
        found = match(relo.kind, spec, candidate.btf, candidate.type_id)
        if found is None:
            continue
        one = _calculate(relo.kind, spec, found)
        if answer is None:
            answer, place = one, found.bit_offset
        elif place != found.bit_offset:
            raise CoreError(
                f"{describe(local, relo)} is ambiguous: it is at bit {place} of one type of that "
                f"name and at bit {found.bit_offset} of another"
            )
        elif (answer.poison, answer.new) != (one.poison, one.new):
            raise CoreError(
                f"{describe(local, relo)} is ambiguous: types of that name differ "
                f"({_told(answer)} and {_told(one)})"
            )
        fitting.append(candidate)
    if answer is None:
        return _calculate(relo.kind, spec, None), candidates
    return answer, fitting


def _told(answer: Resolution) -> str:
    return "nothing" if answer.poison else str(answer.new)


def _calculate(kind: int, local: Spec, target: Spec | None) -> Resolution:
    if kind in TYPE_KINDS:
        value = _type_value(kind, local)
        new = _type_value(kind, target).number if target is not None else 0
        return Resolution(value.number, new, validate=value.validate)
    if kind in ENUMVAL_KINDS:
        if kind == ENUMVAL_EXISTS:
            return Resolution(1, int(target is not None))
        if target is None:
            return Resolution(0, 0, poison=True)
        return Resolution(_enum_value(local), _enum_value(target))
    assert kind in FIELD_KINDS
    if kind == FIELD_EXISTS:
        return Resolution(1, int(target is not None))
    order = local.btf.byteorder
    ours = _field_value(kind, local, order)
    if target is None:
        return Resolution(ours.number, 0, poison=True, validate=ours.validate)
    theirs = _field_value(kind, target, order)
    return Resolution(
        ours.number,
        theirs.number,
        validate=ours.validate,
        misfit=ours.size != theirs.size and not _adjustable(local, ours, target, theirs),
        old_size=ours.size,
        new_size=theirs.size,
    )


def _adjustable(local: Spec, ours: _Value, target: Spec, theirs: _Value) -> bool:
    # A pointer or an unsigned integer keeps its value when it is read with another size: the rest
    # of the register is zeroes.
    one, other = local.btf.type(ours.type_id), target.btf.type(theirs.type_id)
    if isinstance(one, t.Ptr) and isinstance(other, t.Ptr):
        return True
    return (
        isinstance(one, t.Int)
        and isinstance(other, t.Int)
        and one.encoding != t.INT_SIGNED
        and other.encoding != t.INT_SIGNED
    )


def _type_value(kind: int, spec: Spec) -> _Value:
    if kind == TYPE_ID_TARGET:
        return _Value(spec.root, validate=False)
    if kind == TYPE_SIZE:
        return _Value(size_of(spec.btf, spec.root))
    return _Value(1)


def _enum_value(spec: Spec) -> int:
    found = spec.btf.type(spec.steps[0].type_id)
    assert isinstance(found, t.Enum)
    value = found.values[spec.steps[0].position][1]
    if found.kind == t.KIND_ENUM:
        # libbpf takes all values of 32 bits for signed ones.
        value = (value & _U32 ^ 0x80000000) - 0x80000000
    return value & _U64


def _field_value(kind: int, spec: Spec, byteorder: str) -> _Value:
    step = spec.steps[-1]
    btf = spec.btf
    if step.name is None:
        if kind == FIELD_BYTE_OFFSET:
            size = _element_size(btf, step.type_id)
            return _Value(spec.bit_offset // 8, size=size, type_id=step.type_id)
        if kind == FIELD_BYTE_SIZE:
            return _Value(size_of(btf, step.type_id))
        raise CoreError(f"{KIND_NAMES[kind]} cannot be asked of an array's element")
    outer = btf.type(step.type_id)
    assert isinstance(outer, t.Struct | t.Union)
    member = outer.members[step.position]
    type_id, found = skip(btf, member.type_id)
    offset = spec.bit_offset
    bits = member.bit_size
    if bits:
        start, size = _storage(found, offset, bits)
    else:
        size = size_of(btf, type_id)
        start, bits = offset // 8, size * 8 & _U32
    # Compilers may differ in how they load a bit field, but not in its sign and its width.
    plain = not member.bit_size
    if kind == FIELD_BYTE_OFFSET:
        if member.bit_size:
            return _Value(start, validate=False)
        return _Value(start, size=_element_size(btf, type_id), type_id=type_id)
    if kind == FIELD_BYTE_SIZE:
        return _Value(size, validate=plain)
    if kind == FIELD_SIGNED:
        return _Value(int(isinstance(found, t.Enum | t.Int) and found.signed))
    if kind == FIELD_RSHIFT_U64:
        return _Value(64 - bits & _U32)
    assert kind == FIELD_LSHIFT_U64
    if byteorder == "little":
        shift = 64 - (offset + bits - start * 8)
    else:
        shift = (8 - size) * 8 + (offset - start * 8)
    return _Value(shift & _U32, validate=plain)


def _storage(found: t.Type, offset: int, bits: int) -> tuple[int, int]:
    # The smallest integer, from the declared type upwards, that holds all of a bit field.
    if not isinstance(found, t.Int | t.Enum) or not found.size:
        raise CoreError("a bit field of a type that has none")
    size = found.size
    start = offset // 8 // size * size
    while offset + bits - start * 8 > size * 8:
        if size >= 8:
            raise CoreError("a bit field that 64 bits do not hold")
        size *= 2
        start = offset // 8 // size * size
    return start, size


def _element_size(btf: Btf, type_id: int) -> int:
    # Instructions touch one element of an array, whatever its length.
    for _ in range(64):
        type_id, found = skip(btf, type_id)
        if not isinstance(found, t.Array):
            break
        type_id = found.type_id
    return size_of(btf, type_id)
