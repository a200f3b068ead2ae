"""Structs of the kernel that are made of programs: ``.struct_ops`` and ``.struct_ops.link``."""

from __future__ import annotations

from netbpf.bpf import uapi
from netbpf.btf import types as t
from netbpf.btf.blob import Btf
from netbpf.elf.file import SHT_PROGBITS, ElfFile, Rel, Section
from netbpf.elf.spec import MapSpec, ProgramSpec, StructOps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_SECTIONS = (".struct_ops", ".struct_ops.link")


class StructOpsReader:
    """Reads the variables of those sections as maps.

    :param programs: the object's programs by (section index, offset).
    """

    def __init__(
        self, elf: ElfFile, btf: Btf | None, programs: Mapping[tuple[int, int], ProgramSpec]
    ) -> None:
        self._elf = elf
        self._btf = btf
        self._programs = programs

    def read(self) -> list[MapSpec]:
        """One map for each variable.

        :raises ObjectFileError: a variable is no such struct, or points to no such program.
        """
        maps: list[MapSpec] = []
        for section in self._elf.sections:
            name = section.name.removeprefix("?")
            if name in _SECTIONS and section.type == SHT_PROGBITS and section.size:
                maps += self._section(section)
        return maps

    def _section(self, section: Section) -> list[MapSpec]:
        elf, btf = self._elf, self._btf
        if btf is None:
            raise elf.error("it needs BTF", section=section.name, hint="compile it with -g")
        type_id = btf.find(section.name, t.KIND_DATASEC)
        layout = btf.type(type_id) if type_id is not None else None
        if not isinstance(layout, t.DataSec):
            raise elf.error("the BTF says nothing of it", section=section.name)
        content = elf.content(section)
        relocations = elf.relocations(section)
        used = 0
        maps = []
        for place in layout.variables:
            variable = btf.type(place.type_id)
            assert isinstance(variable, t.Var)
            struct_id, found = btf.resolve(variable.type_id)
            if not isinstance(found, t.Struct) or not found.name or not variable.name:
                raise elf.error(
                    f"{variable.name or 'a variable'} is of no struct with a name",
                    section=section.name,
                )
            end = place.offset + found.size
            if end > len(content):
                raise elf.error(f"{variable.name} ends outside of it", section=section.name)
            inside = [r for r in relocations if place.offset <= r.offset < end]
            used += len(inside)
            programs = tuple(
                self._program(section, variable, found, r, r.offset - place.offset) for r in inside
            )
            data = content[place.offset : end]
            maps.append(self._map(section, variable, struct_id, found, data, programs))
        if used < len(relocations):
            raise elf.error("a pointer lies in no variable of it", section=section.name)
        return maps

    def _map(
        self,
        section: Section,
        variable: t.Var,
        struct_id: int,
        found: t.Struct,
        data: bytes,
        programs: tuple[tuple[str, int, str], ...],
    ) -> MapSpec:
        link = section.name.endswith(".link")
        return MapSpec(
            name=variable.name,
            type=uapi.BPF_MAP_TYPE_STRUCT_OPS,
            key_size=4,
            value_size=found.size,
            max_entries=1,
            flags=uapi.BPF_F_LINK if link else 0,
            value_type_id=struct_id,
            autocreate=not section.name.startswith("?"),
            struct_ops=StructOps(
                section=section.name.removeprefix("?"),
                type_name=found.name,
                type_id=struct_id,
                data=data,
                programs=programs,
                link=link,
            ),
        )

    def _program(
        self, section: Section, variable: t.Var, found: t.Struct, rel: Rel, offset: int
    ) -> tuple[str, int, str]:
        elf, btf = self._elf, self._btf
        assert btf is not None
        member = next((m for m in found.members if m.bit_offset == offset * 8), None)
        if member is None:
            raise elf.error(
                f"{variable.name}: struct {found.name} has no member at {offset}",
                section=section.name,
            )
        _, pointer = btf.resolve(member.type_id)
        target = btf.resolve(pointer.type_id)[1] if isinstance(pointer, t.Ptr) else None
        if not isinstance(target, t.FuncProto):
            raise elf.error(
                f"{variable.name}: member {member.name} is no pointer to a function",
                section=section.name,
            )
        program = self._programs.get((rel.symbol.section, rel.symbol.value))
        if program is None or program.type != uapi.BPF_PROG_TYPE_STRUCT_OPS:
            raise elf.error(
                f"{variable.name}: {elf.name_of(rel.symbol)} for member {member.name} is no "
                "program of type struct_ops",
                section=section.name,
                hint=f'write SEC("struct_ops/{member.name}")',
            )
        return member.name, offset, program.name
