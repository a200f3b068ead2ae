"""Names that an object leaves to the kernel: looked up in its configuration, types and symbols."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, MutableMapping
from typing import NamedTuple

from netbpf.bpf.macros import BPF_PSEUDO_BTF_ID, BPF_PSEUDO_KFUNC_CALL
from netbpf.btf import core_match
from netbpf.btf import types as t
from netbpf.btf.blob import Btf
from netbpf.btf.core_spec import CoreError, essential
from netbpf.btf.index import IndexedBtf
from netbpf.elf.externs import KCONFIG
from netbpf.elf.spec import Extern, ObjectSpec
from netbpf.errors import ObjectFileError
from netbpf.loader import kconfig, log, relocate
from netbpf.loader.kernel_types import KernelTypes

# libbpf: POISON_CALL_KFUNC_BASE. The verifier shows the number where such a call is reached.
POISON_KFUNC = 2002000000


class Found(NamedTuple):
    """A name that the kernel has: its type's id in vmlinux or ``module``, or its address.

    Nothing of these (all 0) is a weak name that it has not.
    """

    btf_id: int = 0
    module: str = ""
    address: int = 0


class Patch(NamedTuple):
    """What an instruction that names an extern gets: a source, and its immediates or offset.

    ``load`` is (source, low half, high half) of a 16-byte load, ``call`` (source, immediate,
    offset) of a call.
    """

    load: tuple[int, int, int]
    call: tuple[int, int, int]


def resolve(
    spec: ObjectSpec,
    types: Callable[[], KernelTypes],
    contents: MutableMapping[str, bytearray],
    given: Collection[str] = (),
) -> dict[str, Found]:
    """Look up all externs of an object, as libbpf does: those of programs left out as well.

    :param types: gives the running kernel's types; it is asked only where they are needed.
    :param contents: the data sections by map, of which ``.kconfig`` is filled.
    :param given: what of ``.kconfig`` was set by hand.
    :raises ObjectFileError: the kernel lacks a strong one, or has another thing of that name.
    """
    found: dict[str, Found] = {}
    if not spec.externs:
        return found
    missing: list[Extern] = []
    for each in spec.maps:
        if each.section == KCONFIG:
            missing += kconfig.fill(spec, contents[each.name], given)
    symbols = [e for e in spec.externs if e.section != KCONFIG]
    addresses = {e.name for e in symbols if not e.function and not e.type_id}
    known = _addresses(spec, addresses) if addresses else {}
    for extern in symbols:
        if extern.name in addresses:
            at = known.get(extern.name)
            answer = None if at is None else Found(address=at)
        else:
            answer = _typed(spec, extern, types())
        if answer is None:
            missing.append(extern)
        found[extern.name] = answer or Found()
        log.debug("extern %s: %s", extern.name, answer or "not there, it is weak")
    strong = [e for e in missing if not e.weak]
    if strong:
        raise _missing(spec, strong[0])
    return found


def patches(
    spec: ObjectSpec,
    found: Mapping[str, Found],
    descriptor: Callable[[str], int],
    fd_array: list[int],
) -> dict[str, Patch]:
    """What the instructions of each extern but those of ``.kconfig`` get.

    :param descriptor: gives that of a module's types.
    :param fd_array: gets those of modules whose functions are called; its first is the kernel's.
    """
    made: dict[str, Patch] = {}
    places: dict[str, int] = {}
    for extern in spec.externs:
        if extern.name not in found:
            continue
        answer = found[extern.name]
        if not answer.btf_id:
            low, high = answer.address & 0xFFFFFFFF, answer.address >> 32
            made[extern.name] = Patch((0, low, high), (0, POISON_KFUNC + _index(spec, extern), 0))
            continue
        fd = place = 0
        if answer.module:
            fd = descriptor(answer.module)
            if extern.function:
                if answer.module not in places:
                    # Number 0 is the kernel itself, whatever stands there.
                    fd_array += [0, fd] if not fd_array else [fd]
                    places[answer.module] = len(fd_array) - 1
                place = places[answer.module]
        made[extern.name] = Patch(
            (BPF_PSEUDO_BTF_ID, answer.btf_id, fd), (BPF_PSEUDO_KFUNC_CALL, answer.btf_id, place)
        )
    return made


def poisoned(spec: ObjectSpec, number: int) -> Extern | None:
    """The weak function of the kernel that a call of ``number`` stands for, if it is one."""
    for extern in spec.externs:
        if extern.function and POISON_KFUNC + _index(spec, extern) == number:
            return extern
    return None


def user(spec: ObjectSpec, name: str) -> str | None:
    """The first program that uses an extern, itself or by what it calls."""
    for program in spec.programs:
        for function in relocate.functions(spec, program):
            if any(r.kind == "extern" and r.target == name for r in function.relocations):
                return program.name
    return None


def search(
    types: KernelTypes, name: str, kind: int, module: str | None = None
) -> tuple[str, Btf, int] | None:
    """The module ("" for the kernel), the types and the id of what is called ``name``.

    :param module: look only there; ``vmlinux`` is the kernel itself.
    """
    if module in (None, "vmlinux"):
        type_id = types.main.find(name, kind)
        if type_id is not None:
            return "", types.btf, type_id
        if module is not None:
            return None
    modules: Mapping[str, IndexedBtf] = types.modules()
    for each, indexed in modules.items():
        if module in (None, each):
            type_id = indexed.find(name, kind)
            if type_id is not None:
                return each, indexed.btf, type_id
    return None


def _typed(spec: ObjectSpec, extern: Extern, types: KernelTypes) -> Found | None:
    assert spec.btf is not None
    kind = t.KIND_FUNC if extern.function else t.KIND_VAR
    # Functions may have a flavour behind their name (name___old), variables not.
    name = essential(extern.name) if extern.function else extern.name
    there = search(types, name, kind)
    if there is None:
        return None
    module, btf, type_id = there
    declared = btf.type(type_id)
    assert isinstance(declared, t.Func | t.Var)
    theirs, _ = btf.resolve(declared.type_id)
    try:
        alike = core_match.are_compatible(spec.btf, extern.type_id, btf, theirs)
    except CoreError:
        alike = False
    if not alike:
        if extern.function and extern.weak:
            return None
        from netbpf.btf.declare import Declarator

        what = "function" if extern.function else "variable"
        where = f"module {module}" if module else "this kernel"
        raise ObjectFileError(
            spec.path,
            f"{_program(spec, extern)}{extern.name} is a {what} of another type in {where} "
            f"than it is declared to be; there it is {Declarator(btf).declare(theirs, name)}",
            section=extern.section,
            hint="generate vmlinux.h anew (netbpf btf dump), or give the declaration a flavour: "
            f"{name}___other, __weak",
        )
    return Found(type_id, module)


def _addresses(spec: ObjectSpec, names: Collection[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    wanted = {name.encode(): name for name in names}
    try:
        with open(kconfig.KALLSYMS, "rb") as file:
            for line in file:
                parts = line.split(None, 3)
                symbol = parts[2]
                if parts[1] == b"d":
                    # Clang with LTO tells static variables of one name apart.
                    symbol = symbol.partition(b".llvm.")[0]
                name = wanted.get(symbol)
                if name is None:
                    continue
                address = int(parts[0], 16)
                if found.setdefault(name, address) != address:
                    raise ObjectFileError(
                        spec.path,
                        f"{name} is more than one symbol of this kernel: at {found[name]:#x} and "
                        f"at {address:#x}",
                        section=".ksyms",
                        hint="declare it with its type",
                    )
    except OSError:
        pass
    return found


def _index(spec: ObjectSpec, extern: Extern) -> int:
    # Where libbpf has it: values of the configuration first, then all others by name.
    configured = sum(e.section == KCONFIG for e in spec.externs)
    return configured + sum(e.section != KCONFIG and e.name < extern.name for e in spec.externs)


def _program(spec: ObjectSpec, extern: Extern) -> str:
    name = user(spec, extern.name)
    return f"program {name}: " if name else ""


def _missing(spec: ObjectSpec, extern: Extern) -> ObjectFileError:
    hint: str | None = "declare it __weak, and ask for it before it is used"
    if extern.section == KCONFIG:
        reason = "is not in this kernel's configuration"
        if next(kconfig.settings(), None) is None:
            reason = "cannot be told: the kernel shows its configuration nowhere"
        hint = f"declare it __weak, then it is 0, or set it: --set {extern.name}=VALUE"
    elif extern.function:
        reason = "is no function that this kernel or a module of it has for programs"
        hint = f"load the module that has it (modprobe), or {hint}"
    elif extern.type_id:
        reason = "is no variable that the types of this kernel or a module of it tell of"
        hint = f"load the module that has it (modprobe), or {hint}"
    else:
        reason = "is no symbol of this kernel"
    return ObjectFileError(
        spec.path,
        f"{_program(spec, extern)}{extern.name} {reason}",
        section=extern.section,
        hint=hint,
    )
