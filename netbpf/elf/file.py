"""An ELF file taken apart with every offset checked: sections, symbols, relocations."""

from __future__ import annotations

import errno
import io
import os
import stat
import struct
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from netbpf.errors import NotFoundError, ObjectFileError

EM_BPF = 247
ET_REL = 1
SHT_PROGBITS = 1
SHT_SYMTAB = 2
SHT_NOBITS = 8
SHT_REL = 9
SHF_EXECINSTR = 4
SHF_COMPRESSED = 0x800
SHN_UNDEF = 0
SHN_LORESERVE = 0xFF00
STT_OBJECT = 1
STT_FUNC = 2
STT_SECTION = 3
STB_LOCAL = 0
STB_WEAK = 2
STV_INTERNAL = 1
STV_HIDDEN = 2

# BPF objects are kilobytes; debug information makes some of them megabytes.
_MAX_SIZE = 128 << 20
_MAX_SECTION = 32 << 20


@dataclass(slots=True)
class Section:
    """One section header; ``data`` is what the file holds for it (zeroes for a .bss)."""

    index: int
    name: str
    type: int
    flags: int
    offset: int
    size: int
    link: int
    info: int

    @property
    def executable(self) -> bool:
        """Whether it holds instructions."""
        return self.type == SHT_PROGBITS and bool(self.flags & SHF_EXECINSTR)


@dataclass(slots=True)
class Symbol:
    """One symbol; ``section`` is the section's index, 0 when it is defined elsewhere."""

    name: str
    value: int
    size: int
    type: int
    bind: int
    visibility: int
    section: int


@dataclass(slots=True)
class Rel:
    """One relocation: at ``offset`` in its section, of type ``type``, towards ``symbol``."""

    offset: int
    type: int
    symbol: Symbol


def read(path: str) -> bytes:
    """The bytes of a regular file of reasonable size.

    :raises NotFoundError: there is no such file.
    :raises ObjectFileError: it cannot be read, or is no regular file.
    """
    try:
        # Without O_NONBLOCK opening a FIFO would wait for a writer for ever.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise NotFoundError("object file", path) from error
    except NotADirectoryError as error:
        raise NotFoundError("object file", path) from error
    except OSError as error:
        raise ObjectFileError(path, os.strerror(error.errno or errno.EIO)) from error
    except ValueError as error:
        raise ObjectFileError(repr(path), "is no possible file name") from error
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise ObjectFileError(path, "is not a regular file")
        if found.st_size > _MAX_SIZE:
            raise ObjectFileError(path, f"{found.st_size} bytes are too many for a BPF object")
        with open(fd, "rb", closefd=False) as file:
            return file.read(found.st_size)
    except OSError as error:
        raise ObjectFileError(path, os.strerror(error.errno or errno.EIO)) from error
    finally:
        os.close(fd)


