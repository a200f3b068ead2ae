"""The maps of an object file: definitions in ``.maps`` and data sections."""

from __future__ import annotations

import re
from dataclasses import replace

from netbpf.bpf import uapi
from netbpf.bpf.macros import BPF_OBJ_NAME_LEN
from netbpf.btf import types as t
from netbpf.btf.blob import Btf
from netbpf.elf.file import (
    SHF_EXECINSTR,
    SHT_NOBITS,
    SHT_PROGBITS,
    ElfFile,
    Section,
)
from netbpf.elf.spec import MapSpec

MAPS = ".maps"
_DATA = re.compile(r"\.(data|rodata|bss)(\..*)?$")
# bpf_helpers.h: enum libbpf_pin_type
_PIN_NONE = 0
_PIN_BY_NAME = 1
_DEPTH = 2

_NUMBERS = {
    "type": "type",
    "key_size": "key_size",
    "value_size": "value_size",
    "max_entries": "max_entries",
    "map_flags": "flags",
    "map_extra": "map_extra",
    "numa_node": "numa_node",
    "pinning": "pinning",
}


def is_data(section: Section) -> bool:
    """Whether a section holds variables of the program."""
    return (
        section.type in (SHT_PROGBITS, SHT_NOBITS)
        and not section.flags & SHF_EXECINSTR
        and bool(section.size)
        and _DATA.match(section.name) is not None
    )


def kernel_name(object_name: str, section: str) -> str:
    """What the map of a data section is called in the kernel, as libbpf calls it.

    ``.rodata`` of ``filter.o`` is ``filter.rodata``; ``.data.custom`` stays as it is.
    """
    room = BPF_OBJ_NAME_LEN - 1
    if "." in section[1:]:
        name = section[:room]
    else:
        suffix = section[:7]
        name = object_name[: room - max(len(suffix), 7)] + suffix
    return re.sub(r"[^A-Za-z0-9_.]", "_", name)


def data_maps(elf: ElfFile, btf: Btf | None, object_name: str) -> list[MapSpec]:
    """One array map of one element per data section."""
    maps: list[MapSpec] = []
    for section in elf.sections:
        if not is_data(section):
            continue
        type_id = btf.find(section.name, t.KIND_DATASEC) if btf is not None else None
        flags = uapi.BPF_F_RDONLY_PROG if section.name.startswith(".rodata") else 0
        # libbpf makes a section mappable when something in it is visible outside of its C file.
        if btf is not None and type_id is not None and _visible(btf, type_id):
            flags |= uapi.BPF_F_MMAPABLE
        if any(m.section == section.name for m in maps):
            raise elf.error("there are two sections of this name", section=section.name)
        name = kernel_name(object_name, section.name)
        if any(m.name == name for m in maps):
            # Equal only in the kernel's fifteen characters.
            name = section.name
        maps.append(
            MapSpec(
                name=name,
                type=uapi.BPF_MAP_TYPE_ARRAY,
                key_size=4,
                value_size=section.size,
                max_entries=1,
                flags=flags,
                value_type_id=type_id or 0,
                section=section.name,
                contents=elf.content(section),
            )
        )
    return maps


def _visible(btf: Btf, type_id: int) -> bool:
    section = btf.type(type_id)
    assert isinstance(section, t.DataSec)
    for variable in section.variables:
        found = btf.type(variable.type_id)
        if isinstance(found, t.Var) and found.linkage != t.LINKAGE_STATIC:
            return True
    return False


