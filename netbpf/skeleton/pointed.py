"""The structs and unions that pointers into an arena lead to."""

from __future__ import annotations

from collections.abc import Iterable

from netbpf.btf import types as t
from netbpf.btf.blob import Btf

# libbpf's bpf_helpers.h: __kptr, __percpu_kptr and so on mark pointers to what is the kernel's.
_ELSEWHERE = frozenset({"kptr", "kptr_untrusted", "percpu", "percpu_kptr", "rcu", "uptr", "user"})


def pointed(btf: Btf, roots: Iterable[int]) -> list[int]:
    """What is behind the pointers in values of the types ``roots``, by rising id.

    BTF does not tell pointers into an arena from others, but for those that are marked. A struct
    without a name is given by way of its typedef, after which it is called.
    """
    found: dict[int, int] = {}
    pending = list(roots)
    seen = set(pending)
    while pending:
        match btf.type(pending.pop()):
            case t.Struct(members=members) | t.Union(members=members):
                below = [member.type_id for member in members]
            case t.Ptr(type_id=type_id):
                below = [type_id] if not _elsewhere(btf, type_id) else []
                target, kind = btf.resolve(type_id)
                if below and isinstance(kind, t.Struct | t.Union):
                    found[target] = max(type_id, found.get(target, 0))
            case t.Typedef() | t.Qualifier() | t.TypeTag() | t.Array() as kind:
                below = [kind.type_id]
            case _:
                below = []
        pending += [i for i in below if i not in seen]
        seen.update(below)
    return sorted(found.values())


def _elsewhere(btf: Btf, type_id: int) -> bool:
    kind = btf.type(type_id)
    return isinstance(kind, t.TypeTag) and kind.name in _ELSEWHERE