class ElfFile:
    """A relocatable BPF object file.

    :raises ObjectFileError: the file is none, with what it is instead.
    """

    def __init__(self, path: str, data: bytes) -> None:
        self.path = path
        self._data = data
        if data[:4] != b"\x7fELF":
            raise self.error("not an ELF file", hint=_guess(data))
        if len(data) < 64:
            raise self.error("truncated: the ELF header is not complete")
        if data[4] != 2:
            raise self.error("a 32-bit ELF file, BPF objects are 64-bit ones")
        if data[5] not in (1, 2):
            raise self.error(f"byte order {data[5]} is not known")
        self.byteorder = "little" if data[5] == 1 else "big"
        self._prefix = "<" if data[5] == 1 else ">"
        header, sections = self._parse_headers()
        machine = header["e_machine"]
        if machine not in ("EM_BPF", EM_BPF):
            name = str(machine).removeprefix("EM_")
            raise self.error(
                f"an ELF file for {name}, not for BPF",
                hint="compile it with clang -target bpf",
            )
        if header["e_type"] != "ET_REL":
            raise self.error(
                f"an ELF file of type {header['e_type']}, not a relocatable object",
                hint="compile it with clang -target bpf -c",
            )
        self.sections = sections
        self._by_name: dict[str, Section] = {}
        for section in sections:
            self._by_name.setdefault(section.name, section)

    def error(
        self, reason: str, *, section: str | None = None, hint: str | None = None
    ) -> ObjectFileError:
        """The error that says what is wrong with this file."""
        return ObjectFileError(self.path, reason, section=section, hint=hint)

    def _parse_headers(self) -> tuple[Any, tuple[Section, ...]]:
        # The part that pyelftools does: the headers. Its reading of sections follows links between
        # sections and unpacks compressed ones, which a hostile file can make endless.
        from elftools.common.utils import struct_parse
        from elftools.elf.structs import ELFStructs

        structs = ELFStructs(little_endian=self.byteorder == "little", elfclass=64)
        structs.create_basic_structs()
        stream = io.BytesIO(self._data)
        header = struct_parse(structs.Elf_Ehdr, stream)
        structs.create_advanced_structs(header["e_type"], header["e_machine"])
        start, size, count = header["e_shoff"], header["e_shentsize"], header["e_shnum"]
        if not start or not count:
            raise self.error("no sections in the file")
        if size != 64:
            raise self.error(f"section headers of {size} bytes are not known")
        if start + size * count > len(self._data):
            raise self.error("truncated: the section headers lie outside of the file")
        raw = [struct_parse(structs.Elf_Shdr, stream, start + i * size) for i in range(count)]
        if header["e_shstrndx"] >= count:
            raise self.error("the section names lie in a section that does not exist")
        strings = raw[header["e_shstrndx"]]
        names = self._slice(strings["sh_offset"], strings["sh_size"], "section names")
        sections = tuple(
            Section(
                index=i,
                name=self._string(names, item["sh_name"], "section names"),
                type=_number(item["sh_type"]),
                flags=item["sh_flags"],
                offset=item["sh_offset"],
                size=item["sh_size"],
                link=item["sh_link"],
                info=item["sh_info"],
            )
            for i, item in enumerate(raw)
        )
        return header, sections

    def _slice(self, offset: int, size: int, what: str) -> bytes:
        if offset + size > len(self._data):
            raise self.error(
                f"truncated: {size} bytes at {offset}, the file has {len(self._data)}",
                section=what,
            )
        return self._data[offset : offset + size]

    def _string(self, table: bytes, offset: int, what: str) -> str:
        end = table.find(b"\0", offset)
        if end < 0:
            raise self.error("a name lies outside of its string table", section=what)
        return table[offset:end].decode("utf-8", "backslashreplace")

    def section(self, name: str) -> Section | None:
        """The first section called ``name``."""
        return self._by_name.get(name)

    def at(self, index: int) -> Section:
        """The section with this index."""
        if not 0 <= index < len(self.sections):
            raise self.error(f"there is no section {index}")
        return self.sections[index]

    def content(self, section: Section) -> bytes:
        """The bytes of a section; those of a NOBITS section are zeroes."""
        if section.size > _MAX_SECTION:
            raise self.error(f"{section.size} bytes are too many", section=section.name)
        if section.type == SHT_NOBITS:
            return bytes(section.size)
        if section.flags & SHF_COMPRESSED:
            raise self.error("compressed sections are not read", section=section.name)
        return self._slice(section.offset, section.size, section.name)

    @cached_property
    def symbols(self) -> tuple[Symbol, ...]:
        """The symbol table, empty when there is none."""
        table = next((s for s in self.sections if s.type == SHT_SYMTAB), None)
        if table is None:
            return ()
        strings = self.content(self.at(table.link))
        data = self.content(table)
        if len(data) % 24:
            raise self.error("the last symbol is cut off", section=table.name)
        symbols = []
        for name, info, other, shndx, value, size in struct.iter_unpack(
            self._prefix + "IBBHQQ", data
        ):
            symbols.append(
                Symbol(
                    name=self._string(strings, name, table.name) if name else "",
                    value=value,
                    size=size,
                    type=info & 0xF,
                    bind=info >> 4,
                    visibility=other & 3,
                    section=shndx,
                )
            )
        return tuple(symbols)

    def relocations(self, section: Section) -> list[Rel]:
        """The relocations that apply to ``section``, by rising offset."""
        found = []
        for table in self.sections:
            if table.type != SHT_REL or table.info != section.index:
                continue
            data = self.content(table)
            if len(data) % 16:
                raise self.error("the last relocation is cut off", section=table.name)
            for offset, info in struct.iter_unpack(self._prefix + "QQ", data):
                index = info >> 32
                if index >= len(self.symbols):
                    raise self.error(
                        f"relocation towards symbol {index}, which does not exist",
                        section=table.name,
                    )
                if offset >= section.size:
                    raise self.error(
                        f"relocation at {offset}, outside of section {section.name}",
                        section=table.name,
                    )
                found.append(Rel(offset, info & 0xFFFFFFFF, self.symbols[index]))
        return sorted(found, key=lambda rel: rel.offset)

    def name_of(self, symbol: Symbol) -> str:
        """What to call a symbol in a message: a section's symbol has no name of its own."""
        if symbol.name or symbol.section >= len(self.sections):
            return symbol.name
        return self.sections[symbol.section].name


def _number(value: object) -> int:
    # pyelftools gives names to the values it knows.
    if isinstance(value, int):
        return value
    known = {
        "SHT_PROGBITS": SHT_PROGBITS,
        "SHT_SYMTAB": SHT_SYMTAB,
        "SHT_NOBITS": SHT_NOBITS,
        "SHT_REL": SHT_REL,
    }
    return known.get(str(value), -1)


def _guess(data: bytes) -> str | None:
    head = data[:64].lstrip()
    if not data:
        return "the file is empty"
    if head.startswith((b"#include", b"//", b"/*", b"#define")):
        return "it looks like C source: compile it with clang -O2 -g -target bpf -c"
    if data[:4] == b"BC\xc0\xde":
        return "it is LLVM bitcode: run llc -march=bpf -filetype=obj on it"
    return None