class MapReader:
    """Reads the definitions of ``.maps``."""

    def __init__(self, elf: ElfFile, btf: Btf | None) -> None:
        self._elf = elf
        self._btf = btf

    def read(self) -> tuple[list[MapSpec], dict[tuple[int, int], str]]:
        """The maps, and their names by (section index, offset)."""
        elf = self._elf
        for section in elf.sections:
            if section.name == "maps" or section.name.startswith("maps/"):
                raise elf.error(
                    "map definitions of the old kind (struct bpf_map_def)",
                    section=section.name,
                    hint='define the map with SEC(".maps"), as libbpf 1.0 and later want it',
                )
        section_ = elf.section(MAPS)
        if section_ is None or not section_.size:
            return [], {}
        if self._btf is None:
            raise elf.error(
                "maps need BTF, and the file has none", section=MAPS, hint="compile it with -g"
            )
        type_id = self._btf.find(MAPS, t.KIND_DATASEC)
        layout = self._btf.type(type_id) if type_id is not None else None
        if not isinstance(layout, t.DataSec):
            raise elf.error("the BTF says nothing of the maps", section=MAPS)
        maps: list[MapSpec] = []
        places: dict[tuple[int, int], str] = {}
        for variable in layout.variables:
            found = self._btf.type(variable.type_id)
            if not isinstance(found, t.Var):
                raise elf.error("something other than a variable", section=MAPS)
            if found.linkage != t.LINKAGE_GLOBAL:
                how = "static" if found.linkage == t.LINKAGE_STATIC else "only declared"
                raise elf.error(
                    f"map {found.name} is {how}",
                    section=MAPS,
                    hint="define it as a global variable",
                )
            if found.name in {m.name for m in maps}:
                raise elf.error(f"two maps are called {found.name}", section=MAPS)
            spec, values = self._definition(found.name, found.type_id, 0)
            if values is not None:
                start, end = variable.offset + values, variable.offset + variable.size
                spec = self._initial(spec, start, end, section_)
            maps.append(spec)
            places[section_.index, variable.offset] = spec.name
        return maps, places

    def _definition(self, name: str, type_id: int, depth: int) -> tuple[MapSpec, int | None]:
        """A map from its struct; also the byte offset of its initial values, if it may have any."""
        assert self._btf is not None
        btf = self._btf
        _, found = btf.resolve(type_id)
        if not isinstance(found, t.Struct):
            raise self._bad(name, "is no struct")
        if depth > _DEPTH:
            raise self._bad(name, "maps of maps of maps are not known")
        numbers: dict[str, int] = {}
        spec = MapSpec(name, 0, 0, 0, 0)
        values: int | None = None
        for member in found.members:
            if member.name in _NUMBERS:
                numbers[_NUMBERS[member.name]] = self._number(name, member)
            elif member.name in ("key", "value"):
                target = self._pointee(name, member)
                size = btf.size(target)
                if not size:
                    raise self._bad(name, f"its {member.name} has no size")
                if member.name == "key":
                    spec = replace(spec, key_type_id=target)
                else:
                    spec = replace(spec, value_type_id=target)
                known = numbers.setdefault(f"{member.name}_size", size)
                if known != size:
                    raise self._bad(
                        name, f"its {member.name} has {size} bytes, {member.name}_size says {known}"
                    )
            elif member.name == "values":
                values = member.offset
                inner = self._inner(name, member, depth)
                if inner is not None:
                    spec = replace(spec, inner=inner)
                    numbers.setdefault("value_size", 4)
            else:
                raise self._bad(name, f"attribute {member.name} is not known")
        pinning = numbers.pop("pinning", _PIN_NONE)
        if pinning not in (_PIN_NONE, _PIN_BY_NAME):
            raise self._bad(name, f"pinning {pinning} is not known")
        if not numbers.get("type"):
            raise self._bad(name, "it has no type")
        if values is not None and spec.inner is None:
            numbers.setdefault("value_size", 4)
        kind = numbers.pop("type")
        size_keys = ("key_size", "value_size", "max_entries")
        sizes = [numbers.pop(k, 0) for k in size_keys]
        return (
            replace(
                spec,
                type=kind,
                key_size=sizes[0],
                value_size=sizes[1],
                max_entries=sizes[2],
                pinned_by_name=pinning == _PIN_BY_NAME,
                flags=numbers.get("flags", 0),
                map_extra=numbers.get("map_extra", 0),
                numa_node=numbers.get("numa_node", 0),
            ),
            values,
        )

    def _number(self, name: str, member: t.Member) -> int:
        # __uint(max_entries, 10) is a pointer to an array of ten, __ulong an enum of one value.
        assert self._btf is not None
        _, found = self._btf.resolve(member.type_id)
        if isinstance(found, t.Enum) and len(found.values) == 1:
            return found.values[0][1]
        if isinstance(found, t.Ptr):
            _, array = self._btf.resolve(found.type_id)
            if isinstance(array, t.Array):
                return array.length
        raise self._bad(name, f"its {member.name} is not written with __uint or __ulong")

    def _pointee(self, name: str, member: t.Member) -> int:
        assert self._btf is not None
        _, found = self._btf.resolve(member.type_id)
        if not isinstance(found, t.Ptr):
            raise self._bad(name, f"its {member.name} is not written with __type")
        return found.type_id

    def _inner(self, name: str, member: t.Member, depth: int) -> MapSpec | None:
        # __array(values, struct inner) for maps of maps; an array of pointers to functions or to
        # void for a map of programs.
        assert self._btf is not None
        _, array = self._btf.resolve(member.type_id)
        if not isinstance(array, t.Array):
            raise self._bad(name, "its values are not written with __array")
        _, pointer = self._btf.resolve(array.type_id)
        if not isinstance(pointer, t.Ptr):
            raise self._bad(name, "its values are no pointers")
        target_id, target = self._btf.resolve(pointer.type_id)
        if isinstance(target, t.FuncProto | t.Void):
            return None
        inner, _ = self._definition(f"{name}.inner", target_id, depth + 1)
        if inner.pinned_by_name:
            raise self._bad(name, "the map inside of it cannot be pinned")
        return inner

    def _initial(self, spec: MapSpec, start: int, end: int, section: Section) -> MapSpec:
        # What ``.values = { [2] = &other }`` leaves behind: relocations at the struct's end.
        slots = []
        for rel in self._elf.relocations(section):
            if not start <= rel.offset < end:
                continue
            if (rel.offset - start) % 8 or not rel.symbol.name:
                raise self._bad(spec.name, "an initial value is no pointer to a map or program")
            slots.append(((rel.offset - start) // 8, rel.symbol.name))
        return replace(spec, slots=tuple(slots))

    def _bad(self, name: str, reason: str) -> Exception:
        return self._elf.error(f"map {name}: {reason}", section=MAPS)
