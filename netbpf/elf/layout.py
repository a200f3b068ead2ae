"""What a compiler leaves to the loader in the BTF of an object: sizes, offsets, linkages."""

from __future__ import annotations

from netbpf.btf import types as t
from netbpf.btf.blob import Btf
from netbpf.btf.patch import patched
from netbpf.elf import file as elf_file
from netbpf.elf.checks import check_types, named
from netbpf.elf.externs import KCONFIG, KSYMS
from netbpf.elf.file import ElfFile
from netbpf.elf.spec import Extern

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_Layouts = dict[int, tuple[int, dict[int, int]]]
# It is copied, and each type looked at. That of a whole kernel has 6 MB, of a program far less.
_MAX_BTF = 6 << 20


def read_btf(elf: ElfFile) -> Btf | None:
    """The BTF as it is in the file; None where there is none."""
    section = elf.section(".BTF")
    if section is None:
        return None
    if section.type != elf_file.SHT_PROGBITS:
        raise elf.error(f"a section of type {section.type} holds no BTF", section=".BTF")
    if section.size > _MAX_BTF:
        raise elf.error(f"{section.size} bytes are too many", section=".BTF")
    btf = Btf.parse(elf.content(section))
    if btf.byteorder != elf.byteorder:
        raise elf.error("its byte order is not that of the file", section=".BTF")
    check_types(btf)
    return btf


def completed(elf: ElfFile, btf: Btf, externs: Sequence[Extern]) -> Btf:
    """The BTF with sections laid out, hidden names static, and a place for each kconfig value."""
    layouts = _layouts(elf, btf)
    linkages = _hidden(elf, btf)
    for name in (KCONFIG, KSYMS):
        _check_externs(elf, btf, name, externs)
    values = {e.btf_id: e for e in externs if e.section == KCONFIG}
    type_id = btf.find(KCONFIG, t.KIND_DATASEC)
    if values and type_id is not None:
        layouts[type_id] = (
            max(e.offset + e.size for e in values.values()),
            {e.btf_id: e.offset for e in values.values()},
        )
        linkages.update(dict.fromkeys(values, t.LINKAGE_GLOBAL))
    return Btf.parse(patched(btf, datasecs=layouts, linkages=linkages))


def _check_externs(elf: ElfFile, btf: Btf, name: str, externs: Sequence[Extern]) -> None:
    type_id = btf.find(name, t.KIND_DATASEC)
    section = btf.type(type_id) if type_id is not None else None
    if not isinstance(section, t.DataSec):
        return
    known = {e.btf_id for e in externs}
    for variable in section.variables:
        if variable.type_id not in known:
            called = btf.type(variable.type_id).name or "a name"
            raise elf.error(f"there is no symbol for {called}", section=name)


def _layouts(elf: ElfFile, btf: Btf) -> _Layouts:
    # The compiler leaves the sizes of sections, and where in them global variables lie, to the
    # linker; a file that bpftool has linked has them filled in.
    places = {
        (s.section, s.name): s.value
        for s in elf.symbols()
        if s.name and s.bind != elf_file.STB_LOCAL and s.type == elf_file.STT_OBJECT
    }
    layouts: _Layouts = {}
    for type_id in btf.ids_of_kind(t.KIND_DATASEC):
        found = btf.type(type_id)
        assert isinstance(found, t.DataSec)
        if found.name in (KCONFIG, KSYMS):
            continue
        section = elf.section(found.name)
        if section is None or not section.size:
            raise elf.error(
                "the BTF describes it, and it is not there or empty", section=found.name or ".BTF"
            )
        variables = [(v, btf.type(v.type_id)) for v in found.variables]
        if any(not isinstance(inner, t.Var) for _, inner in variables):
            raise elf.error("the BTF has something other than a variable in it", section=found.name)
        offsets = {}
        for variable, inner in variables:
            if isinstance(inner, t.Var) and inner.linkage == t.LINKAGE_GLOBAL:
                if (section.index, inner.name) not in places:
                    raise elf.error(
                        f"no symbol {inner.name} in section {found.name}", section=".BTF"
                    )
                offsets[variable.type_id] = places[section.index, inner.name]
        if max(section.size, *offsets.values(), 0) > 0xFFFFFFFF:
            raise elf.error("it is larger than 4 GB", section=section.name)
        # What has been filled in is sorted all the same: the kernel wants it, and libbpf does it.
        layouts[type_id] = (found.size, {}) if found.size else (section.size, offsets)
    return layouts


def _hidden(elf: ElfFile, btf: Btf) -> dict[int, int]:
    # A function that is global in C but hidden is verified with its callers, like a static one;
    # a hidden variable is none of the object's interface.
    # Programs stay what they are.
    text = elf.section(".text")
    hidden = [
        s
        for s in elf.symbols()
        if s.hidden
        and s.section != elf_file.SHN_UNDEF
        and (s.type != elf_file.STT_FUNC or (text is not None and s.section == text.index))
    ]
    if not hidden:
        return {}
    functions, variables = named(btf, t.KIND_FUNC), named(btf, t.KIND_VAR)
    found = ((functions if s.type == elf_file.STT_FUNC else variables).get(s.name) for s in hidden)
    return {type_id: t.LINKAGE_STATIC for type_id in found if type_id is not None}
