"""What an object file holds, before any kernel has seen it."""

from __future__ import annotations

from netbpf.bpf import uapi
from netbpf.btf import types as t
from netbpf.btf.blob import Btf
from netbpf.btf.ext import CoreRelo, FuncInfo, LineInfo
from netbpf.errors import ObjectFileError
from netbpf.records import field, record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from typing import Literal

    RelocationKind = Literal["map", "data", "call", "function", "extern", "arena", "jump_table"]
    Binding = Literal["static", "global", "weak"]
    KconfigType = Literal["bool", "tristate", "char", "integer", "string"]


@record(slots=True, frozen=True)
class Relocation:
    """An instruction that refers to something by name.

    ``offset`` is in bytes from the start of its function. ``map``: ``target`` names a map;
    ``data``: a data section, and ``value`` is an offset in it; ``call`` and ``function`` (its
    address): the function at byte ``value`` of section number ``section``; ``extern``: a name that
    is not defined here; ``arena``: a map of type arena, and ``value`` is an offset in the image of
    its variables; ``jump_table``: ``size`` bytes at ``value`` of the object's jump tables.
    """

    offset: int
    kind: RelocationKind
    target: str
    section: int = 0
    value: int = 0
    size: int = 0


@record(slots=True, frozen=True)
class Function:
    """A function's instructions in the file's byte order, and what refers to them.

    The offsets in ``lines`` and ``core`` are in bytes from its own start. A ``hidden`` function is
    global in C, and verified with its callers like a static one.
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
    binding: Binding = "global"
    hidden: bool = False

    @property
    def key(self) -> tuple[int, int]:
        """What calls find it by: section number and offset."""
        return self.section_index, self.offset


@record(slots=True, frozen=True)
class ProgramSpec:
    """A program: an entry function and what its section's name says.

    ``type`` 0: the name says nothing. ``extra`` is the rest of the name (``fentry/NAME``).
    ``attach`` says in a word how such a program is attached without a target of the caller's
    (``kprobe``, ``trace``, ``iter``), empty where that cannot be. ``needs_target``: the kernel
    wants the BTF id of what ``extra`` names. ``attach_type_optional``: old kernels want no attach
    type (before Linux 4.17). ``exception_callback`` is the global sub-program to call when the
    program throws.
    """

    name: str
    section: str
    type: int
    expected_attach_type: int
    flags: int
    extra: str
    autoload: bool
    function: Function = field(repr=False)
    attach: str = ""
    needs_target: bool = False
    attach_type_optional: bool = False
    exception_callback: str = ""

    @property
    def type_name(self) -> str:
        """The program type in the kernel's word."""
        return uapi.PROG_TYPE_NAMES.get(self.type, str(self.type))


@record(slots=True, frozen=True)
class StructOps:
    """The initial value of a struct of the kernel that is made of programs.

    ``programs`` are its function pointers that point to programs of the object: member, offset in
    the struct, program. With ``link`` it is registered by a link, without as it is written.
    """

    section: str
    type_name: str
    type_id: int
    data: bytes = field(repr=False)
    programs: tuple[tuple[str, int, str], ...] = ()
    link: bool = False


@record(slots=True, frozen=True)
class MapSpec:
    """A map as the object defines it; sizes in bytes.

    ``contents`` is the initial value of a data section (``section`` its name, empty for others).
    ``slots`` are initial values of a map of maps or programs: index and the name of what goes
    there. Key and value type ids are 0 where there are none. Without ``autocreate`` (a ``?`` before
    the section's name) the map is made only when asked for.
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
    autocreate: bool = True
    struct_ops: StructOps | None = None

    @property
    def type_name(self) -> str:
        """The map type in the kernel's word."""
        return uapi.MAP_TYPE_NAMES.get(self.type, str(self.type))

    @property
    def read_only(self) -> bool:
        """Whether it is a .rodata section, frozen once loaded."""
        return self.section.startswith(".rodata")


@record(slots=True, frozen=True)
class Extern:
    """A name that the kernel or its configuration has to define.

    ``btf_id`` is its VAR or FUNC, ``type_id`` its type under all typedefs and qualifiers: 0 (void)
    for a variable of the kernel of which only the address is wanted. ``kconfig`` is what kind of
    value ``.kconfig`` has to hold, at ``offset`` in ``size`` bytes.
    """

    name: str
    section: str
    weak: bool
    btf_id: int = 0
    type_id: int = 0
    function: bool = False
    kconfig: KconfigType | None = None
    signed: bool = False
    offset: int = 0
    size: int = 0


@record(slots=True, frozen=True)
class Arena:
    """The variables that live in an arena: the ``map``, and their initial image.

    ``value_type_id`` is the DATASEC that describes them, 0 where there is none.
    """

    map: str
    section: str
    value_type_id: int
    contents: bytes = field(repr=False)


@record(slots=True, frozen=True)
class Global:
    """A variable in a data section; ``map`` is the map of the section."""

    name: str
    map: str
    section: str
    type_id: int
    offset: int
    size: int
    static: bool


@record(slots=True, frozen=True)
class ObjectSpec:
    """All that an object file holds; the same on every machine.

    ``functions`` are the sub-programs, by section number and offset. ``btf`` has the sizes and
    offsets of its data sections filled in. ``jump_tables`` is a section of 64-bit offsets into
    functions, made of ``switch`` statements.
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
    arena: Arena | None = None
    jump_tables: bytes = field(default=b"", repr=False)

    def globals(self) -> Iterator[Global]:
        """The variables that have types in the BTF, section by section, by rising offset."""
        places = [(m.name, m.section, m.value_type_id) for m in self.maps if m.section]
        if self.arena is not None:
            places.append((self.arena.map, self.arena.section, self.arena.value_type_id))
        for name, section, type_id in places:
            layout = self.btf.type(type_id) if type_id and self.btf is not None else None
            if not isinstance(layout, t.DataSec):
                continue
            assert self.btf is not None
            for place in layout.variables:
                found = self.btf.type(place.type_id)
                if isinstance(found, t.Var):
                    static = found.linkage == t.LINKAGE_STATIC
                    yield Global(
                        found.name, name, section, found.type_id, place.offset, place.size, static
                    )

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
