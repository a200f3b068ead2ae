"""An ELF file taken apart with every offset checked: sections, symbols, relocations.

Read without pyelftools, which takes ten times as long to import as this takes for an object; it
only lends the names of machines.
"""

from __future__ import annotations

import errno
import os
import stat
import struct

from netbpf.errors import NotFoundError, ObjectFileError
from netbpf.records import cached_property, record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

EM_NONE = 0
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
STT_NOTYPE = 0
STT_OBJECT = 1
STT_FUNC = 2
STT_SECTION = 3
STB_LOCAL = 0
STB_WEAK = 2
STV_INTERNAL = 1
STV_HIDDEN = 2

# BPF objects are kilobytes; debug information makes some of them megabytes. The limits keep a
# hostile file from taking all time and memory: what is handed out in total, whatever it overlaps.
_MAX_SIZE = 64 << 20
_MAX_CONTENT = 128 << 20
_MAX_SYMBOLS = 1 << 18
_MAX_RELOCATIONS = 1 << 18
_MAX_NAME = 4096

_TYPES = {2: "ET_EXEC", 3: "ET_DYN", 4: "ET_CORE"}


@record(slots=True, eq=False, repr=False)
class Section:
    """One section header; ``content`` of the file gives what it holds."""

    index: int
    name: str
    type: int
    flags: int
    offset: int
    size: int
    link: int
    info: int
    entry_size: int

    @property
    def executable(self) -> bool:
        """Whether it holds instructions."""
        return self.type == SHT_PROGBITS and bool(self.flags & SHF_EXECINSTR)


@record(slots=True)
class Symbol:
    """One symbol; ``section`` is the section's index, 0 when it is defined elsewhere."""

    name: str
    value: int
    size: int
    type: int
    bind: int
    visibility: int
    section: int

    @property
    def hidden(self) -> bool:
        """Whether it is global in C, but none of the object's interface."""
        return self.bind != STB_LOCAL and self.visibility in (STV_HIDDEN, STV_INTERNAL)


