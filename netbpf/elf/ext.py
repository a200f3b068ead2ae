"""What .BTF.ext says of instructions, held against the sections that they stand in."""

from __future__ import annotations

from netbpf.bpf.macros import BPF_INSN_SIZE
from netbpf.btf import types as t
from netbpf.btf.blob import Btf
from netbpf.btf.core_spec import KIND_NAMES
from netbpf.btf.errors import BtfFormatError
from netbpf.btf.ext import BtfExt, CoreRelo, FuncInfo, LineInfo
from netbpf.elf.file import SHT_PROGBITS, ElfFile, Section

NAME = ".BTF.ext"
_MAX_SIZE = 8 << 20

Records = tuple[list[LineInfo], list[CoreRelo], list[FuncInfo]]


class Ext:
    """The records of an object file; none where it has no BTF."""

    def __init__(self, elf: ElfFile, btf: Btf | None) -> None:
        self._elf = elf
        self._btf = btf
        self._records = BtfExt()
        section = elf.section(NAME)
        if section is None or btf is None:
            return
        if section.type != SHT_PROGBITS:
            raise elf.error(f"a section of type {section.type} holds no BTF", section=NAME)
        if section.size > _MAX_SIZE:
            raise elf.error(f"{section.size} bytes are too many", section=NAME)
        try:
            self._records = BtfExt.parse(elf.content(section), btf)
        except BtfFormatError as error:
            raise elf.error(str(error), section=NAME) from error

    def of(self, section: Section) -> Records:
        """The lines, CO-RE relocations and functions of a section, each by rising offset.

        :raises ObjectFileError: a record speaks of what is not there.
        """
        lines = self._records.lines.get(section.name, [])
        core = self._records.core.get(section.name, [])
        funcs = self._records.funcs.get(section.name, [])
        for what, records in (("line", lines), ("CO-RE relocation", core), ("function", funcs)):
            for record in records:
                if record.offset >= section.size or record.offset % BPF_INSN_SIZE:
                    raise self._elf.error(
                        f"a {what} at {record.offset} of section {section.name}, where no "
                        "instruction is",
                        section=NAME,
                    )
            # The kernel wants them so, and so do we when we look for them.
            records.sort(key=_offset)
        self._check_types(section, core, funcs)
        self._check_strings(section, lines)
        return lines, core, funcs

    def _check_types(self, section: Section, core: list[CoreRelo], funcs: list[FuncInfo]) -> None:
        if self._btf is None:
            return
        for func in funcs:
            if self._btf.kind(func.type_id) != t.KIND_FUNC:
                raise self._elf.error(
                    f"type {func.type_id} is that of no function (at {func.offset} of section "
                    f"{section.name})",
                    section=NAME,
                )
        for relo in core:
            self._btf.kind(relo.type_id)
            if relo.kind not in KIND_NAMES:
                raise self._elf.error(
                    f"CO-RE relocations of kind {relo.kind} are not known (at {relo.offset} of "
                    f"section {section.name})",
                    section=NAME,
                )

    def _check_strings(self, section: Section, lines: list[LineInfo]) -> None:
        if self._btf is None:
            return
        end = self._btf.header.strings[1]
        for line in lines:
            if line.file_name >= end or line.line >= end:
                raise self._elf.error(
                    f"a source line at {line.offset} of section {section.name} lies outside of "
                    "the strings",
                    section=NAME,
                )


def _offset(record: LineInfo | CoreRelo | FuncInfo) -> int:
    return record.offset
