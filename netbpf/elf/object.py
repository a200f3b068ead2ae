"""From a file to an ObjectSpec: the same on every machine, no kernel needed."""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path
from typing import Literal

from netbpf.btf import types as t
from netbpf.btf.blob import Btf
from netbpf.btf.errors import BtfFormatError
from netbpf.btf.ext import BtfExt
from netbpf.btf.patch import patched
from netbpf.elf import file as elf_file
from netbpf.elf.file import ElfFile
from netbpf.elf.maps import MapReader, data_maps, is_data
from netbpf.elf.programs import FunctionReader
from netbpf.elf.spec import Extern, ObjectSpec
from netbpf.errors import NetbpfError, ObjectFileError

KCONFIG = ".kconfig"
KSYMS = ".ksyms"
_NOT_YET = re.compile(r"\??\.struct_ops(\.link)?$|\.addr_space\.1$|\.arena\..*")


def open_object(path: str | os.PathLike[str], data: bytes | None = None) -> ObjectSpec:
    """Read the object file at ``path``, or ``data`` in its place (then ``path`` only names it).

    :raises NotFoundError: there is no such file.
    :raises ObjectFileError: it is no BPF object, or a malformed one; the section is named.
    """
    name = os.fspath(path)
    if data is None:
        data = elf_file.read(name)
    try:
        return _read(ElfFile(name, data))
    except NetbpfError:
        raise
    except BtfFormatError as error:
        raise ObjectFileError(name, str(error), section=".BTF") from error
    except Exception as error:
        # Whatever a hostile file makes the readers stumble over, pyelftools' own kinds included:
        # the file is at fault.
        raise ObjectFileError(name, f"malformed ({type(error).__name__}: {error})") from error


def _read(elf: ElfFile) -> ObjectSpec:
    object_name = re.sub(r"[^A-Za-z0-9_]", "_", Path(elf.path).name.split(".")[0])
    btf = _btf(elf)
    ext = _btf_ext(elf, btf)
    defined, places = MapReader(elf, btf).read()
    sections = data_maps(elf, btf, object_name)
    reader = FunctionReader(elf, places, {s.index: s.name for s in elf.sections if is_data(s)}, ext)
    programs, functions = reader.read()
    byteorder: Literal["little", "big"] = "little" if elf.byteorder == "little" else "big"
    return ObjectSpec(
        path=elf.path,
        name=object_name,
        byteorder=byteorder,
        license=_license(elf),
        version=_version(elf),
        programs=tuple(programs),
        functions=functions,
        maps=(*defined, *sections),
        externs=_externs(btf, reader),
        btf=btf,
        not_yet=tuple(s.name for s in elf.sections if s.size and _NOT_YET.match(s.name)),
    )


def _btf(elf: ElfFile) -> Btf | None:
    section = elf.section(".BTF")
    if section is None:
        return None
    btf = Btf.parse(elf.content(section))
    if btf.byteorder != elf.byteorder:
        raise elf.error("its byte order is not that of the file", section=".BTF")
    return Btf.parse(patched(btf, datasecs=_layouts(elf, btf), linkages=_hidden(elf, btf)))


def _layouts(elf: ElfFile, btf: Btf) -> dict[int, tuple[int, dict[int, int]]]:
    # The compiler leaves the sizes of sections, and where in them global variables lie, to the
    # linker; a file that bpftool has linked has them filled in.
    places = {
        (s.section, s.name): s.value
        for s in elf.symbols
        if s.name and s.bind != elf_file.STB_LOCAL and s.type == elf_file.STT_OBJECT
    }
    layouts = {}
    for type_id in btf.ids_of_kind(t.KIND_DATASEC):
        found = btf.type(type_id)
        assert isinstance(found, t.DataSec)
        section = elf.section(found.name)
        if section is None or found.size:
            continue
        offsets = {}
        for variable in found.variables:
            inner = btf.type(variable.type_id)
            if isinstance(inner, t.Var) and inner.linkage == t.LINKAGE_GLOBAL:
                if (section.index, inner.name) not in places:
                    raise elf.error(
                        f"no symbol {inner.name} in section {found.name}", section=".BTF"
                    )
                offsets[variable.type_id] = places[section.index, inner.name]
        if max(section.size, *offsets.values(), 0) > 0xFFFFFFFF:
            raise elf.error("it is larger than 4 GB", section=section.name)
        layouts[type_id] = (section.size, offsets)
    return layouts


def _hidden(elf: ElfFile, btf: Btf) -> dict[int, int]:
    # A function that is global in C but hidden is verified with its callers, like a static one;
    # a hidden variable is none of the object's interface.
    linkages = {}
    for symbol in elf.symbols:
        if symbol.bind == elf_file.STB_LOCAL or symbol.visibility not in (
            elf_file.STV_HIDDEN,
            elf_file.STV_INTERNAL,
        ):
            continue
        kind = t.KIND_FUNC if symbol.type == elf_file.STT_FUNC else t.KIND_VAR
        type_id = btf.find(symbol.name, kind)
        if type_id is not None:
            linkages[type_id] = t.LINKAGE_STATIC
    return linkages


def _btf_ext(elf: ElfFile, btf: Btf | None) -> BtfExt:
    section = elf.section(".BTF.ext")
    if section is None or btf is None:
        return BtfExt()
    try:
        return BtfExt.parse(elf.content(section), btf)
    except BtfFormatError as error:
        raise elf.error(str(error), section=".BTF.ext") from error


def _license(elf: ElfFile) -> str:
    section = elf.section("license")
    if section is None:
        return ""
    text = elf.content(section).split(b"\0")[0]
    return text.decode("ascii", "backslashreplace")


def _version(elf: ElfFile) -> int:
    section = elf.section("version")
    if section is None:
        return 0
    content = elf.content(section)
    if len(content) != 4:
        raise elf.error(f"{len(content)} bytes are no kernel version", section="version")
    (version,) = struct.unpack("<I" if elf.byteorder == "little" else ">I", content)
    return int(version)


def _externs(btf: Btf | None, reader: FunctionReader) -> tuple[Extern, ...]:
    homes: dict[str, str] = {}
    if btf is not None:
        for name in (KCONFIG, KSYMS):
            type_id = btf.find(name, t.KIND_DATASEC)
            found = btf.type(type_id) if type_id is not None else None
            if isinstance(found, t.DataSec):
                homes.update({btf.type(v.type_id).name: name for v in found.variables})
    return tuple(
        Extern(name, homes.get(name, ""), symbol.bind == elf_file.STB_WEAK)
        for name, symbol in sorted(reader.externs.items())
    )