@record(slots=True)
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
        if len(data) > _MAX_SIZE:
            raise self.error(f"{len(data)} bytes are too many for a BPF object")
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
        kind, machine = struct.unpack_from(self._prefix + "HH", data, 16)
        # Old LLVM left the machine out, and libbpf takes such files to this day.
        if machine not in (EM_BPF, EM_NONE):
            raise self.error(
                f"an ELF file for {_machine(machine)}, not for BPF",
                hint="compile it with clang -target bpf",
            )
        if kind != ET_REL:
            raise self.error(
                f"an ELF file of type {_TYPES.get(kind, kind)}, not a relocatable object",
                hint="compile it with clang -target bpf -c",
            )
        self._handed_out = 0
        self.sections = self._sections()
        self._by_name: dict[str, Section] = {}
        for section in self.sections:
            self._by_name.setdefault(section.name, section)

    def error(
        self, reason: str, *, section: str | None = None, hint: str | None = None
    ) -> ObjectFileError:
        """The error that says what is wrong with this file."""
        return ObjectFileError(self.path, reason, section=section, hint=hint)

    def _sections(self) -> tuple[Section, ...]:
        data = self._data
        (start,) = struct.unpack_from(self._prefix + "Q", data, 40)
        size, count, names_at = struct.unpack_from(self._prefix + "HHH", data, 58)
        if not start or not count:
            raise self.error("no sections in the file")
        if size != 64:
            raise self.error(f"section headers of {size} bytes are not known")
        if start + size * count > len(data):
            raise self.error("truncated: the section headers lie outside of the file")
        raw = list(
            struct.iter_unpack(self._prefix + "IIQQQQIIQQ", data[start : start + size * count])
        )
        if names_at >= count:
            raise self.error("the section names lie in a section that does not exist")
        names = self._slice(raw[names_at][4], raw[names_at][5], "section names")
        return tuple(
            Section(
                index=i,
                name=self._string(names, name, "section names"),
                type=kind,
                flags=flags,
                offset=offset,
                size=size,
                link=link,
                info=info,
                entry_size=entry_size,
            )
            for i, (name, kind, flags, _, offset, size, link, info, _, entry_size) in enumerate(raw)
        )

    def _slice(self, offset: int, size: int, what: str) -> bytes:
        if offset + size > len(self._data):
            raise self.error(
                f"truncated: {size} bytes at {offset}, the file has {len(self._data)}",
                section=what,
            )
        return self._data[offset : offset + size]

    def _string(self, table: bytes, offset: int, what: str) -> str:
        end = table.find(b"\0", offset, offset + _MAX_NAME)
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
        self._handed_out += section.size
        if self._handed_out > _MAX_CONTENT:
            raise self.error(f"{section.size} bytes are too many", section=section.name)
        if section.type == SHT_NOBITS:
            return bytes(section.size)
        if section.flags & SHF_COMPRESSED:
            raise self.error("compressed sections are not read", section=section.name)
        return self._slice(section.offset, section.size, section.name)

    @cached_property
    def symbol_table(self) -> Section:
        """The section of the symbols; a file without one has been stripped."""
        tables = [s for s in self.sections if s.type == SHT_SYMTAB]
        if not tables:
            raise self.error(
                "no symbol table: the file has been stripped",
                hint="strip it with llvm-strip -g, which takes only the debug information",
            )
        if len(tables) > 1:
            raise self.error("two symbol tables", section=tables[1].name)
        return tables[0]

    @cached_property
    def _symbols(self) -> list[tuple[int, int, int, int, int, int]]:
        table = self.symbol_table
        if table.entry_size != 24:
            raise self.error(f"symbols of {table.entry_size} bytes", section=table.name)
        if table.size % 24:
            raise self.error("the last symbol is cut off", section=table.name)
        if table.size // 24 > _MAX_SYMBOLS:
            raise self.error(f"{table.size // 24} symbols are too many", section=table.name)
        return list(struct.iter_unpack(self._prefix + "IBBHQQ", self.content(table)))

    @cached_property
    def _symbol_names(self) -> bytes:
        table = self.symbol_table
        if not 0 < table.link < len(self.sections):
            raise self.error("the names of the symbols are missing", section=table.name)
        return self.content(self.sections[table.link])

    @cached_property
    def _decoded(self) -> dict[int, Symbol]:
        return {}

    def symbol(self, index: int) -> Symbol:
        """The symbol with this index, which has to be one."""
        found = self._decoded.get(index)
        if found is None:
            name, info, other, section, value, size = self._symbols[index]
            found = self._decoded[index] = Symbol(
                name=self._string(self._symbol_names, name, self.symbol_table.name) if name else "",
                value=value,
                size=size,
                type=info & 0xF,
                bind=info >> 4,
                visibility=other & 3,
                section=section,
            )
        return found

    def symbols(self) -> Iterator[Symbol]:
        """Functions, variables that others see, and what is not defined here.

        The rest (labels, sections, local variables) is decoded where a relocation leads to it.
        """
        for index, (_, info, _, section, _, _) in enumerate(self._symbols):
            kind, bind = info & 0xF, info >> 4
            if kind == STT_FUNC or (bind and (kind == STT_OBJECT or section == SHN_UNDEF)):
                yield self.symbol(index)

    @cached_property
    def functions(self) -> dict[int, list[Symbol]]:
        """The symbols of functions by the index of their section, by rising address.

        Of several at one address the ones that others see come first.
        """
        found: dict[int, list[Symbol]] = {}
        for symbol in self.symbols():
            if symbol.type == STT_FUNC:
                found.setdefault(symbol.section, []).append(symbol)
        for group in found.values():
            group.sort(key=lambda s: (s.value, s.bind == STB_LOCAL))
        return found

    @cached_property
    def _relocation_tables(self) -> dict[int, list[Section]]:
        found: dict[int, list[Section]] = {}
        total = 0
        for table in self.sections:
            if table.type == SHT_REL:
                found.setdefault(table.info, []).append(table)
        for table in self.sections:
            if table.type == SHT_REL and self.at(table.info).executable:
                total += table.size // 16
        if total > _MAX_RELOCATIONS:
            raise self.error(f"{total} relocations are too many")
        return found

    def relocations(self, section: Section) -> list[Rel]:
        """The relocations that apply to ``section``, by rising offset."""
        found = []
        for table in self._relocation_tables.get(section.index, ()):
            if table.entry_size != 16:
                raise self.error(f"relocations of {table.entry_size} bytes", section=table.name)
            if table.size % 16:
                raise self.error("the last relocation is cut off", section=table.name)
            if table.size // 16 > _MAX_RELOCATIONS:
                raise self.error(f"{table.size // 16} relocations are too many", section=table.name)
            count = len(self._symbols)
            for offset, info in struct.iter_unpack(self._prefix + "QQ", self.content(table)):
                index = info >> 32
                if index >= count:
                    raise self.error(
                        f"relocation towards symbol {index}, which does not exist",
                        section=table.name,
                    )
                if offset >= section.size:
                    raise self.error(
                        f"relocation at {offset}, outside of section {section.name}",
                        section=table.name,
                    )
                found.append(Rel(offset, info & 0xFFFFFFFF, self.symbol(index)))
        found.sort(key=lambda rel: rel.offset)
        return found

    def name_of(self, symbol: Symbol) -> str:
        """What to call a symbol in a message: a section's symbol has no name of its own."""
        if symbol.name or symbol.section >= len(self.sections):
            return symbol.name
        return self.sections[symbol.section].name


def _machine(number: int) -> str:
    from elftools.elf.enums import ENUM_E_MACHINE

    names = {value: name for name, value in ENUM_E_MACHINE.items() if isinstance(value, int)}
    return str(names.get(number, f"machine {number}")).removeprefix("EM_")


def _guess(data: bytes) -> str | None:
    head = data[:64].lstrip()
    if not data:
        return "the file is empty"
    if head.startswith((b"#include", b"//", b"/*", b"#define")):
        return "it looks like C source: compile it with clang -O2 -g -target bpf -c"
    if data[:4] == b"BC\xc0\xde":
        return "it is LLVM bitcode: run llc -march=bpf -filetype=obj on it"
    return None
