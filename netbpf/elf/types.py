"""The .BTF of any ELF file: of a BPF object, a kernel module or a kernel."""

from __future__ import annotations

import os
import struct

from netbpf.btf.blob import Btf
from netbpf.btf.errors import BtfFormatError
from netbpf.btf.header import MAGIC
from netbpf.elf import file as elf_file
from netbpf.elf.file import ElfFile
from netbpf.errors import ObjectFileError

_MAGICS = (struct.pack("<H", MAGIC), struct.pack(">H", MAGIC))


def read_types(
    path: str | os.PathLike[str], data: bytes | None = None, base: Btf | None = None
) -> Btf:
    """The types in a file: an ELF file with a .BTF section, or a BTF blob by itself.

    They are as the file has them: the compiler leaves the sizes of sections to the loader.

    :param data: read in the place of the file.
    :param base: what the types of a split BTF (a kernel module's) go on from; a module that
        brings a ``.BTF.base`` needs none.
    :raises NotFoundError: there is no such file.
    :raises ObjectFileError: it has no types, or malformed ones.
    """
    name = os.fspath(path)
    if data is None:
        data = elf_file.read(name)
    section = None if data[:2] in _MAGICS else ".BTF"
    try:
        if section is None:
            return Btf.parse(data, base)
        elf = ElfFile(name, _relabelled(data))
        found = elf.section(".BTF")
        if found is None:
            raise ObjectFileError(
                name, "no .BTF section in it", hint="compile it with -g, for BPF by clang"
            )
        own = elf.section(".BTF.base")
        if own is not None:
            base = Btf.parse(elf.content(own))
        return Btf.parse(elf.content(found), base)
    except BtfFormatError as error:
        hint = None
        if base is None and "empty string" in str(error):
            hint = "a kernel module's types go on from the kernel's: name them as the base"
        raise ObjectFileError(name, str(error), section=section, hint=hint) from error


def _relabelled(data: bytes) -> bytes:
    # Sections are the same whatever machine the code in them is for, and whether it is linked:
    # the reader of BPF objects is told that this is one.
    if data[:4] != b"\x7fELF" or data[5:6] not in (b"\x01", b"\x02"):
        return data
    order = "<" if data[5] == 1 else ">"
    kind = struct.pack(f"{order}HH", elf_file.ET_REL, elf_file.EM_BPF)
    return data if data[16:20] == kind else data[:16] + kind + data[20:]
