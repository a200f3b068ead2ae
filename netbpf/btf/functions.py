"""Functions that trampolines can be put around, by what their types tell."""

from __future__ import annotations

import fnmatch

from netbpf.btf import types as t
from netbpf.btf.blob import Btf
from netbpf.btf.errors import BtfFormatError

# kernel/bpf/btf.c: btf_distill_func_proto; 16 bytes are what two registers hold.
_MAX_ARGUMENTS = 12
_MAX_SIZE = 16


def matching(btf: Btf, pattern: str) -> dict[str, int]:
    """The ids of such functions by name, for names that fit the pattern (``*`` and ``?``)."""
    found: dict[str, int] = {}
    for type_id in btf.ids_of_kind(t.KIND_FUNC):
        function = btf.type(type_id)
        if fnmatch.fnmatchcase(function.name, pattern) and _traceable(btf, function):
            found.setdefault(function.name, type_id)
    return found


def _traceable(btf: Btf, function: t.Type) -> bool:
    if not isinstance(function, t.Func):
        return False
    _, proto = btf.resolve(function.type_id)
    if not isinstance(proto, t.FuncProto) or len(proto.params) > _MAX_ARGUMENTS:
        return False
    _, returned = btf.resolve(proto.type_id)
    if not isinstance(returned, t.Void | t.Int | t.Enum | t.Ptr):
        return False
    # Of variable arguments the last has no type.
    return all(0 < _size(btf, type_id) <= _MAX_SIZE for _, type_id in proto.params)


def _size(btf: Btf, type_id: int) -> int:
    """The size of what can be an argument, 0 of anything else."""
    _, found = btf.resolve(type_id)
    if not isinstance(found, t.Int | t.Enum | t.Ptr | t.Struct | t.Union):
        return 0
    try:
        return btf.size(type_id)
    except BtfFormatError:
        return 0
