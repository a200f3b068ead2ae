"""Where a program's indirect jumps may lead: each jump table in a map of the program's own."""

from __future__ import annotations

import errno
import struct

from netbpf.bpf import map as bpf_map
from netbpf.bpf import uapi
from netbpf.bpf.macros import BPF_INSN_SIZE, BPF_PSEUDO_MAP_VALUE
from netbpf.bpf.map import Map
from netbpf.closing import Several
from netbpf.elf.data import JUMP_TABLES
from netbpf.elf.spec import Function, ObjectSpec, ProgramSpec, Relocation
from netbpf.errors import BpfError, NotSupportedError, ObjectFileError
from netbpf.loader import relocate
from netbpf.loader.relocate import Linked
from netbpf.records import record, replace

_OFFSET_SIZE = 8
# include/uapi/linux/bpf.h: struct bpf_insn_array_value. All but the first the kernel fills in.
_VALUE = struct.Struct("=4I")


@record(slots=True, frozen=True)
class Table:
    """A jump table of a program that has been put together.

    ``entries`` are instructions of the whole program by number; ``uses`` are the places, in bytes,
    where the program loads the table's address.
    """

    entries: tuple[int, ...]
    uses: tuple[int, ...]


def put(spec: ObjectSpec, program: ProgramSpec, linked: Linked, made: Several) -> Linked:
    """Create the maps of the program's jump tables; ``linked`` with their descriptors in it.

    :param made: gets the maps. Once it is loaded the program holds them itself.
    :raises ObjectFileError: a table is malformed, or leads out of its function.
    :raises NotSupportedError: the kernel knows no such maps. :raises BpfError: it refused.

    Since Linux 6.19 (kernel/bpf/bpf_insn_array.c: insn_array_alloc).
    """
    code = bytearray(linked.insns)
    for table in find(spec, program, linked):
        slots = made.add(_create(program, len(table.entries)))
        for index, entry in enumerate(table.entries):
            slots.update(struct.pack("=I", index), _VALUE.pack(entry, 0, 0, 0))
        # The verifier takes none that could still change (bpf_insn_array_init).
        slots.freeze()
        for at in table.uses:
            relocate.write_address(code, at, BPF_PSEUDO_MAP_VALUE, slots.fileno(), 0)
    return replace(linked, insns=bytes(code))


def find(spec: ObjectSpec, program: ProgramSpec, linked: Linked) -> tuple[Table, ...]:
    """The jump tables of the program and of its sub-programs, as ``linked`` has them placed.

    :raises ObjectFileError: a table is malformed, or leads out of its function.
    """
    found: dict[tuple[int, int, int], tuple[tuple[int, ...], list[int]]] = {}
    for part in relocate.functions(spec, program):
        start = linked.starts[part.key]
        for relocation in part.relocations:
            if relocation.kind != "jump_table":
                continue
            key = (*part.key, relocation.value)
            if key not in found:
                found[key] = _entries(spec, program, part, relocation, start), []
            found[key][1].append(start + relocation.offset)
    return tuple(Table(entries, tuple(uses)) for entries, uses in found.values())


def _entries(
    spec: ObjectSpec, program: ProgramSpec, part: Function, relocation: Relocation, start: int
) -> tuple[int, ...]:
    at, size = relocation.value, relocation.size
    if at % _OFFSET_SIZE or size % _OFFSET_SIZE or not size:
        raise _refused(spec, program, part, f"{size} bytes at {at} are no table of offsets")
    entries = []
    # Offsets count from where the function's section starts in the file.
    order = "<" if spec.byteorder == "little" else ">"
    for (target,) in struct.iter_unpack(f"{order}Q", spec.jump_tables[at : at + size]):
        inside = target - part.offset
        if inside % BPF_INSN_SIZE or not 0 <= inside < len(part.insns):
            raise _refused(spec, program, part, f"its table at {at} leads out of it, to {target}")
        entries.append((start + inside) // BPF_INSN_SIZE)
    return tuple(entries)


def _refused(
    spec: ObjectSpec, program: ProgramSpec, part: Function, reason: str
) -> ObjectFileError:
    return ObjectFileError(
        spec.path,
        f"program {program.name}: function {part.name} jumps by a table, and {reason}",
        section=JUMP_TABLES,
    )


def _create(program: ProgramSpec, entries: int) -> Map:
    try:
        return bpf_map.create(
            uapi.BPF_MAP_TYPE_INSN_ARRAY,
            key_size=4,
            value_size=_VALUE.size,
            max_entries=entries,
            name=JUMP_TABLES,
        )
    except BpfError as error:
        # With these sizes nothing but the type of map can be wrong.
        if error.errno != errno.EINVAL:
            raise
        raise NotSupportedError(
            f"a jump by a table (gotox, in program {program.name})",
            since="6.19",
            hint="a switch goes without when it is compiled with -fno-jump-tables or -mcpu=v3",
        ) from error
