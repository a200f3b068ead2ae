"""Which programs of an object are loaded, and which of them netbpf cannot load yet."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from netbpf.bpf import macros, uapi
from netbpf.elf.spec import MapSpec, ObjectSpec, ProgramSpec
from netbpf.errors import ObjectFileError
from netbpf.loader import relocate

# Types of programs whose target in the kernel is given by its BTF id.
_NEED_TARGET = frozenset(
    {
        uapi.BPF_PROG_TYPE_TRACING,
        uapi.BPF_PROG_TYPE_LSM,
        uapi.BPF_PROG_TYPE_EXT,
        uapi.BPF_PROG_TYPE_STRUCT_OPS,
    }
)


def programs(
    spec: ObjectSpec, only: Collection[str], maps: Mapping[str, MapSpec]
) -> list[ProgramSpec]:
    """The programs called ``only``, with those that they tail call; without it all to be loaded.

    :raises ObjectFileError: there is none.
    """
    if not only:
        chosen = [p for p in spec.programs if p.autoload]
        if not chosen:
            raise ObjectFileError(spec.path, "no programs to load")
        return chosen
    wanted = {spec.program(name).name for name in only}
    entries = {p.name for p in spec.programs}
    jumps = {m.name: m for m in maps.values() if m.slots and m.inner is None}
    pending = list(wanted)
    while pending:
        program = spec.program(pending.pop())
        for function in relocate.functions(spec, program):
            for relocation in function.relocations:
                if relocation.kind != "map" or relocation.target not in jumps:
                    continue
                for _, name in jumps[relocation.target].slots:
                    if name in entries and name not in wanted:
                        wanted.add(name)
                        pending.append(name)
    return [p for p in spec.programs if p.name in wanted]


def check(spec: ObjectSpec, program: ProgramSpec) -> None:
    """Refuse by name what netbpf cannot do yet, before anything is made.

    :raises ObjectFileError: the program wants such a thing.
    """
    path = spec.path
    if spec.not_yet:
        raise ObjectFileError(
            path, "sections of this kind cannot be loaded yet", section=spec.not_yet[0]
        )
    if not program.type:
        raise ObjectFileError(
            path,
            f"program {program.name}: its section's name says no program type",
            section=program.section,
            hint='write SEC("tc") or another name that libbpf knows',
        )
    if program.type in _NEED_TARGET:
        raise ObjectFileError(
            path,
            f"program {program.name}: programs of type {program.type_name} are not loaded yet",
            section=program.section,
        )
    externs = {e.name: e for e in spec.externs}
    for function in relocate.functions(spec, program):
        for relocation in function.relocations:
            if relocation.kind != "extern":
                continue
            extern = externs[relocation.target]
            is_load = function.insns[relocation.offset] == macros.BPF_LD_IMM64
            if not extern.weak or not is_load or extern.section != ".ksyms":
                what = "kernel configuration" if extern.section == ".kconfig" else "the kernel"
                raise ObjectFileError(
                    path,
                    f"program {program.name}: {extern.name} is to come from {what}, which is "
                    "not there yet",
                    section=extern.section or None,
                )
