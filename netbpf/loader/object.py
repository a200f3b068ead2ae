"""An object file on its way into the kernel: opened, its variables set, loaded, closed."""

from __future__ import annotations

import os
import sys
from types import MappingProxyType

from netbpf.bpf import syscall
from netbpf.bpf.map import Map
from netbpf.bpf.prog import Program
from netbpf.closing import Closing, Several
from netbpf.elf.externs import KCONFIG
from netbpf.elf.object import Blaming, open_object
from netbpf.elf.spec import MapSpec, ObjectSpec, ProgramSpec
from netbpf.errors import ObjectFileError, VerifierError
from netbpf.loader import btf as kernel_btf
from netbpf.loader import choose, core, kernel_types, maps, programs, relocate, wanted
from netbpf.records import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from typing import Any

    from netbpf.loader.arena import Arena
    from netbpf.loader.arena_image import Image
    from netbpf.loader.variables import Found


class Object(Closing):
    """An object file and, once loaded, its programs and maps in the kernel.

    ::

        with loader.open("filter.o") as obj:
            obj.set("verdict", 2)
            obj.load()
            tcx.attach(ifindex, "ingress", obj.programs["filter"])

    Closing lets go of everything; what is attached or pinned stays. A map of programs loses its
    entries with its last descriptor or pin (kernel/bpf/arraymap.c: prog_array_map_free).
    """

    def __init__(self, spec: ObjectSpec) -> None:
        self.spec = spec
        self._specs = {m.name: maps.described(spec, m) for m in spec.maps}
        self._contents = {
            m.name: bytearray(m.contents) for m in self._specs.values() if m.contents is not None
        }
        # Values of the configuration that were set by hand.
        self._given: set[str] = set()
        self._reused: dict[str, Map] = {}
        self._values: dict[str, bytes] = {}
        self._programs: dict[str, Program] = {}
        self._maps: dict[str, Map] = {}
        self._arena: Image | None = None
        self._loaded = False
        self._made = Several()

    @property
    def programs(self) -> Mapping[str, Program]:
        """The loaded programs by name; they are closed with the object."""
        return MappingProxyType(self._programs)

    @property
    def maps(self) -> Mapping[str, Map]:
        """The maps by name (``counts``, ``filter.bss``); they are closed with the object."""
        return MappingProxyType(self._maps)

    @property
    def arena(self) -> Arena:
        """The memory that the programs share with this process; it is closed with the object.

        :raises ValueError: the object has no arena, or is not loaded.
        """
        if self._arena is None:
            raise ValueError(f"{self.spec.path} has no arena, or is not loaded")
        return self._arena

    @property
    def loaded(self) -> bool:
        """Whether ``load`` has been called and everything is there."""
        return self._loaded

    def set(self, name: str, value: Any) -> None:
        """Set a global variable, or ``member.of.it`` or ``element[3]``.

        Before loading every variable can be set, constants too; afterwards those that programs
        can write. Text stands for numbers, enumerators and booleans as well. A value of the
        kernel's configuration that is set is not asked of the kernel.

        :raises NotFoundError: there is no such variable.
        :raises ValueError: no such member, or the value does not fit. :raises TypeError: it is of
            another kind.
        """
        with self._own_errors():
            found = self._find(name)
            if self._loaded and maps.constant(found.map):
                raise ValueError(f"{name} is constant once the object is loaded")
            if found.map.section == KCONFIG:
                from netbpf.btf.values import split

                self._given.add(split(name)[0])
            data = bytearray(self.read_data(found.map.name, found.offset, found.size))
            found.write(data, value, name)
            self.write_data(found.map.name, found.offset, bytes(data))

    def get(self, name: str) -> Any:
        """The value of a global variable: as it will be loaded, or as it is now.

        :raises NotFoundError: there is no such variable.
        """
        with self._own_errors():
            found = self._find(name)
            return found.read(self.read_data(found.map.name, found.offset, found.size))

    def read_data(self, name: str, offset: int = 0, size: int | None = None) -> bytes:
        """The bytes of a data section, by its map: as they will be loaded, or as they are now.

        :param size: of a piece at ``offset``; without it all up to the end.
        :raises KeyError: there is no such map.
        """
        end = len(self._contents[name]) if size is None else offset + size
        if self._loaded and self._arena is not None and maps.is_arena(self._specs[name]):
            return self._arena.read_data(offset, end - offset)
        if self._loaded:
            return maps.read(self._maps[name], self._specs[name])[offset:end]
        return bytes(self._contents[name][offset:end])

    def write_data(self, name: str, offset: int, data: bytes) -> None:
        """Change bytes of a data section, by its map; before loading of a constant one too.

        :raises ValueError: they lie outside of it, or are constant once the object is loaded.
        :raises KeyError: there is no such map.
        """
        spec = self._specs[name]
        if not 0 <= offset <= offset + len(data) <= len(self._contents[name]):
            raise ValueError(f"{len(data)} bytes at {offset} lie outside of {name}")
        if not self._loaded:
            self._contents[name][offset : offset + len(data)] = data
            return
        if maps.constant(spec):
            raise ValueError(f"{name} is constant once the object is loaded")
        if self._arena is not None and maps.is_arena(spec):
            self._arena.write_data(offset, data)
            return
        maps.write(self._maps[name], spec, offset, data)

    def struct_value(self, name: str) -> bytes:
        """What the map of a struct made of programs holds, with its programs in it.

        The map of one in ``.struct_ops`` is empty: it is registered when it gets its value.

        :raises KeyError: there is no such map, or the object is not loaded.
        """
        return self._values[name]

    def variables(self) -> dict[str, str]:
        """The global variables and the section that each lies in."""
        with self._own_errors():
            from netbpf.loader import variables

            known = variables.known(self.spec, self._specs.values())
            return {name: spec.section for name, (spec, _, _) in known.items()}

    def resize(self, name: str, max_entries: int) -> None:
        """Give a map another size before it is created.

        :raises ObjectFileError: there is no such map.
        :raises ValueError: it holds variables or a struct of programs, which are one entry.
        """
        self._before_load("resize a map")
        spec = self.spec.map(name)
        if spec.contents is not None or spec.struct_ops is not None:
            raise ValueError(f"resize map {spec.name}: what it holds is one entry, and stays one")
        self._specs[spec.name] = replace(self._specs[spec.name], max_entries=max_entries)

    def reuse_map(self, name: str, existing: Map) -> None:
        """Use a map that exists instead of a new one; ``existing`` stays the caller's.

        A map to which the file gives no size takes that of ``existing``.

        :raises ObjectFileError: there is no such map.
        :raises ConflictError: the other map is of another type or size.
        """
        self._before_load("reuse a map")
        spec = self._specs[self.spec.map(name).name]
        if not maps.entries(spec):
            spec = replace(spec, max_entries=existing.info().max_entries)
        maps.check_reuse(spec, existing)
        self._specs[spec.name] = spec
        if spec.name in self._reused:
            self._reused.pop(spec.name).close()
        self._reused[spec.name] = Map.from_fd(existing.fileno())

    def load(
        self,
        *,
        only: Collection[str] = (),
        log_level: int = 0,
        btf: str | os.PathLike[str] | None = None,
        attach_to: Mapping[str, Program] = MappingProxyType({}),
    ) -> None:
        """Create the maps and load the programs; after a failure nothing is left of it.

        :param only: the programs to load, with those that they tail call through a map in the
            file; without it all but those with a ``?`` before their section's name.
        :param log_level: of the verifier, where a program is refused.
        :param btf: a file with the kernel's types, BTF or ELF, in place of those that the running
            kernel tells. What is no relocation is looked up in the running kernel all the same.
        :param attach_to: loaded programs, by the name of the program of this object that is to
            be attached to one of their functions (freplace, fentry, fexit); they stay the caller's.
        :raises NotSupportedError: the file wants the kernel's types, and it does not tell them, or
            jumps by tables, and it has none.
        :raises ObjectFileError: the file wants what this kernel has not; it is named.
        :raises VerifierError: a program was refused. :raises BpfError: the kernel refused.
        """
        self._before_load("load")
        self.check()
        with self._own_errors():
            chosen = choose.programs(self.spec, only, self._specs)
            for program in chosen:
                choose.check(self.spec, program)
            found = self._look_up(chosen, attach_to)
            fitted = self._fit(chosen, btf)
            try:
                self._make(chosen, found, fitted, log_level)
            except BaseException:
                self._unload()
                raise
            self._loaded = True

    def _make(
        self,
        chosen: Collection[ProgramSpec],
        found: wanted.Wanted,
        fitted: core.Fitted,
        log_level: int,
    ) -> None:
        btf = self.spec.btf
        structs = any(m.struct_ops is not None for m in self.spec.maps)
        own = kernel_btf.load(btf, needed=structs) if btf is not None else None
        if own is not None:
            self._made.add(own)
        btf_fd = own.fileno() if own is not None else 0
        opened = wanted.Open(self.spec, found, self._made)
        self._create_maps(btf_fd, found, opened)
        for program in chosen:
            self._load_program(program, fitted, opened, btf_fd, log_level)
        self._fill_slots(found)

    def check(self) -> None:
        """Whether this machine could load the object at all; no kernel is asked.

        :raises ObjectFileError: it is made for a machine of the other byte order, or an arena has
            no room for its variables.
        """
        if self.spec.byteorder != sys.byteorder:
            raise ObjectFileError(
                self.spec.path,
                f"a {self.spec.byteorder}-endian object, this machine is {sys.byteorder}-endian",
                hint="compile it here with clang -target bpf",
            )
        if self.spec.arena is not None:
            from netbpf.loader import arena_image

            arena_image.check(self.spec, self._specs.values())

    def close(self) -> None:
        """Let go of programs, maps and BTF, in reverse; a second call does nothing."""
        self._unload()
        for name in list(self._reused):
            self._reused.pop(name).close()

    def _unload(self) -> None:
        self._loaded = False
        self._values.clear()
        self._programs.clear()
        self._maps.clear()
        self._arena = None
        self._made.close()

    def _before_load(self, what: str) -> None:
        if self._loaded:
            raise ValueError(f"{what}: the object is loaded already")

    def _own_errors(self) -> Blaming:
        return Blaming(self.spec.path)

    def _find(self, path: str) -> Found:
        from netbpf.loader import variables

        return variables.find(self.spec, self._specs.values(), path)

    def _look_up(
        self, chosen: Sequence[ProgramSpec], attach_to: Mapping[str, Program]
    ) -> wanted.Wanted:
        return wanted.look_up(
            self.spec, chosen, self._specs, self._contents, self._given, attach_to
        )

    def _fit(
        self, chosen: Collection[ProgramSpec], path: str | os.PathLike[str] | None
    ) -> core.Fitted:
        reached = [f for program in chosen for f in relocate.functions(self.spec, program)]
        functions = core.concerned(self.spec, reached)
        types = kernel_types.running if path is None else lambda: kernel_types.read(path)
        if not functions:
            if path is not None:
                # A wrong file is told of, also where nothing is looked up in it.
                types()
            return core.Fitted({}, {})
        return core.fit(self.spec, functions, types)

    def _create_maps(self, btf_fd: int, found: wanted.Wanted, opened: wanted.Open) -> None:
        for name, spec in self._specs.items():
            if spec.struct_ops is not None:
                if name in found.structs:
                    self._maps[name] = self._made.add(opened.create_struct(spec, btf_fd))
                continue
            if name in self._reused:
                made = self._made.add(Map.from_fd(self._reused[name].fileno()))
            elif spec.pinned_by_name:
                made = self._made.add(maps.pinned(spec, btf_fd, self._fill_new))
            else:
                made = self._made.add(maps.create(spec, btf_fd))
                self._fill_new(made, spec)
            self._maps[name] = made
            if maps.is_arena(spec):
                # Before any program is loaded: the verifier asks where it is.
                self._map_arena(made)

    def _fill_new(self, made: Map, spec: MapSpec) -> None:
        if maps.is_arena(spec):
            self._map_arena(made, new=True).write_data(0, bytes(self._contents.get(spec.name, b"")))
        elif spec.name in self._contents:
            maps.fill(made, spec, bytes(self._contents[spec.name]))

    def _map_arena(self, made: Map, *, new: bool = False) -> Image:
        # Imported only here: few objects have one.
        from netbpf.loader.arena_image import Image

        if self._arena is None:
            self._arena = self._made.add(Image(self.spec, made, new=new))
        return self._arena

    def _load_program(
        self,
        program: ProgramSpec,
        fitted: core.Fitted,
        opened: wanted.Open,
        btf_fd: int,
        log_level: int,
    ) -> None:
        fds = {name: found.fileno() for name, found in self._maps.items()}
        fds.update({s.section: fds[name] for name, s in self._specs.items() if s.section})
        arena = self._arena.start if self._arena is not None else 0
        linked = relocate.link(self.spec, program, fds, fitted.insns, opened.patches, arena)
        try:
            made = programs.load(
                self.spec,
                program,
                linked,
                btf_fd,
                log_level,
                attached=opened.attached(program.name),
                fd_array=opened.fd_array,
            )
        except VerifierError as error:
            told = core.explained(error, linked.starts, fitted.missing)
            raise wanted.explained(told, self.spec) from error
        self._programs[program.name] = self._made.add(made)
        for name, spec in self._specs.items():
            if spec.read_only:
                # As libbpf does: a program's constants can be found by way of the program.
                # Since Linux 5.10 (kernel/bpf/syscall.c: bpf_prog_bind_map); before it, without.
                try:
                    syscall.prog_bind_map(made.fileno(), self._maps[name].fileno())
                except OSError:
                    pass

    def _fill_slots(self, found: wanted.Wanted) -> None:
        map_fds = {name: found.fileno() for name, found in self._maps.items()}
        program_fds = {name: found.fileno() for name, found in self._programs.items()}
        for name, spec in self._specs.items():
            if spec.slots:
                targets = map_fds if spec.inner is not None else program_fds
                maps.fill_slots(self._maps[name], spec, targets)
            elif spec.struct_ops is not None and name in found.structs:
                self._values[name] = found.value(name, program_fds)
                if spec.struct_ops.link:
                    # Now it can be attached; without a link this would register it.
                    self._maps[name].update(bytes(4), self._values[name])


def open(path: str | os.PathLike[str]) -> Object:
    """Read the object file at ``path``; nothing is in the kernel before ``load``.

    :raises NotFoundError: there is no such file.
    :raises ObjectFileError: it is no BPF object, or a malformed one.
    """
    return Object(open_object(path))
