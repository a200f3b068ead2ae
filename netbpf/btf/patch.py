"""Writing into a copy of a BTF blob what a compiler leaves to the loader."""

from __future__ import annotations

import struct

from netbpf.btf import types as t
from netbpf.btf.blob import Btf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


def patched(
    btf: Btf,
    *,
    datasecs: Mapping[int, tuple[int, Mapping[int, int]]] | None = None,
    linkages: Mapping[int, int] | None = None,
) -> bytes:
    """A copy of the blob with some types corrected; the ids stay as they are.

    :param datasecs: by the id of a DATASEC: its size in bytes, and the offsets of its variables
        by their VAR ids where they are other than the blob says. They come out sorted by offset,
        as the kernel wants them (kernel/bpf/btf.c: btf_datasec_check_meta).
    :param linkages: by the id of a FUNC or VAR: its linkage.
    """
    data = bytearray(btf.data)
    prefix = "<" if btf.byteorder == "little" else ">"
    for type_id, (size, offsets) in (datasecs or {}).items():
        found = btf.type(type_id)
        if not isinstance(found, t.DataSec):
            raise ValueError(f"type {type_id} is no DATASEC")
        at = btf.position(type_id)
        struct.pack_into(prefix + "I", data, at + 8, size)
        variables = [
            (offsets.get(v.type_id, v.offset), number, v)
            for number, v in enumerate(found.variables)
        ]
        for place, (offset, _, variable) in enumerate(sorted(variables, key=lambda v: v[:2])):
            struct.pack_into(
                prefix + "3I",
                data,
                at + 12 + 12 * place,
                variable.type_id,
                offset,
                variable.size,
            )
    for type_id, linkage in (linkages or {}).items():
        at = btf.position(type_id)
        if isinstance(btf.type(type_id), t.Func):
            struct.pack_into(prefix + "I", data, at + 4, t.KIND_FUNC << 24 | linkage)
        elif isinstance(btf.type(type_id), t.Var):
            struct.pack_into(prefix + "I", data, at + 12, linkage)
        else:
            raise ValueError(f"type {type_id} has no linkage")
    return bytes(data)
