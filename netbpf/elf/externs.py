"""Names that the kernel or its configuration has to define: ``.ksyms`` and ``.kconfig``."""

from __future__ import annotations

from netbpf.btf import types as t
from netbpf.btf.blob import Btf
from netbpf.elf.checks import named
from netbpf.elf.file import SHN_UNDEF, STB_LOCAL, STB_WEAK, STT_NOTYPE, ElfFile
from netbpf.elf.spec import Extern
from netbpf.records import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from netbpf.elf.spec import KconfigType

KCONFIG = ".kconfig"
KSYMS = ".ksyms"
# bpf_helpers.h: enum libbpf_tristate
_TRISTATE = "libbpf_tristate"


def read_externs(elf: ElfFile, btf: Btf | None) -> tuple[Extern, ...]:
    """All that the file's symbols leave open, sorted by name; values of the configuration placed.

    :raises ObjectFileError: a name without a type, or of a type that cannot be had.
    """
    names: dict[str, bool] = {}
    for symbol in elf.symbols():
        if (
            symbol.section == SHN_UNDEF
            and symbol.bind != STB_LOCAL
            and symbol.type == STT_NOTYPE
            and symbol.name
        ):
            names.setdefault(symbol.name, symbol.bind == STB_WEAK)
    if not names:
        return ()
    if btf is None:
        raise elf.error(
            f"{min(names)} is defined elsewhere, and the file has no BTF that says what it is",
            hint="compile it with -g",
        )
    homes = {
        variable.type_id: section.name
        for section in map(btf.type, btf.ids_of_kind(t.KIND_DATASEC))
        if isinstance(section, t.DataSec)
        for variable in section.variables
    }
    ids = named(btf, t.KIND_VAR, t.KIND_FUNC)
    found = [
        _extern(elf, btf, homes, name, ids.get(name), weak) for name, weak in sorted(names.items())
    ]
    places = _places(btf, found)
    return tuple(replace(e, offset=places.get(e.name, 0)) for e in found)


def _extern(
    elf: ElfFile, btf: Btf, homes: dict[int, str], name: str, btf_id: int | None, weak: bool
) -> Extern:
    declared = btf.type(btf_id) if btf_id is not None else None
    if not isinstance(declared, t.Var | t.Func) or btf_id is None:
        raise elf.error(
            f"{name} is defined nowhere",
            hint=f"declare it: extern … {name} __ksym; or define it in one of the files linked",
        )
    if declared.linkage != t.LINKAGE_EXTERN:
        raise elf.error(f"{name} has no definition, but its type is that of one", section=".BTF")
    section = homes.get(btf_id)
    if section not in (KCONFIG, KSYMS):
        raise elf.error(
            f"{name} is defined elsewhere, and neither in the kernel nor in its configuration",
            section=section,
            hint="put __ksym or __kconfig behind its declaration",
        )
    resolved, _ = btf.resolve(declared.type_id)
    extern = Extern(
        name=name,
        section=section,
        weak=weak,
        btf_id=btf_id,
        type_id=resolved,
        function=isinstance(declared, t.Func),
    )
    if section == KSYMS:
        return extern
    kind, signed = _kconfig(btf, resolved)
    if extern.function or kind is None:
        raise elf.error(
            f"{name} is of a type that no value of the configuration has",
            section=section,
            hint="bool, char, an integer, char[] and enum libbpf_tristate are known",
        )
    return replace(extern, kconfig=kind, signed=signed, size=btf.size(resolved))


def _kconfig(btf: Btf, type_id: int) -> tuple[KconfigType | None, bool]:
    _, found = btf.resolve(type_id)
    if isinstance(found, t.Int):
        if found.bool_:
            return "bool" if found.size == 1 else None, False
        if found.size == 1:
            return "char", found.signed
        return "integer" if found.size in (2, 4, 8) else None, found.signed
    if isinstance(found, t.Enum):
        fits = found.name == _TRISTATE and (found.kind == t.KIND_ENUM64 or found.size == 4)
        return "tristate" if fits else None, False
    if isinstance(found, t.Array) and found.length and btf.size(type_id) < 1 << 16:
        return "string" if _kconfig(btf, found.type_id)[0] == "char" else None, False
    return None, False


def _places(btf: Btf, externs: list[Extern]) -> dict[str, int]:
    # Where libbpf puts them: by falling alignment, then size, then name.
    values = [(_align(btf, e), e) for e in externs if e.section == KCONFIG]
    values.sort(key=lambda v: (-v[0], v[1].size, v[1].name))
    places: dict[str, int] = {}
    end = 0
    for align, extern in values:
        places[extern.name] = -(-end // align) * align
        end = places[extern.name] + extern.size
    return places


def _align(btf: Btf, extern: Extern) -> int:
    if extern.kconfig == "string":
        return 1
    return min(8, extern.size) or 1
