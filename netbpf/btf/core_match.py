"""Whether a type of the kernel is the one that a program means: libbpf's rules of CO-RE."""

from __future__ import annotations

from netbpf.btf import types as t
from netbpf.btf.blob import Btf
from netbpf.btf.core_spec import (
    ENUMVAL_KINDS,
    MAX_DEPTH,
    TYPE_KINDS,
    TYPE_MATCHES,
    CoreError,
    Spec,
    Step,
    essential,
    is_flexible,
    is_same_kind,
    size_of,
    skip,
)

_Composite = t.Struct | t.Union


def match(kind: int, local: Spec, btf: Btf, type_id: int) -> Spec | None:
    """The place in ``type_id`` of ``btf`` that ``local`` means; None where it has no such place.

    The caller has found the two types to have the same name, flavours aside.

    :param kind: of the relocation: whole types are compared otherwise than ways into them.
    :raises CoreError: the types cannot be compared.
    """
    target = Spec(btf, type_id)
    if kind in TYPE_KINDS:
        compare = matches if kind == TYPE_MATCHES else are_compatible
        return target if compare(local.btf, local.root, btf, type_id) else None
    if kind in ENUMVAL_KINDS:
        return target if _match_value(local, target) else None
    return target if _match_field(local, target) else None


def _match_value(local: Spec, target: Spec) -> bool:
    type_id, found = skip(target.btf, target.root)
    if not isinstance(found, t.Enum):
        return False
    wanted = essential(local.steps[0].name or "")
    for index, (name, _) in enumerate(found.values):
        if essential(name) == wanted:
            target.steps.append(Step(type_id, index, name))
            target.lengthen()
            return True
    return False


def _match_field(local: Spec, target: Spec) -> bool:
    btf = target.btf
    type_id = target.root
    for number, step in enumerate(local.steps):
        type_id, found = skip(btf, type_id)
        if step.name is not None:
            inner = _match_member(local.btf, step, target, type_id, set())
            if inner is None:
                return False
            type_id = inner
            continue
        if number:
            if not isinstance(found, t.Array):
                return False
            if step.position >= found.length and not is_flexible(btf, target.steps, found):
                return False
            type_id, _ = skip(btf, found.type_id)
        target.lengthen()
        target.steps.append(Step(type_id, step.position))
        target.forward(step.position * size_of(btf, type_id) * 8)
    return True


def _match_member(
    local: Btf, step: Step, target: Spec, type_id: int, tried: set[int]
) -> int | None:
    # The type of the member that has the step's name, also of one within an anonymous member.
    # The first of that name decides, fitting or not. No type is searched twice: types made to
    # harm could make that endless.
    btf = target.btf
    type_id, found = skip(btf, type_id)
    if not isinstance(found, _Composite) or type_id in tried:
        return None
    tried.add(type_id)
    for index, member in enumerate(found.members):
        if member.name and member.name != step.name:
            continue
        offset, length = target.bit_offset, target.length
        target.lengthen()
        target.forward(member.bit_offset)
        if member.name:
            outer = local.type(step.type_id)
            assert isinstance(outer, _Composite)
            wanted = outer.members[step.position].type_id
            if not _fields_fit(local, wanted, btf, member.type_id):
                return None
            target.steps.append(Step(type_id, index, member.name))
            return member.type_id
        inner = _match_member(local, step, target, member.type_id, tried)
        if inner is not None:
            return inner
        target.bit_offset, target.length = offset, length
    return None


def _fields_fit(local: Btf, local_id: int, btf: Btf, type_id: int) -> bool:
    """Whether a member can be read as one of another type.

    Structs and unions fit each other, as do pointers, floats, and integers of any size and sign.
    Enums and forward declarations fit when their names do or one has none; arrays by their
    elements, whatever their lengths.
    """
    for _ in range(MAX_DEPTH):
        _, ours = skip(local, local_id)
        _, theirs = skip(btf, type_id)
        if isinstance(ours, _Composite) and isinstance(theirs, _Composite):
            return True
        if not is_same_kind(ours, theirs):
            return False
        if isinstance(ours, t.Ptr | t.Float):
            return True
        if isinstance(ours, t.Enum | t.Fwd):
            one, other = essential(ours.name), essential(theirs.name)
            return not one or not other or one == other
        if isinstance(ours, t.Int) and isinstance(theirs, t.Int):
            return ours.offset == 0 and theirs.offset == 0
        if not isinstance(ours, t.Array) or not isinstance(theirs, t.Array):
            return False
        local_id, type_id = ours.type_id, theirs.type_id
    raise CoreError("arrays of arrays without end")


