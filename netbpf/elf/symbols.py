"""Functions of an executable or a library: where in the file each one starts."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Callable

from netbpf.elf.executable import opened
from netbpf.errors import NotFoundError

_TABLES = (".dynsym", ".symtab")


def offset(path: str | os.PathLike[str], name: str) -> int:
    """Where in the file the function starts.

    :raises NotFoundError: there is no such file, or no such function in it.
    :raises ObjectFileError: it is no ELF file.
    """
    found = _functions(path, lambda symbol: symbol == name)
    if name not in found:
        raise NotFoundError("function", name, where=f"in {os.fspath(path)}")
    return found[name]


def matching(path: str | os.PathLike[str], pattern: str) -> dict[str, int]:
    """The functions whose names fit the pattern (``*`` and ``?``), by name; raises as ``offset``.

    :raises NotFoundError: also where none fits.
    """
    found = _functions(path, lambda symbol: fnmatch.fnmatchcase(symbol, pattern))
    if not found:
        raise NotFoundError("function", pattern, where=f"in {os.fspath(path)}")
    return found


def _functions(path: str | os.PathLike[str], wanted: Callable[[str], bool]) -> dict[str, int]:
    from elftools.elf.sections import SymbolTableSection

    found: dict[str, int] = {}
    with opened(path) as elf:
        for name in _TABLES:
            table = elf.get_section_by_name(name)
            if not isinstance(table, SymbolTableSection):
                continue
            for symbol in table.iter_symbols():
                if symbol["st_info"]["type"] not in ("STT_FUNC", "STT_GNU_IFUNC"):
                    continue
                index = symbol["st_shndx"]
                if not isinstance(index, int) or not wanted(symbol.name):
                    continue
                section = elf.get_section(index)
                where = symbol["st_value"] - section["sh_addr"] + section["sh_offset"]
                found.setdefault(symbol.name, where)
    return found
