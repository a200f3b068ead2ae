"""What an object file holds, before any kernel has seen it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal

from netbpf.bpf import uapi
from netbpf.btf.blob import Btf
from netbpf.btf.ext import CoreRelo, FuncInfo, LineInfo
from netbpf.errors import ObjectFileError

RelocationKind = Literal["map", "data", "call", "function", "extern"]


@dataclass(slots=True, frozen=True)
class Relocation:
    """An instruction that refers to something by name.

    ``offset`` is in bytes from the start of its function. ``map``: ``target`` names a map;
    ``data``: a data section, and ``value`` is an offset in it; ``call`` and ``function`` (its
    address): the function at byte ``value`` of section number ``section``; ``extern``: a name that
    is not defined here.
    """

    offset: int
    kind: RelocationKind
    target: str
    section: int = 0
    value: int = 0


@dataclass(slots=True, frozen=True)
class Function:
    """A function's instructions in the file's byte order, and what refers to them.

    The offsets in ``lines`` and ``core`` are in bytes from its own start.
    """

    name: str
    section: str
    section_index: int
    offset: int
    insns: bytes = field(repr=False)
    relocations: tuple[Relocation, ...] = field(default=(), repr=False)
    info: FuncInfo | None = field(default=None, repr=False)
    lines: tuple[LineInfo, ...] = field(default=(), repr=False)
    core: tuple[CoreRelo, ...] = field(default=(), repr=False)

    @property
    def key(self) -> tuple[int, int]:
        """What calls find it by: section number and offset."""
        return self.section_index, self.offset


@dataclass(slots=True, frozen=True)
class ProgramSpec:
    """A program: an entry function and what its section's name says.

    ``type`` 0: the name says nothing. ``extra`` is the rest of the name (``fentry/NAME``).
    """

    name: str
    section: str
    type: int
    expected_attach_type: int
    flags: int
    extra: str
    autoload: bool
    function: Function = field(repr=False)

    @property
    def type_name(self) -> str:
        """The program type in the kernel's word."""
        return uapi.PROG_TYPE_NAMES.get(self.type, str(self.type))


@dataclass(slots=True, frozen=True)
class MapSpec:
    """A map as the object defines it; sizes in bytes.

    ``contents`` is the initial value of a data section (``section`` its name, empty for others).
    ``slots`` are initial values of a map of maps or programs: index and the name of what goes
    there. Key and value type ids are 0 where there are none.
    """

    name: str
    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int = 0
    map_extra: int = 0
    numa_node: int = 0
    pinned_by_name: bool = False
    key_type_id: int = 0
    value_type_id: int = 0
    inner: MapSpec | None = None
    slots: tuple[tuple[int, str], ...] = ()
    section: str = ""
    contents: bytes | None = field(default=None, repr=False)

    @property
    def type_name(self) -> str:
        """The map type in the kernel's word."""
        return uapi.MAP_TYPE_NAMES.get(self.type, str(self.type))

    @property
    def read_only(self) -> bool:
        """Whether it is a .rodata section, frozen once loaded."""
        return self.section.startswith(".rodata")


@dataclass(slots=True, frozen=True)
class Extern:
    """A name that the kernel or its configuration has to define."""

    name: str
    section: str
    weak: bool


@dataclass(slots=True, frozen=True)
class ObjectSpec:
    """All that an object file holds; the same on every machine.

    ``functions`` are the sub-programs, by section number and offset. ``btf`` has the sizes and
    offsets of its data sections filled in. ``not_yet`` names sections that the loader cannot deal
    with.
    """

    path: str
    name: str
    byteorder: Literal["little", "big"]
    license: str
    version: int
    programs: tuple[ProgramSpec, ...]
    functions: dict[tuple[int, int], Function] = field(repr=False)
    maps: tuple[MapSpec, ...]
    externs: tuple[Extern, ...]
    btf: Btf | None = field(repr=False)
    not_yet: tuple[str, ...] = ()

    def program(self, name: str) -> ProgramSpec:
        """The program called ``name``.

        :raises ObjectFileError: there is none; the error lists those that are there.
        """
        for program in self.programs:
            if program.name == name:
                return program
        raise ObjectFileError(
            self.path, f"no program {name}", hint=f"it holds {_listed(self.programs)}"
        )

    def only_program(self, types: Collection[int] = ()) -> ProgramSpec:
        """The one program of one of ``types`` (of any type when none is given).

        :raises ObjectFileError: there is none, or more than one; the error lists them.
        """
        if not self.programs:
            raise ObjectFileError(
                self.path, "no programs in it", hint='a program is a function with SEC("tc")'
            )
        fitting = [p for p in self.programs if not types or p.type in types]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            raise ObjectFileError(
                self.path,
                f"{len(fitting)} programs could be meant: {_listed(fitting)}",
                hint=f"say which one: {self.path}:{fitting[0].name}",
            )
        wanted = " or ".join(sorted(uapi.PROG_TYPE_NAMES.get(t, str(t)) for t in types))
        raise ObjectFileError(
            self.path, f"no program of type {wanted}", hint=f"it holds {_listed(self.programs)}"
        )

    def map(self, name: str) -> MapSpec:
        """The map called ``name``; of a data section also by the section's name.

        :raises ObjectFileError: there is none; the error lists those that are there.
        """
        for spec in self.maps:
            if name in (spec.name, spec.section):
                return spec
        known = ", ".join(m.name for m in self.maps) or "none"
        raise ObjectFileError(self.path, f"no map {name}", hint=f"its maps: {known}")


def _listed(programs: Collection[ProgramSpec]) -> str:
    if not programs:
        return "no programs"
    return ", ".join(
        f"{p.name} (section {p.section}{'' if p.type else ', of no known type'})" for p in programs
    )
