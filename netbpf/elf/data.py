"""Maps that hold variables: data sections, values of the configuration, arenas."""

from __future__ import annotations

import os

from netbpf.bpf import uapi
from netbpf.bpf.macros import BPF_OBJ_NAME_LEN
from netbpf.btf import types as t
from netbpf.btf.blob import Btf
from netbpf.elf.checks import named
from netbpf.elf.externs import KCONFIG
from netbpf.elf.file import SHF_EXECINSTR, SHT_NOBITS, SHT_PROGBITS, ElfFile, Section
from netbpf.elf.spec import Arena, Extern, MapSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# bpf_arena_common.h: __arena is address space 1, whose variables LLVM puts here.
ARENA = ".addr_space.1"
JUMP_TABLES = ".jumptables"


def is_data(section: Section) -> bool:
    """Whether a section holds variables of the program."""
    if not section.size:
        return False
    if section.type == SHT_NOBITS:
        return _is_one_of(section.name, ".bss")
    return (
        section.type == SHT_PROGBITS
        and not section.flags & SHF_EXECINSTR
        and _is_one_of(section.name, ".data", ".rodata")
    )


def _is_one_of(section: str, *names: str) -> bool:
    return section in names or section.startswith(tuple(f"{name}." for name in names))


def plain(name: str, others: str) -> str:
    """``name`` with ``_`` for all but letters and digits of ASCII and ``others``."""
    return "".join(c if (c.isascii() and c.isalnum()) or c in others else "_" for c in name)


def map_name(object_name: str, section: str) -> str:
    """What the map of a data section is called, as libbpf calls it.

    ``.rodata`` of ``filter.o`` is ``filter.rodata``; ``.data.custom`` stays as it is, also where it
    has more characters than the kernel takes, and others.
    """
    if "." in section[1:]:
        return section
    # Seven characters are kept for the section even where it has less, and more if it has.
    name = object_name[: BPF_OBJ_NAME_LEN - 1 - max(len(section), 7)] + section
    return plain(name, "_.")


def data_maps(elf: ElfFile, btf: Btf | None, object_name: str) -> list[MapSpec]:
    """One array map of one element per data section."""
    maps: list[MapSpec] = []
    taken: set[str] = set()
    layouts = named(btf, t.KIND_DATASEC) if btf is not None else {}
    for section in elf.sections:
        if not is_data(section):
            continue
        if section.size > 0xFFFFFFFF:
            raise elf.error(f"{section.size} bytes are too many", section=section.name)
        if section.name in taken:
            raise elf.error("there are two sections of this name", section=section.name)
        name = map_name(object_name, section.name)
        taken.add(section.name)
        maps.append(
            _array(
                name,
                section.name,
                elf.content(section),
                flags=uapi.BPF_F_RDONLY_PROG if section.name.startswith(".rodata") else 0,
                btf=btf,
                type_id=layouts.get(section.name, 0),
            )
        )
    return maps


def kconfig_map(btf: Btf | None, externs: Sequence[Extern], object_name: str) -> list[MapSpec]:
    """The map of the configuration's values, zeroes until a kernel is known; none without any."""
    values = [e for e in externs if e.section == KCONFIG]
    if not values or btf is None:
        return []
    return [
        _array(
            map_name(object_name, KCONFIG),
            KCONFIG,
            bytes(max(e.offset + e.size for e in values)),
            flags=uapi.BPF_F_RDONLY_PROG,
            btf=btf,
            type_id=btf.find(KCONFIG, t.KIND_DATASEC) or 0,
        )
    ]


def _array(
    name: str, section: str, contents: bytes, *, flags: int, btf: Btf | None, type_id: int
) -> MapSpec:
    # libbpf makes a section mappable when something in it is visible outside of its C file.
    if btf is not None and type_id and _visible(btf, type_id):
        flags |= uapi.BPF_F_MMAPABLE
    return MapSpec(
        name=name,
        type=uapi.BPF_MAP_TYPE_ARRAY,
        key_size=4,
        value_size=len(contents),
        max_entries=1,
        flags=flags,
        value_type_id=type_id,
        section=section,
        contents=contents,
    )


def _visible(btf: Btf, type_id: int) -> bool:
    section = btf.type(type_id)
    assert isinstance(section, t.DataSec)
    for variable in section.variables:
        found = btf.type(variable.type_id)
        if isinstance(found, t.Var) and found.linkage != t.LINKAGE_STATIC:
            return True
    return False


def read_arena(elf: ElfFile, btf: Btf | None, maps: Sequence[MapSpec]) -> Arena | None:
    """The initial image of the object's arena; None where no variable lies in one.

    :raises ObjectFileError: there is more than one arena, none for the variables, or a small one.
    """
    arenas = [m for m in maps if m.type == uapi.BPF_MAP_TYPE_ARENA]
    if len(arenas) > 1:
        raise elf.error(
            f"{arenas[0].name} and {arenas[1].name} are both arenas, an object has one at most",
            section=".maps",
        )
    section = elf.section(ARENA)
    if section is None or section.type != SHT_PROGBITS or not section.size:
        return None
    if not arenas:
        raise elf.error(
            "variables of an arena, and no arena for them",
            section=ARENA,
            hint='define a map of type BPF_MAP_TYPE_ARENA in SEC(".maps")',
        )
    pages = -(-section.size // os.sysconf("SC_PAGE_SIZE"))
    if pages > arenas[0].max_entries:
        raise elf.error(
            f"{section.size} bytes of variables, and {arenas[0].name} has {arenas[0].max_entries} "
            "pages",
            section=ARENA,
            hint=f"max_entries of an arena are pages: {pages} at least",
        )
    type_id = btf.find(ARENA, t.KIND_DATASEC) if btf is not None else None
    return Arena(arenas[0].name, ARENA, type_id or 0, elf.content(section))


def read_jump_tables(elf: ElfFile) -> bytes:
    """The offsets that ``switch`` statements jump to; empty where there are none."""
    section = elf.section(JUMP_TABLES)
    if section is None or section.type != SHT_PROGBITS:
        return b""
    if section.size % 8:
        raise elf.error(f"{section.size} bytes are no table of offsets", section=JUMP_TABLES)
    return elf.content(section)