def are_compatible(
    local: Btf,
    local_id: int,
    btf: Btf,
    type_id: int,
    level: int = MAX_DEPTH,
    known: set[tuple[int, int]] | None = None,
) -> bool:
    """Whether two types of one name are alike enough to exist, to have a size and an id.

    Kinds have to be the same, of pointers and arrays those of what they lead to, of functions those
    of the result and of each parameter. Names, sizes, signs and members do not count.

    :param known: pairs of functions whose parameters are compatible, found on the way.
    :raises CoreError: they are nested too deep.
    """
    known = set() if known is None else known
    if not is_same_kind(local.type(local_id), btf.type(type_id)):
        return False
    for _ in range(MAX_DEPTH):
        local_id, ours = skip(local, local_id)
        type_id, theirs = skip(btf, type_id)
        if not is_same_kind(ours, theirs):
            return False
        if isinstance(ours, t.Void | t.Struct | t.Union | t.Enum | t.Fwd):
            return True
        if isinstance(ours, t.Int) and isinstance(theirs, t.Int):
            return ours.offset == 0 and theirs.offset == 0
        if isinstance(ours, t.FuncProto) and isinstance(theirs, t.FuncProto):
            if (local_id, type_id) in known:
                return True
            if len(ours.params) != len(theirs.params):
                return False
            for (_, one), (_, other) in zip(ours.params, theirs.params, strict=True):
                if level <= 0:
                    raise CoreError("functions of functions without end")
                one, _ = skip(local, one)
                other, _ = skip(btf, other)
                if not are_compatible(local, one, btf, other, level - 1, known):
                    return False
            # One that is not decides for all, so that these need not be looked at again.
            known.add((local_id, type_id))
        elif not isinstance(ours, t.Ptr | t.Array):
            return False
        assert isinstance(ours, t.FuncProto | t.Ptr | t.Array)
        assert isinstance(theirs, t.FuncProto | t.Ptr | t.Array)
        local_id, type_id = ours.type_id, theirs.type_id
    raise CoreError("pointers to pointers without end")


def matches(
    local: Btf,
    local_id: int,
    btf: Btf,
    type_id: int,
    behind: bool = False,
    level: int = MAX_DEPTH,
    known: dict[tuple[int, int, bool], bool] | None = None,
) -> bool:
    """Whether all that the program's type has is in the kernel's, with the same types.

    Integers have the same size and sign, arrays the same length, enums the same size and at least
    the program's names, structs at least its members. Behind a pointer only names and kinds of
    structs count, and a forward declaration stands for the struct.

    :param behind: whether there was a pointer on the way.
    :param known: what was found of pairs of structs and functions on the way.
    :raises CoreError: they are nested too deep.
    """
    known = {} if known is None else known
    if level <= 0:
        raise CoreError("types nested without end")
    for _ in range(MAX_DEPTH):
        local_id, ours = skip(local, local_id)
        type_id, theirs = skip(btf, type_id)
        if not _names_match(ours.name, theirs.name):
            return False
        if isinstance(ours, t.Fwd):
            if isinstance(theirs, t.Fwd):
                return ours.union == theirs.union
            return behind and isinstance(theirs, t.Union if ours.union else t.Struct)
        if isinstance(ours, t.Enum):
            return isinstance(theirs, t.Enum) and _enums_match(ours, theirs)
        if isinstance(ours, _Composite) and behind:
            if isinstance(theirs, t.Fwd):
                return theirs.union == isinstance(ours, t.Union)
            return ours.kind == theirs.kind
        if ours.kind != theirs.kind:
            return False
        if isinstance(ours, t.Void):
            return True
        if isinstance(ours, _Composite) and isinstance(theirs, _Composite):
            pair = local_id, type_id, behind
            if pair not in known:
                known[pair] = _members_match(local, ours, btf, theirs, level, known)
            return known[pair]
        if isinstance(ours, t.FuncProto) and isinstance(theirs, t.FuncProto):
            pair = local_id, type_id, behind
            if pair not in known:
                one = [*(p for _, p in ours.params), ours.type_id]
                other = [*(p for _, p in theirs.params), theirs.type_id]
                known[pair] = len(one) == len(other) and all(
                    matches(local, a, btf, b, behind, level - 1, known)
                    for a, b in zip(one, other, strict=True)
                )
            return known[pair]
        if isinstance(ours, t.Int) and isinstance(theirs, t.Int):
            return ours.size == theirs.size and ours.signed == theirs.signed
        if isinstance(ours, t.Array) and isinstance(theirs, t.Array):
            if ours.length != theirs.length:
                return False
        elif isinstance(ours, t.Ptr):
            behind = True
        else:
            return False
        assert isinstance(ours, t.Ptr | t.Array)
        assert isinstance(theirs, t.Ptr | t.Array)
        local_id, type_id = ours.type_id, theirs.type_id
    raise CoreError("pointers to pointers without end")


def _names_match(local: str, target: str) -> bool:
    return essential(local) == essential(target)


def _enums_match(local: t.Enum, target: t.Enum) -> bool:
    if local.size != target.size or len(local.values) > len(target.values):
        return False
    known = {essential(name) for name, _ in target.values}
    return all(essential(name) in known for name, _ in local.values)


def _members_match(
    local: Btf,
    ours: _Composite,
    btf: Btf,
    theirs: _Composite,
    level: int,
    known: dict[tuple[int, int, bool], bool],
) -> bool:
    if len(ours.members) > len(theirs.members):
        return False
    named: dict[str, list[t.Member]] = {}
    for other in theirs.members:
        named.setdefault(essential(other.name), []).append(other)
    return all(
        any(
            matches(local, member.type_id, btf, other.type_id, False, level - 1, known)
            for other in named.get(essential(member.name), ())
        )
        for member in ours.members
    )
