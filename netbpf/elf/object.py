"""From a file to an ObjectSpec: the same on every machine, no kernel needed."""

from __future__ import annotations

import os
import struct

from netbpf.btf import types as t
from netbpf.btf.blob import Btf
from netbpf.btf.errors import BtfFormatError
from netbpf.elf import file as elf_file
from netbpf.elf.data import (
    JUMP_TABLES,
    data_maps,
    is_data,
    kconfig_map,
    plain,
    read_arena,
    read_jump_tables,
)
from netbpf.elf.ext import Ext
from netbpf.elf.externs import read_externs
from netbpf.elf.file import ElfFile
from netbpf.elf.layout import completed, read_btf
from netbpf.elf.maps import MapReader
from netbpf.elf.programs import FunctionReader, Targets, entry_points
from netbpf.elf.spec import ObjectSpec
from netbpf.elf.struct_ops import StructOpsReader
from netbpf.errors import NetbpfError, ObjectFileError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

# libbpf's struct bpf_object: char license[64].
_MAX_LICENSE = 63
_CALLBACK = "exception_callback:"


class Blaming:
    """A block in which what is wrong with a file's types is the file's fault: they are read late.

    :raises ObjectFileError: in place of the error of the types.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, BtfFormatError):
            raise ObjectFileError(self._path, str(error), section=".BTF") from error
        if isinstance(error, RecursionError):
            raise ObjectFileError(self._path, "a type contains itself", section=".BTF") from error


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
        # Whatever a hostile file makes the readers stumble over: the file is at fault.
        raise ObjectFileError(name, f"malformed ({type(error).__name__}: {error})") from error


def _read(elf: ElfFile) -> ObjectSpec:
    object_name = plain(os.path.basename(elf.path).split(".")[0], "_")
    btf = read_btf(elf)
    externs = read_externs(elf, btf)
    if btf is not None:
        btf = completed(elf, btf, externs)
    defined, places = MapReader(elf, btf, entry_points(elf)).read()
    arena = read_arena(elf, btf, defined)
    jump_tables = read_jump_tables(elf)
    targets = Targets(
        maps=places,
        data={s.index: s.name for s in elf.sections if is_data(s)},
        externs=frozenset(e.name for e in externs),
        arena=(_index(elf, arena.section), arena.map) if arena is not None else None,
        jump_tables=_index(elf, JUMP_TABLES) if jump_tables else 0,
    )
    programs, functions = FunctionReader(elf, targets, Ext(elf, btf), _callbacks(btf)).read()
    structs = StructOpsReader(elf, btf, {p.function.key: p for p in programs}).read()
    byteorder: Literal["little", "big"] = "little" if elf.byteorder == "little" else "big"
    return ObjectSpec(
        path=elf.path,
        name=object_name,
        byteorder=byteorder,
        license=_license(elf),
        version=_version(elf),
        programs=tuple(programs),
        functions=functions,
        maps=(
            *defined,
            *data_maps(elf, btf, object_name),
            *kconfig_map(btf, externs, object_name),
            *structs,
        ),
        externs=externs,
        btf=btf,
        arena=arena,
        jump_tables=jump_tables,
    )


def _index(elf: ElfFile, name: str) -> int:
    section = elf.section(name)
    return section.index if section is not None else 0


def _callbacks(btf: Btf | None) -> dict[str, str]:
    # __exception_cb(name) of bpf_helpers.h: a tag on the program's function.
    found: dict[str, str] = {}
    for type_id in btf.ids_of_kind(t.KIND_DECL_TAG) if btf is not None else ():
        assert btf is not None
        tag = btf.type(type_id)
        if isinstance(tag, t.DeclTag) and tag.component == -1 and tag.name.startswith(_CALLBACK):
            found.setdefault(btf.type(tag.type_id).name, tag.name.removeprefix(_CALLBACK))
    return found


def _license(elf: ElfFile) -> str:
    section = elf.section("license")
    if section is None:
        return ""
    text = elf.content(section)[:_MAX_LICENSE].split(b"\0")[0]
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
