"""Which programs of an object are loaded, and which of them nobody could load."""

from __future__ import annotations

from netbpf.elf.spec import MapSpec, ObjectSpec, ProgramSpec
from netbpf.errors import ObjectFileError
from netbpf.loader import relocate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


def programs(
    spec: ObjectSpec, only: Collection[str], maps: Mapping[str, MapSpec]
) -> list[ProgramSpec]:
    """The programs called ``only``, with those that they tail call; without it all to be loaded.

    An object may hold maps alone, or only what is left out unless it is asked for.

    :raises ObjectFileError: it holds none of that name.
    """
    made = [m for m in maps.values() if m.struct_ops is not None]
    if not only:
        return [p for p in spec.programs if _loads(p, made)]
    wanted = {spec.program(name).name for name in only}
    entries = {p.name for p in spec.programs}
    jumps = {m.name: m for m in maps.values() if m.slots and m.inner is None}
    pending = list(wanted)
    while pending:
        program = spec.program(pending.pop())
        for struct in made:
            others = _members(struct)
            if program.name in others:
                # A struct is made whole.
                pending += others - wanted
                wanted |= others
        for function in relocate.functions(spec, program):
            for relocation in function.relocations:
                if relocation.kind != "map" or relocation.target not in jumps:
                    continue
                for _, name in jumps[relocation.target].slots:
                    if name in entries and name not in wanted:
                        wanted.add(name)
                        pending.append(name)
    return [p for p in spec.programs if p.name in wanted]


def nothing(spec: ObjectSpec) -> ObjectFileError:
    """The error of an object of which a command would load nothing."""
    names = ", ".join(p.name for p in spec.programs)
    if not names:
        hint = 'a program is a function in a section of its own: SEC("tc")'
        return ObjectFileError(spec.path, "neither programs nor maps to load", hint=hint)
    return ObjectFileError(
        spec.path,
        f"nothing to load: the ? before its section's name leaves out {names}",
        hint=f"where one is attached it can be named: {spec.path}:{spec.programs[0].name}",
    )


def _loads(program: ProgramSpec, made: Collection[MapSpec]) -> bool:
    # A program that a struct is made of goes with it, whatever its own section's name says.
    uses = [struct for struct in made if program.name in _members(struct)]
    return any(struct.autocreate for struct in uses) if uses else program.autoload


def structs(maps: Collection[MapSpec], chosen: Collection[str]) -> list[MapSpec]:
    """The structs made of programs that are to be made with the programs called ``chosen``.

    That is those all of whose programs are; one with a ``?`` only where no other wants them.
    """
    found = [m for m in maps if m.struct_ops is not None and _members(m) <= set(chosen)]
    others = {name for m in found if m.autocreate for name in _members(m)}
    return [m for m in found if m.autocreate or not _members(m) <= others]


def _members(struct: MapSpec) -> set[str]:
    assert struct.struct_ops is not None
    return {program for _, _, program in struct.struct_ops.programs}


def check(spec: ObjectSpec, program: ProgramSpec) -> None:
    """Refuse a program that has no type, before anything is made.

    :raises ObjectFileError: it has none.
    """
    if not program.type:
        from netbpf.elf.sections import nearest

        like = nearest(program.section)
        raise ObjectFileError(
            spec.path,
            f"program {program.name}: its section's name says no program type",
            section=program.section,
            hint=f'write SEC("{like}")' if like else 'write SEC("tc") or another name libbpf knows',
        )
