"""Functions of an object file, and what their instructions refer to."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import replace

from netbpf.bpf.macros import BPF_INSN_SIZE, BPF_JMP_CALL, BPF_LD_IMM64, BPF_PSEUDO_CALL
from netbpf.btf.ext import BtfExt, LineInfo
from netbpf.elf.file import (
    SHN_LORESERVE,
    SHN_UNDEF,
    STB_LOCAL,
    STT_FUNC,
    STT_SECTION,
    ElfFile,
    Rel,
    Section,
    Symbol,
)
from netbpf.elf.sections import meaning
from netbpf.elf.spec import Function, ProgramSpec, Relocation

TEXT = ".text"
# Relocation types of instructions (LLVM: BinaryFormat/ELFRelocs/BPF.def).
R_BPF_64_64 = 1
R_BPF_64_32 = 10


class FunctionReader:
    """Reads all functions of a file.

    :param maps: names of maps by (section index, offset).
    :param data: indexes of data sections with the names that relocations call them.
    """

    def __init__(
        self,
        elf: ElfFile,
        maps: Mapping[tuple[int, int], str],
        data: Mapping[int, str],
        ext: BtfExt,
    ) -> None:
        self._elf = elf
        self._maps = maps
        self._data = data
        self._ext = ext
        self.externs: dict[str, Symbol] = {}

    def read(self) -> tuple[list[ProgramSpec], dict[tuple[int, int], Function]]:
        """The programs, and the functions that programs call, by where they stand."""
        programs: list[ProgramSpec] = []
        functions: dict[tuple[int, int], Function] = {}
        for section in self._elf.sections:
            if not section.executable or not section.size:
                continue
            for symbol, function in self._section(section):
                functions[function.key] = function
                if section.name != TEXT and symbol.bind != STB_LOCAL:
                    programs.append(_program(function))
        names = [p.name for p in programs]
        for name in names:
            if names.count(name) > 1:
                raise self._elf.error(f"two programs are called {name}")
        return programs, functions

    def _section(self, section: Section) -> list[tuple[Symbol, Function]]:
        elf = self._elf
        content = elf.content(section)
        if len(content) % BPF_INSN_SIZE:
            raise elf.error("the last instruction is cut off", section=section.name)
        relocations = elf.relocations(section)
        found: dict[int, tuple[Symbol, Function]] = {}
        symbols = sorted(
            (s for s in elf.symbols if s.type == STT_FUNC and s.section == section.index),
            key=lambda s: (s.value, s.bind == STB_LOCAL),
        )
        for symbol in symbols:
            start, end = symbol.value, symbol.value + symbol.size
            if start % BPF_INSN_SIZE or not symbol.size or symbol.size % BPF_INSN_SIZE:
                raise elf.error(
                    f"function {symbol.name} is no whole number of instructions",
                    section=section.name,
                )
            if end > len(content):
                raise elf.error(
                    f"function {symbol.name} ends outside of its section", section=section.name
                )
            if start in found:
                continue
            insns = content[start:end]
            named = [
                self._relocation(section, content, r, start)
                for r in relocations
                if start <= r.offset < end
            ]
            known = {r.offset for r in named}
            if len(known) < len(named):
                raise elf.error(
                    f"function {symbol.name} has two relocations at one place",
                    section=section.name,
                )
            named += _direct_calls(insns, start, section, known, elf.byteorder)
            lines = self._ext.lines.get(section.name, ())
            core = self._ext.core.get(section.name, ())
            infos = self._ext.funcs.get(section.name, ())
            found[start] = (
                symbol,
                Function(
                    name=symbol.name,
                    section=section.name,
                    section_index=section.index,
                    offset=start,
                    insns=insns,
                    relocations=tuple(sorted(named, key=lambda r: r.offset)),
                    info=next((i for i in infos if i.offset == start), None),
                    lines=tuple(
                        LineInfo(i.offset - start, i.file_name, i.line, i.line_column)
                        for i in lines
                        if start <= i.offset < end
                    ),
                    core=tuple(
                        replace(i, offset=i.offset - start) for i in core if start <= i.offset < end
                    ),
                ),
            )
        return list(found.values())

    def _relocation(self, section: Section, content: bytes, rel: Rel, start: int) -> Relocation:
        elf = self._elf
        symbol = rel.symbol
        name = elf.name_of(symbol)
        at = rel.offset - start
        if rel.offset % BPF_INSN_SIZE:
            raise elf.error(
                f"relocation at {rel.offset}, inside of an instruction", section=section.name
            )
        code = content[rel.offset]
        order = "<" if elf.byteorder == "little" else ">"
        (imm,) = struct.unpack_from(order + "i", content, rel.offset + 4)
        if rel.type not in (R_BPF_64_64, R_BPF_64_32):
            raise elf.error(
                f"relocation type {rel.type} towards {name} is not known", section=section.name
            )
        if symbol.section == SHN_UNDEF:
            if not symbol.name:
                raise elf.error("relocation towards nothing", section=section.name)
            self.externs.setdefault(symbol.name, symbol)
            return Relocation(at, "extern", symbol.name)
        if symbol.section >= SHN_LORESERVE:
            raise elf.error(
                f"{name} lies in no section (a common or absolute symbol)",
                section=section.name,
                hint="initialise the variable",
            )
        target = elf.at(symbol.section)
        if code == BPF_JMP_CALL:
            return self._call(section, target, symbol, at, imm)
        if code != BPF_LD_IMM64 or rel.offset + 16 > len(content):
            raise elf.error(
                f"relocation towards {name} at an instruction of code {code:#x}",
                section=section.name,
            )
        if target.executable:
            return Relocation(at, "function", name, target.index, symbol.value + imm)
        if symbol.section in self._data:
            if symbol.value + imm > target.size or symbol.value + imm < 0:
                raise elf.error(
                    f"{name} at {symbol.value + imm} lies outside of {target.name}",
                    section=section.name,
                )
            return Relocation(
                at, "data", self._data[symbol.section], target.index, symbol.value + imm
            )
        found = self._maps.get((symbol.section, symbol.value + imm))
        if found is None:
            raise elf.error(
                f"{name} in section {target.name} is neither a map, a variable nor a function",
                section=section.name,
            )
        return Relocation(at, "map", found)

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
        value = symbol.value + (imm + 1) * BPF_INSN_SIZE
        return Relocation(at, "call", name, target.index, value)


def _direct_calls(
    insns: bytes, start: int, section: Section, known: set[int], byteorder: str
) -> list[Relocation]:
    # Calls within a section need no relocation in the file: the compiler knew the distance.
    little = byteorder == "little"
    codes = insns[::BPF_INSN_SIZE]
    found = []
    index = codes.find(BPF_JMP_CALL)
    while index >= 0:
        at = index * BPF_INSN_SIZE
        registers, imm = struct.unpack_from("<xB2xi" if little else ">xB2xi", insns, at)
        source = registers >> 4 if little else registers & 0xF
        if source == BPF_PSEUDO_CALL and at not in known:
            value = start + at + (imm + 1) * BPF_INSN_SIZE
            found.append(Relocation(at, "call", section.name, section.index, value))
        index = codes.find(BPF_JMP_CALL, index + 1)
    return found


def _program(function: Function) -> ProgramSpec:
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
    )
