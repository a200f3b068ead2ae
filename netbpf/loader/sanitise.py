"""An object's BTF made fit for the kernel: externs placed, newer kinds in terms of older ones."""

from __future__ import annotations

from collections.abc import Collection

from netbpf.btf import types as t
from netbpf.btf.blob import Btf
from netbpf.btf.copy import Copy
from netbpf.elf.externs import KSYMS

_WORD = 4
_FLAG = 1 << 31
# struct btf_type has three words.
_REST = 3
_SHRUNK = {t.KIND_VAR: "btf_datasec", t.KIND_DECL_TAG: "btf_decl_tag"}


def placed(btf: Btf) -> Btf:
    """The BTF with a place for each name of ``.ksyms``, which the kernel would not take without.

    As libbpf has it: variables are ints, functions are one and the same int, and their parameters
    have names.
    """
    section_id = btf.find(KSYMS, t.KIND_DATASEC)
    section = btf.type(section_id) if section_id else None
    if section_id is None or not isinstance(section, t.DataSec):
        return btf
    copy = Copy(btf)
    int_id = _int(btf, copy)
    dummy = dummy_name = 0
    for number, place in enumerate(section.variables):
        at = _REST + 3 * number
        found = btf.type(place.type_id)
        if isinstance(found, t.Func):
            if not dummy:
                dummy_name = copy.string("dummy_ksym")
                dummy = copy.add((dummy_name, t.KIND_VAR << 24, int_id, t.LINKAGE_GLOBAL))
            proto = btf.type(found.type_id)
            assert isinstance(proto, t.FuncProto)
            for index, (name, type_id) in enumerate(proto.params):
                if type_id and not name:
                    copy.set(found.type_id, _REST + 2 * index, dummy_name)
            copy.set_head(place.type_id, t.KIND_FUNC, t.LINKAGE_GLOBAL)
            copy.set(section_id, at, dummy)
        elif isinstance(found, t.Var):
            copy.set(place.type_id, _REST, t.LINKAGE_GLOBAL)
            copy.set(place.type_id, 2, int_id)
        copy.set(section_id, at + 1, number * _WORD)
        copy.set(section_id, at + 2, _WORD)
    copy.set(section_id, 2, len(section.variables) * _WORD)
    return Btf.parse(bytes(copy))


def sanitised(btf: Btf, lacking: Collection[str]) -> Btf:
    """The BTF without what the kernel is ``lacking`` (names of netbpf/features.py).

    Ids, sizes and offsets stay as they are, so that all that refers to a type still can.
    """
    copy = Copy(btf)
    small = 0
    for type_id, found in btf:
        if _SHRUNK.get(found.kind) in lacking:
            # An int of one byte: a larger one might not fit where it is.
            copy.set_head(type_id, t.KIND_INT)
            copy.set(type_id, 2, 1)
            copy.set(type_id, _REST, 8)
        elif isinstance(found, t.DataSec):
            _section(btf, copy, type_id, found, lacking)
        elif isinstance(found, t.FuncProto) and "btf_func" in lacking:
            # A parameter takes as many words as an enumerator does.
            copy.set_head(type_id, t.KIND_ENUM, len(found.params))
            copy.set(type_id, 0, 0)
            copy.set(type_id, 2, _WORD)
            for index, (name, _) in enumerate(found.params):
                if not name:
                    copy.set(type_id, _REST + 2 * index, copy.string(f"unnamed_{index}"))
        elif isinstance(found, t.Func):
            if "btf_func" in lacking:
                copy.set_head(type_id, t.KIND_TYPEDEF)
            elif "btf_func_global" in lacking:
                copy.set_head(type_id, t.KIND_FUNC)
        elif isinstance(found, t.Float) and "btf_float" in lacking:
            copy.set_head(type_id, t.KIND_STRUCT)
            copy.set(type_id, 0, 0)
        elif isinstance(found, t.TypeTag) and "btf_type_tag" in lacking:
            copy.set_head(type_id, t.KIND_CONST)
            copy.set(type_id, 0, 0)
        elif isinstance(found, t.Enum) and "btf_enum64" in lacking:
            if found.kind == t.KIND_ENUM64:
                if not small:
                    small = copy.add((copy.string("enum64_placeholder"), t.KIND_INT << 24, 1, 8))
                # A value takes as many words as a member does.
                copy.set_head(type_id, t.KIND_UNION, len(found.values))
                for index in range(len(found.values)):
                    copy.set(type_id, _REST + 3 * index + 1, small)
                    copy.set(type_id, _REST + 3 * index + 2, 0)
            else:
                copy.set(type_id, 1, copy.word(type_id, 1) & ~_FLAG)
    return Btf.parse(bytes(copy))


def _section(
    btf: Btf, copy: Copy, type_id: int, found: t.DataSec, lacking: Collection[str]
) -> None:
    if "btf_datasec" in lacking:
        copy.set_head(type_id, t.KIND_STRUCT, len(found.variables))
        copy.set(type_id, 0, copy.string(_plain(found.name)))
        for index, variable in enumerate(found.variables):
            at = _REST + 3 * index
            # A struct's member is: name, type, offset in bits.
            copy.set(type_id, at, copy.word(variable.type_id, 0))
            copy.set(type_id, at + 1, variable.type_id)
            copy.set(type_id, at + 2, variable.offset * 8)
    elif "btf_section_names" in lacking and _plain(found.name, ".") != found.name:
        copy.set(type_id, 0, copy.string(_plain(found.name, ".")))


def _plain(name: str, also: str = "") -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c in "_" + also) else "_" for c in name)


def _int(btf: Btf, copy: Copy) -> int:
    for type_id, found in btf:
        if isinstance(found, t.Int) and found.size == _WORD and not found.offset:
            return type_id
    return copy.add((copy.string("int"), t.KIND_INT << 24, _WORD, t.INT_SIGNED << 24 | 32))
