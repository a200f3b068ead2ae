"""What programs at probes (USDT) read of ``__bpf_usdt_specs``, as their own types lay it out.

libbpf's usdt.bpf.h defines the map and how a program reads it: a ``struct __bpf_usdt_spec`` tells
where the arguments of a probe are, and what the program is to be told beside them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from netbpf.btf import types as t
from netbpf.btf.blob import Btf
from netbpf.btf.values import Values
from netbpf.elf.usdt_args import Argument

# bpf/usdt.bpf.h: enum __bpf_usdt_arg_type. The last came with libbpf 1.7, which also moved the
# members: 24 bytes for an argument where there were 16. A program that was compiled with an older
# one is told that the argument cannot be read (EINVAL).
_KINDS = {"const": 0, "reg": 1, "deref": 2, "sib": 3}
_SPEC = "struct __bpf_usdt_spec"
_UNSIGNED = (1 << 64) - 1


def encode(btf: Btf, type_id: int, arguments: Sequence[Argument], cookie: int) -> bytes:
    """The spec of a place with these arguments. It is never all zeros: that is a free one.

    :param type_id: the type of the map's values in ``btf``.
    :raises ValueError: it is of another shape than libbpf's. :raises TypeError: likewise.
    """
    values = Values(btf)
    _, argument = btf.resolve(values.step(type_id, ["args", 0], _SPEC)[0])
    members = {m.name for m in argument.members} if isinstance(argument, t.Struct) else set()
    buffer = bytearray(btf.size(type_id))
    spec = {
        "usdt_cookie": cookie & _UNSIGNED,
        "arg_cnt": len(arguments),
        "args": [_told(each, members) for each in arguments],
    }
    values.write(buffer, 0, type_id, spec, _SPEC)
    if not any(buffer):
        # In an argument that is not there, so that nobody reads it.
        values.write(buffer, 0, type_id, {"args": [{"val_off": 1}]}, _SPEC)
    return bytes(buffer)


def _told(argument: Argument, members: set[str]) -> dict[str, Any]:
    told = {
        "val_off": argument.value & _UNSIGNED,
        "arg_type": _KINDS[argument.kind],
        "reg_off": argument.register,
        "arg_signed": argument.signed,
        "arg_bitshift": 64 - 8 * argument.size,
    }
    if argument.kind == "sib" and "idx_reg_off" in members:
        told |= {"idx_reg_off": argument.index, "scale_bitshift": argument.shift}
    return told


def free(specs: Iterable[bytes | None], count: int) -> list[int]:
    """The numbers of the first ``count`` specs that nobody has taken; fewer if there are no more.

    :param specs: what the map holds.
    """
    found: list[int] = []
    for number, spec in enumerate(specs):
        if len(found) == count:
            break
        if spec is not None and not any(spec):
            found.append(number)
    return found
