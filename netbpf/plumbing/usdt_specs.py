"""What programs at probes (USDT) read of ``__bpf_usdt_specs``, as their own types lay it out.

libbpf's usdt.bpf.h defines the map and how a program reads it: a ``struct __bpf_usdt_spec`` tells
where the arguments of a probe are, and what the program is to be told beside them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from netbpf.btf import types as t
from netbpf.btf.blob import Btf
from netbpf.elf.usdt_args import Argument

# bpf/usdt.bpf.h: enum __bpf_usdt_arg_type. The last came with libbpf 1.7, which also moved the
# members: 24 bytes for an argument where there were 16. A program that was compiled with an older
# one is told that the argument cannot be read (EINVAL).
_KINDS = {"const": 0, "reg": 1, "deref": 2, "sib": 3}
_ARGUMENTS = "args"
_MARK = "val_off"


def encode(btf: Btf, type_id: int, arguments: Sequence[Argument], cookie: int) -> bytes:
    """The spec of a place with these arguments. It is never all zeros: that is a free one.

    :param type_id: the type of the map's values in ``btf``.
    :raises ValueError: it is of another shape than libbpf's.
    """
    buffer = bytearray(btf.size(type_id))
    spec = _Struct(btf, type_id)
    spec.put(buffer, 0, "usdt_cookie", cookie)
    spec.put(buffer, 0, "arg_cnt", len(arguments))
    of_each, start, length = spec.array(_ARGUMENTS)
    if len(arguments) > length:
        raise ValueError(f"the probe has {len(arguments)} arguments, the program reads {length}")
    for number, argument in enumerate(arguments):
        _put(of_each, buffer, start + number * of_each.size, argument)
    if not any(buffer):
        # In an argument that is not there, so that nobody reads it.
        of_each.put(buffer, start, _MARK, 1)
    return bytes(buffer)


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


def _put(of_each: _Struct, buffer: bytearray, at: int, argument: Argument) -> None:
    of_each.put(buffer, at, _MARK, argument.value)
    of_each.put(buffer, at, "arg_type", _KINDS[argument.kind])
    of_each.put(buffer, at, "reg_off", argument.register)
    of_each.put(buffer, at, "arg_signed", int(argument.signed))
    of_each.put(buffer, at, "arg_bitshift", 64 - 8 * argument.size)
    if argument.kind == "sib" and "idx_reg_off" in of_each.members:
        of_each.put(buffer, at, "idx_reg_off", argument.index)
        of_each.put(buffer, at, "scale_bitshift", argument.shift)


class _Struct:
    """A struct whose members are numbers or an array, written bit by bit if need be."""

    def __init__(self, btf: Btf, type_id: int) -> None:
        _, found = btf.resolve(type_id)
        if not isinstance(found, t.Struct):
            raise ValueError("its values are no structs")
        self.size = btf.size(type_id)
        self.members = {member.name: member for member in found.members}
        self._btf = btf

    def put(self, buffer: bytearray, at: int, name: str, value: int) -> None:
        member = self._member(name)
        bits = member.bit_size or 8 * self._btf.size(member.type_id)
        # A bit field is counted from the lowest bit in little endian, from the highest in big.
        big = self._btf.byteorder == "big"
        shift = 8 * self.size - member.bit_offset - bits if big else member.bit_offset
        order: Literal["little", "big"] = "big" if big else "little"
        mask = (1 << bits) - 1
        whole = int.from_bytes(buffer[at : at + self.size], order)
        whole = whole & ~(mask << shift) | (value & mask) << shift
        buffer[at : at + self.size] = whole.to_bytes(self.size, order)

    def array(self, name: str) -> tuple[_Struct, int, int]:
        """The element of an array of structs, where it starts, and how many there are."""
        member = self._member(name)
        _, found = self._btf.resolve(member.type_id)
        if not isinstance(found, t.Array):
            raise ValueError(f"{name} is no array")
        return _Struct(self._btf, found.type_id), member.offset, found.length

    def _member(self, name: str) -> t.Member:
        if name not in self.members:
            raise ValueError(f"there is no member {name} in its values")
        return self.members[name]
