"""Functions of an object file, and what their instructions refer to."""

from __future__ import annotations

import struct
from bisect import bisect_left

from netbpf.bpf.macros import BPF_INSN_SIZE, BPF_JMP_CALL, BPF_LD_IMM64, BPF_PSEUDO_CALL
from netbpf.btf.ext import CoreRelo, FuncInfo, LineInfo
from netbpf.elf.ext import Ext
from netbpf.elf.file import (
    SHN_LORESERVE,
    SHN_UNDEF,
    STB_LOCAL,
    STB_WEAK,
    STT_FUNC,
    STT_SECTION,
    ElfFile,
    Rel,
    Section,
    Symbol,
)
from netbpf.elf.sections import meaning
from netbpf.elf.spec import Function, ProgramSpec, Relocation
from netbpf.records import record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from netbpf.elf.spec import Binding

TEXT = ".text"
# Relocation types of instructions (LLVM: BinaryFormat/ELFRelocs/BPF.def).
R_BPF_64_64 = 1
R_BPF_64_32 = 10


@record(slots=True, frozen=True)
class Targets:
    """What instructions may refer to.

    ``maps`` by (section index, offset) and ``data`` sections by index: the names that relocations
    call them; ``externs`` by name; of an ``arena`` the index of its section and the map's name; of
    the ``jump_tables`` the index.
    """

    maps: Mapping[tuple[int, int], str]
    data: Mapping[int, str]
    externs: frozenset[str]
    arena: tuple[int, str] | None = None
    jump_tables: int = 0


def entry_points(elf: ElfFile) -> dict[tuple[int, int], str]:
    """The programs by (section index, offset): global functions outside of .text."""
    found: dict[tuple[int, int], str] = {}
    for section in elf.sections:
        if section.executable and section.size and section.name != TEXT:
            for symbol in elf.functions.get(section.index, ()):
                if symbol.bind != STB_LOCAL:
                    found.setdefault((section.index, symbol.value), symbol.name)
    return found


