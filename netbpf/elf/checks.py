"""The types of an object file, checked all at once: what they refer to has to be there.

They are decoded late and few at a time, and the kernel is given all of them. The rules are those
of libbpf (btf.c: btf_validate_type); the kernel has more.
"""

from __future__ import annotations

from netbpf.btf import types as t
from netbpf.btf.blob import Btf
from netbpf.btf.errors import BtfFormatError

# Of the words of each element that of its name and that of its type; None where it has none.
_ELEMENTS: dict[int, tuple[int, int | None, int | None]] = {
    t.KIND_STRUCT: (3, 0, 1),
    t.KIND_UNION: (3, 0, 1),
    t.KIND_ENUM: (2, 0, None),
    t.KIND_ENUM64: (3, 0, None),
    t.KIND_FUNC_PROTO: (2, 0, 1),
    t.KIND_DATASEC: (3, None, 0),
}
# The third word of these is the id of a type.
_REFERS = frozenset(
    {
        t.KIND_PTR,
        t.KIND_TYPEDEF,
        t.KIND_VOLATILE,
        t.KIND_CONST,
        t.KIND_RESTRICT,
        t.KIND_VAR,
        t.KIND_DECL_TAG,
        t.KIND_TYPE_TAG,
        t.KIND_FUNC,
        t.KIND_FUNC_PROTO,
    }
)


def named(btf: Btf, *kinds: int) -> dict[str, int]:
    """The first type of each name among those of ``kinds``: many are looked for in a file."""
    found: dict[str, int] = {}
    for type_id in sorted(i for kind in kinds for i in btf.ids_of_kind(kind)):
        found.setdefault(btf.type(type_id).name, type_id)
    return found


def check_types(btf: Btf) -> None:
    """Look at each type of ``btf``, once.

    :raises BtfFormatError: one refers to a type or to a name that is not there.
    """
    start, _ = btf.header.types
    words = btf.words
    strings, count = btf.header.strings[1], len(btf)
    at = 0
    for type_id in range(1, count):
        end = (btf.position(type_id + 1) - start) // 4 if type_id + 1 < count else len(words)
        kind = words[at + 1] >> 24 & 0x7F
        if words[at] >= strings:
            raise _no_name(type_id, words[at])
        if kind in _REFERS:
            _check_id(type_id, words[at + 2], count)
            if kind == t.KIND_FUNC and btf.kind(words[at + 2]) != t.KIND_FUNC_PROTO:
                raise BtfFormatError(f"type {type_id}: a function without a prototype")
        if kind == t.KIND_ARRAY:
            _check_id(type_id, words[at + 3], count)
            _check_id(type_id, words[at + 4], count)
        elif kind in _ELEMENTS and end > at + 3:
            step, name, type_ = _ELEMENTS[kind]
            if name is not None:
                worst = max(words[at + 3 + name : end : step])
                if worst >= strings:
                    raise _no_name(type_id, worst)
            if type_ is not None:
                _check_id(type_id, max(words[at + 3 + type_ : end : step]), count)
        at = end


def _check_id(type_id: int, wanted: int, count: int) -> None:
    if wanted >= count:
        raise BtfFormatError(f"type {type_id} refers to type {wanted}, which is not there")


def _no_name(type_id: int, offset: int) -> BtfFormatError:
    return BtfFormatError(f"type {type_id}: string offset {offset} lies outside of the strings")
