"""Structs of the kernel that are made of programs: fitted to the kernel's own definition."""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping

from netbpf.bpf import map as bpf_map
from netbpf.bpf.map import Map
from netbpf.btf import types as t
from netbpf.btf.blob import Btf
from netbpf.btf.core_spec import essential, is_same_kind
from netbpf.elf.spec import MapSpec, ObjectSpec
from netbpf.errors import ObjectFileError
from netbpf.loader import externs
from netbpf.loader.kernel_types import KernelTypes
from netbpf.records import field, record

# kernel/bpf/bpf_struct_ops.c: the value of the map holds the struct behind a head of its own.
_VALUE_PREFIX = "bpf_struct_ops_"


@record(slots=True)
class Fitted:
    """A struct as this kernel has it.

    ``type_id`` is the struct's, ``value_type_id`` that of the map's value, whose bytes ``value``
    is; both are of the kernel or of ``module``. ``programs`` says of each program the offset of
    its member in the value, and the member's number.
    """

    type_id: int
    value_type_id: int
    module: str
    value: bytearray = field(repr=False)
    programs: dict[str, list[tuple[int, int]]] = field(default_factory=dict)


def fit(spec: ObjectSpec, made: MapSpec, data: bytes, types: KernelTypes) -> Fitted:
    """Lay the struct ``data`` of a map out as the kernel has it, members found by their names.

    A member that the kernel has not is left out as long as it is all zeroes and no program, as
    libbpf has it.

    :raises ObjectFileError: the kernel has no such struct or member, or another of that name.
    """
    ours, local = made.struct_ops, spec.btf
    assert ours is not None and local is not None
    name = essential(ours.type_name)
    there = externs.search(types, name, t.KIND_STRUCT)
    if there is None:
        raise _refused(spec, made, f"this kernel has no struct {name}")
    module, btf, type_id = there
    outer = externs.search(types, _VALUE_PREFIX + name, t.KIND_STRUCT, module or "vmlinux")
    if outer is None:
        raise _refused(spec, made, f"struct {name} of this kernel cannot be made of programs")
    value_type = btf.type(outer[2])
    assert isinstance(value_type, t.Struct)
    inside = next((m for m in value_type.members if m.type_id == type_id), None)
    if inside is None:
        raise _refused(spec, made, f"struct {_VALUE_PREFIX}{name} of this kernel holds none")
    found = Fitted(type_id, outer[2], module, bytearray(value_type.size))
    mine, theirs = local.type(ours.type_id), btf.type(type_id)
    assert isinstance(mine, t.Struct) and isinstance(theirs, t.Struct)
    numbers = {m.name: (number, m) for number, m in enumerate(theirs.members)}
    programs = {offset: program for _, offset, program in ours.programs}
    for member in mine.members:
        number, target = numbers.get(member.name, (0, None))
        content = data[member.offset : member.offset + local.size(member.type_id)]
        program = programs.get(member.offset)
        if target is None:
            if program is not None or any(content):
                raise _lacking(spec, made, name, member, program)
            continue
        _member(spec, made, (local, member), (btf, target), program)
        at = inside.offset + target.offset
        if program is not None:
            found.programs.setdefault(program, []).append((at, number))
        elif isinstance(local.resolve(member.type_id)[1], t.Ptr):
            if any(content):
                raise _refused(spec, made, f"member {member.name} points to no program")
        else:
            found.value[at : at + len(content)] = content
    return found


def _lacking(
    spec: ObjectSpec, made: MapSpec, name: str, member: t.Member, program: str | None
) -> ObjectFileError:
    what = f"program {program}" if program is not None else "the value there"
    return _refused(
        spec,
        made,
        f"struct {name} of this kernel has no member {member.name}, which {what} is for",
        hint="leave it zero, or make a struct without it for this kernel",
    )


def _member(
    spec: ObjectSpec,
    made: MapSpec,
    ours: tuple[Btf, t.Member],
    theirs: tuple[Btf, t.Member],
    program: str | None,
) -> None:
    local, member = ours
    btf, target = theirs
    if member.bit_size or target.bit_size:
        raise _refused(spec, made, f"member {member.name} is a bit field")
    mine, other = local.resolve(member.type_id)[1], btf.resolve(target.type_id)[1]
    if not is_same_kind(mine, other):
        raise _refused(spec, made, f"member {member.name} is of another kind in this kernel")
    if isinstance(mine, t.Ptr) and isinstance(other, t.Ptr):
        if program and not isinstance(btf.resolve(other.type_id)[1], t.FuncProto):
            raise _refused(spec, made, f"member {member.name} is no function in this kernel")
        return
    sizes = local.size(member.type_id), btf.size(target.type_id)
    if sizes[0] != sizes[1]:
        raise _refused(
            spec,
            made,
            f"member {member.name} has {sizes[0]} bytes, and {sizes[1]} in this kernel",
        )


def create(made: MapSpec, fitted: Fitted, btf_fd: int, module_fd: int) -> Map:
    """Create the map; ``module_fd`` is of the module's types where it is one's struct.

    :raises BpfError: the kernel refused.

    Since Linux 5.6 (kernel/bpf/bpf_struct_ops.c: bpf_struct_ops_map_alloc).
    """
    return bpf_map.create(
        made.type,
        key_size=made.key_size,
        value_size=len(fitted.value),
        max_entries=made.max_entries,
        flags=made.flags,
        name=made.name,
        btf_fd=btf_fd,
        btf_vmlinux_value_type_id=fitted.value_type_id,
        value_type_btf_fd=module_fd,
    )


def value(fitted: Fitted, programs: Mapping[str, int]) -> bytes:
    """The map's value, with the descriptors of ``programs`` in their members."""
    made = bytearray(fitted.value)
    for name, places in fitted.programs.items():
        for at, _ in places:
            struct.pack_into("=Q", made, at, programs[name])
    return bytes(made)


def members(
    spec: ObjectSpec, fitted: Mapping[str, Fitted], programs: Collection[str]
) -> dict[str, tuple[str, int]]:
    """The map and the number of the member that each of ``programs`` stands for.

    :raises ObjectFileError: one stands for none, or for two different ones.
    """
    found: dict[str, tuple[str, int]] = {}
    for name, each in fitted.items():
        for program, places in each.programs.items():
            for _, number in places:
                known = found.setdefault(program, (name, number))
                if (fitted[known[0]].type_id, known[1]) != (each.type_id, number):
                    raise ObjectFileError(
                        spec.path,
                        f"program {program} stands for two different members: in {known[0]} and "
                        f"in {name}",
                        section=spec.program(program).section,
                    )
    for program in programs:
        if program not in found:
            raise ObjectFileError(
                spec.path,
                f"program {program}: no struct to be made names it",
                section=spec.program(program).section,
                hint='put it into a member of a variable in SEC(".struct_ops.link")',
            )
    return found


def _refused(
    spec: ObjectSpec, made: MapSpec, reason: str, hint: str | None = None
) -> ObjectFileError:
    assert made.struct_ops is not None
    return ObjectFileError(
        spec.path, f"{made.name}: {reason}", section=made.struct_ops.section, hint=hint
    )