class FunctionReader:
    """Reads all functions of a file."""

    def __init__(
        self, elf: ElfFile, targets: Targets, ext: Ext, callbacks: Mapping[str, str]
    ) -> None:
        self._elf = elf
        self._targets = targets
        self._ext = ext
        self._callbacks = callbacks

    def read(self) -> tuple[list[ProgramSpec], dict[tuple[int, int], Function]]:
        """The programs, and the functions that programs call, by where they stand."""
        programs: dict[str, ProgramSpec] = {}
        functions: dict[tuple[int, int], Function] = {}
        for section in self._elf.sections:
            if not section.executable or not section.size:
                continue
            for function in self._section(section):
                functions.setdefault(function.key, function)
                # libbpf lets sub-programs lie in .text only; here they may lie anywhere.
                if section.name == TEXT or function.binding == "static":
                    continue
                if function.name in programs:
                    raise self._elf.error(f"two programs are called {function.name}")
                callback = self._callbacks.get(function.name, "")
                programs[function.name] = _program(function, callback)
        return list(programs.values()), functions

    def _section(self, section: Section) -> list[Function]:
        elf = self._elf
        content = elf.content(section)
        if len(content) % BPF_INSN_SIZE:
            raise elf.error("the last instruction is cut off", section=section.name)
        symbols = elf.functions.get(section.index, [])
        for symbol in symbols:
            self._check(section, symbol)
        relocations = elf.relocations(section)
        offsets = [r.offset for r in relocations]
        lines, cores, infos = self._ext.of(section)
        found: list[Function] = []
        for symbol in symbols:
            start, end = symbol.value, symbol.value + symbol.size
            binding = _binding(symbol)
            if found and start < found[-1].offset + len(found[-1].insns):
                if start > found[-1].offset or end != start + len(found[-1].insns):
                    raise elf.error(
                        f"functions {found[-1].name} and {symbol.name} overlap",
                        section=section.name,
                    )
                # Two names of one function.
                found.append(
                    replace(found[-1], name=symbol.name, binding=binding, hidden=symbol.hidden)
                )
                continue
            insns = content[start:end]
            named = [
                self._relocation(section, content, symbol, r)
                for r in relocations[bisect_left(offsets, start) : bisect_left(offsets, end)]
            ]
            known = {r.offset for r in named}
            if len(known) < len(named):
                raise elf.error(
                    f"function {symbol.name} has two relocations at one place",
                    section=section.name,
                )
            named += self._direct_calls(section, symbol, insns, known)
            info = bisect_left(infos, start, key=_offset)
            found.append(
                Function(
                    name=symbol.name,
                    section=section.name,
                    section_index=section.index,
                    offset=start,
                    insns=insns,
                    relocations=tuple(sorted(named, key=_offset)),
                    info=infos[info] if info < len(infos) and infos[info].offset == start else None,
                    lines=tuple(
                        LineInfo(i.offset - start, i.file_name, i.line, i.line_column)
                        for i in lines[
                            bisect_left(lines, start, key=_offset) : bisect_left(
                                lines, end, key=_offset
                            )
                        ]
                    ),
                    core=tuple(
                        replace(i, offset=i.offset - start)
                        for i in cores[
                            bisect_left(cores, start, key=_offset) : bisect_left(
                                cores, end, key=_offset
                            )
                        ]
                    ),
                    binding=binding,
                    hidden=symbol.hidden,
                )
            )
        return found

    def _check(self, section: Section, symbol: Symbol) -> None:
        elf = self._elf
        if not symbol.name:
            raise elf.error(f"the function at {symbol.value} has no name", section=section.name)
        if symbol.value % BPF_INSN_SIZE or not symbol.size or symbol.size % BPF_INSN_SIZE:
            raise elf.error(
                f"function {symbol.name} is no whole number of instructions",
                section=section.name,
            )
        if symbol.value + symbol.size > section.size:
            raise elf.error(
                f"function {symbol.name} ends outside of its section", section=section.name
            )

    def _relocation(
        self, section: Section, content: bytes, function: Symbol, rel: Rel
    ) -> Relocation:
        elf = self._elf
        symbol = rel.symbol
        name = elf.name_of(symbol)
        at = rel.offset - function.value
        if rel.offset % BPF_INSN_SIZE:
            raise elf.error(
                f"relocation at {rel.offset}, inside of an instruction", section=section.name
            )
        code = content[rel.offset]
        order = "<" if elf.byteorder == "little" else ">"
        registers, imm = struct.unpack_from(order + "xB2xi", content, rel.offset)
        if rel.type not in (R_BPF_64_64, R_BPF_64_32):
            raise elf.error(
                f"relocation type {rel.type} towards {name} is not known", section=section.name
            )
        wide = code == BPF_LD_IMM64 and at + 2 * BPF_INSN_SIZE <= function.size
        if code != BPF_JMP_CALL and not wide:
            raise elf.error(
                f"relocation towards {name} at an instruction of code {code:#x}",
                section=section.name,
            )
        if symbol.section == SHN_UNDEF:
            if symbol.name not in self._targets.externs:
                raise elf.error(f"relocation towards {name or 'nothing'}", section=section.name)
            return Relocation(at, "extern", symbol.name)
        if symbol.section >= SHN_LORESERVE:
            raise elf.error(
                f"{name} lies in no section (a common or absolute symbol)",
                section=section.name,
                hint="initialise the variable",
            )
        target = elf.at(symbol.section)
        if code == BPF_JMP_CALL:
            source = registers >> 4 if elf.byteorder == "little" else registers & 0xF
            if source != BPF_PSEUDO_CALL:
                raise elf.error(f"call of {name}, which is no helper", section=section.name)
            return self._call(section, target, symbol, at, imm)
        return self._reference(section, target, symbol, at, imm)

    def _reference(
        self, section: Section, target: Section, symbol: Symbol, at: int, imm: int
    ) -> Relocation:
        name = self._elf.name_of(symbol)
        targets = self._targets
        value = symbol.value + imm
        if target.executable:
            if value % BPF_INSN_SIZE or symbol.type not in (STT_FUNC, STT_SECTION):
                raise self._elf.error(
                    f"{name} at {value} of {target.name} is no function", section=section.name
                )
            return Relocation(at, "function", name, target.index, value)
        if symbol.section in targets.data:
            self._inside(section, target, name, value)
            return Relocation(at, "data", targets.data[symbol.section], target.index, value)
        if targets.arena is not None and target.index == targets.arena[0]:
            self._inside(section, target, name, value)
            return Relocation(at, "arena", targets.arena[1], target.index, value)
        if targets.jump_tables and target.index == targets.jump_tables:
            self._inside(section, target, name, value + symbol.size)
            return Relocation(at, "jump_table", target.name, target.index, value, symbol.size)
        found = targets.maps.get((symbol.section, value))
        if found is None:
            raise self._elf.error(
                f"{name} in section {target.name} is neither a map, a variable nor a function",
                section=section.name,
            )
        return Relocation(at, "map", found)

    def _inside(self, section: Section, target: Section, name: str, value: int) -> None:
        if not 0 <= value <= target.size:
            raise self._elf.error(
                f"{name} at {value} lies outside of {target.name}", section=section.name
            )

    def _call(
        self, section: Section, target: Section, symbol: Symbol, at: int, imm: int
    ) -> Relocation:
        # The immediate counts instructions from behind the symbol: -1 for a function's own symbol,
        # the index less one for the symbol of its section.
        name = self._elf.name_of(symbol)
        if not target.executable:
            raise self._elf.error(
                f"call of {name}, which lies in {target.name}", section=section.name
            )
        if symbol.type not in (STT_FUNC, STT_SECTION):
            raise self._elf.error(f"call of {name}, which is no function", section=section.name)
        if symbol.value % BPF_INSN_SIZE:
            raise self._elf.error(f"{name} is inside of an instruction", section=section.name)
        value = symbol.value + (imm + 1) * BPF_INSN_SIZE
        return Relocation(at, "call", name, target.index, value)

    def _direct_calls(
        self, section: Section, symbol: Symbol, insns: bytes, known: set[int]
    ) -> list[Relocation]:
        # Calls within a section need no relocation in the file: the compiler knew the distance.
        little = self._elf.byteorder == "little"
        unpack = struct.Struct("<xB2xi" if little else ">xB2xi").unpack_from
        codes = insns[::BPF_INSN_SIZE]
        found = []
        index = codes.find(BPF_JMP_CALL)
        while index >= 0:
            at = index * BPF_INSN_SIZE
            registers, imm = unpack(insns, at)
            source = registers >> 4 if little else registers & 0xF
            if source == BPF_PSEUDO_CALL and at not in known:
                value = symbol.value + at + (imm + 1) * BPF_INSN_SIZE
                found.append(Relocation(at, "call", section.name, section.index, value))
            index = codes.find(BPF_JMP_CALL, index + 1)
        return found


def _offset(item: Relocation | FuncInfo | LineInfo | CoreRelo) -> int:
    return item.offset


def _binding(symbol: Symbol) -> Binding:
    if symbol.bind == STB_LOCAL:
        return "static"
    return "weak" if symbol.bind == STB_WEAK else "global"


def _program(function: Function, callback: str) -> ProgramSpec:
    says = meaning(function.section)
    return ProgramSpec(
        name=function.name,
        section=function.section,
        type=says.type,
        expected_attach_type=says.expected_attach_type,
        flags=says.flags,
        extra=says.extra,
        autoload=says.autoload,
        function=function,
        attach=says.attach,
        needs_target=says.needs_target,
        attach_type_optional=says.attach_type_optional,
        exception_callback=callback,
    )
