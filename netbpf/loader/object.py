"""An object file on its way into the kernel: opened, its variables set, loaded, closed."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from types import MappingProxyType, TracebackType
from typing import Any, Self

from netbpf.bpf import macros, prog, syscall, uapi
from netbpf.bpf.map import Map
from netbpf.bpf.prog import Program
from netbpf.btf import types as t
from netbpf.btf.errors import BtfFormatError
from netbpf.btf.values import Values, split
from netbpf.elf.object import open_object
from netbpf.elf.spec import MapSpec, ObjectSpec, ProgramSpec
from netbpf.errors import NetbpfError, NotFoundError, ObjectFileError
from netbpf.loader import btf as kernel_btf
from netbpf.loader import maps, relocate

# Types of programs whose target in the kernel is given by its BTF id.
_NEED_TARGET = frozenset(
    {
        uapi.BPF_PROG_TYPE_TRACING,
        uapi.BPF_PROG_TYPE_LSM,
        uapi.BPF_PROG_TYPE_EXT,
        uapi.BPF_PROG_TYPE_STRUCT_OPS,
    }
)


# libbpf's default for maps that are pinned by name.
PIN_ROOT = "/sys/fs/bpf"


class Object:
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
        self._specs = {m.name: m for m in spec.maps}
        self._contents = {
            m.name: bytearray(m.contents) for m in spec.maps if m.contents is not None
        }
        self._reused: dict[str, Map] = {}
        self._programs: dict[str, Program] = {}
        self._maps: dict[str, Map] = {}
        self._loaded = False
        self._stack = ExitStack()

    @property
    def programs(self) -> Mapping[str, Program]:
        """The loaded programs by name; they are closed with the object."""
        return MappingProxyType(self._programs)

    @property
    def maps(self) -> Mapping[str, Map]:
        """The maps by name (``counts``, ``filter.bss``); they are closed with the object."""
        return MappingProxyType(self._maps)

    @property
    def loaded(self) -> bool:
        """Whether ``load`` has been called and everything is there."""
        return self._loaded

    def set(self, name: str, value: Any) -> None:
        """Set a global variable, or ``member.of.it`` or ``element[3]``.

        Before loading every variable can be set, constants too; afterwards those that programs
        can write. Text stands for numbers, enumerators and booleans as well.

        :raises NotFoundError: there is no such variable.
        :raises ValueError: no such member, or the value does not fit. :raises TypeError: it is of
            another kind.
        """
        with self._own_errors():
            spec, type_id, offset, values = self._find(name)
            contents = self._contents[spec.name]
            if self._loaded:
                if spec.read_only:
                    raise ValueError(f"{name} is constant once the object is loaded")
                contents = bytearray(maps.read(self._maps[spec.name], spec))
            values.write(contents, offset, type_id, value, name)
            if self._loaded:
                end = offset + values.size(type_id)
                maps.write(self._maps[spec.name], spec, offset, bytes(contents[offset:end]))

    def get(self, name: str) -> Any:
        """The value of a global variable: as it will be loaded, or as it is now.

        :raises NotFoundError: there is no such variable.
        """
        with self._own_errors():
            spec, type_id, offset, values = self._find(name)
            if self._loaded:
                return values.read(maps.read(self._maps[spec.name], spec), offset, type_id)
            return values.read(bytes(self._contents[spec.name]), offset, type_id)

    def variables(self) -> dict[str, str]:
        """The global variables and the section that each lies in."""
        with self._own_errors():
            return {name: spec.section for name, (spec, _, _) in self._variables().items()}

    def resize(self, name: str, max_entries: int) -> None:
        """Give a map another size before it is created.

        :raises ObjectFileError: there is no such map.
        """
        self._before_load("resize a map")
        spec = self.spec.map(name)
        self._specs[spec.name] = replace(self._specs[spec.name], max_entries=max_entries)

    def reuse_map(self, name: str, existing: Map) -> None:
        """Use a map that exists instead of a new one; ``existing`` stays the caller's.

        :raises ObjectFileError: there is no such map.
        :raises ConflictError: the other map is of another type or size.
        """
        self._before_load("reuse a map")
        spec = self._specs[self.spec.map(name).name]
        maps.check_reuse(spec, existing)
        if spec.name in self._reused:
            self._reused.pop(spec.name).close()
        self._reused[spec.name] = Map.from_fd(existing.fileno())

    def load(self, *, only: Collection[str] = (), log_level: int = 0) -> None:
        """Create the maps and load the programs; after a failure nothing is left of it.

        :param only: the programs to load, with those that they tail call through a map in the
            file; without it all but those with a ``?`` before their section's name.
        :param log_level: of the verifier, where a program is refused.
        :raises ObjectFileError: the file wants what is not there, or what netbpf cannot do yet.
        :raises VerifierError: a program was refused. :raises BpfError: the kernel refused.
        """
        self._before_load("load")
        self.check()
        with self._own_errors(), ExitStack() as undo:
            programs = self._chosen(only)
            for program in programs:
                self._check(program)
            # Whatever fails below closes what was made above it, last first.
            undo.callback(self._unload)
            btf = kernel_btf.load(self.spec.btf) if self.spec.btf is not None else None
            if btf is not None:
                self._stack.enter_context(btf)
            btf_fd = btf.fileno() if btf is not None else 0
            self._create_maps(btf_fd)
            for program in programs:
                self._load_program(program, btf_fd, log_level)
            self._fill_slots()
            self._loaded = True
            undo.pop_all()

    def check(self) -> None:
        """Whether this machine could load the object at all; no kernel is asked.

        :raises ObjectFileError: it is made for a machine of the other byte order.
        """
        if self.spec.byteorder != sys.byteorder:
            raise ObjectFileError(
                self.spec.path,
                f"a {self.spec.byteorder}-endian object, this machine is {sys.byteorder}-endian",
                hint="compile it here with clang -target bpf",
            )

    def close(self) -> None:
        """Let go of programs, maps and BTF, in reverse; a second call does nothing."""
        self._unload()
        for name in list(self._reused):
            self._reused.pop(name).close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _unload(self) -> None:
        self._loaded = False
        self._programs.clear()
        self._maps.clear()
        self._stack.close()

    def _before_load(self, what: str) -> None:
        if self._loaded:
            raise ValueError(f"{what}: the object is loaded already")

    @contextmanager
    def _own_errors(self) -> Iterator[None]:
        # Types are decoded late, so that a file can turn out to be malformed anywhere.
        try:
            yield
        except BtfFormatError as error:
            raise ObjectFileError(self.spec.path, str(error), section=".BTF") from error
        except RecursionError as error:
            raise ObjectFileError(
                self.spec.path, "a type contains itself", section=".BTF"
            ) from error

    def _variables(self) -> dict[str, tuple[MapSpec, int, int]]:
        found: dict[str, tuple[MapSpec, int, int]] = {}
        btf = self.spec.btf
        for spec in self._specs.values():
            if not spec.section or not spec.value_type_id or btf is None:
                continue
            section = btf.type(spec.value_type_id)
            assert isinstance(section, t.DataSec)
            for variable in section.variables:
                inner = btf.type(variable.type_id)
                if isinstance(inner, t.Var):
                    found.setdefault(inner.name, (spec, inner.type_id, variable.offset))
        return found

    def _find(self, path: str) -> tuple[MapSpec, int, int, Values]:
        variables = self._variables()
        # A variable that is static in a function is called function.variable.
        longest = max(
            (v for v in variables if "." in v and f"{path}.".startswith((f"{v}.", f"{v}["))),
            key=len,
            default="",
        )
        name, steps = split("_" + path[len(longest) :]) if longest else split(path)
        name = longest or name
        if name not in variables or self.spec.btf is None:
            known = ", ".join(sorted(variables)) or "none"
            hint = f"its variables: {known}"
            if self.spec.btf is None:
                hint = "the file has no BTF, compile it with -g"
            raise NotFoundError("variable", name, where=f"in {self.spec.path}", hint=hint)
        values = Values(self.spec.btf)
        spec, type_id, offset = variables[name]
        inner, at = values.step(type_id, steps, name)
        return spec, inner, offset + at, values

    def _chosen(self, only: Collection[str]) -> list[ProgramSpec]:
        if not only:
            chosen = [p for p in self.spec.programs if p.autoload]
            if not chosen:
                raise ObjectFileError(self.spec.path, "no programs to load")
            return chosen
        wanted = {self.spec.program(name).name for name in only}
        entries = {p.name for p in self.spec.programs}
        jumps = {m.name: m for m in self._specs.values() if m.slots and m.inner is None}
        pending = list(wanted)
        while pending:
            program = self.spec.program(pending.pop())
            for function in relocate.functions(self.spec, program):
                for relocation in function.relocations:
                    if relocation.kind != "map" or relocation.target not in jumps:
                        continue
                    for _, name in jumps[relocation.target].slots:
                        if name in entries and name not in wanted:
                            wanted.add(name)
                            pending.append(name)
        return [p for p in self.spec.programs if p.name in wanted]

    def _check(self, program: ProgramSpec) -> None:
        # What netbpf cannot do yet is refused by name, before anything is made.
        path = self.spec.path
        if self.spec.not_yet:
            raise ObjectFileError(
                path, "sections of this kind cannot be loaded yet", section=self.spec.not_yet[0]
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
        externs = {e.name: e for e in self.spec.externs}
        for function in relocate.functions(self.spec, program):
            if function.core:
                assert self.spec.btf is not None
                wanted = self.spec.btf.type(function.core[0].type_id)
                raise ObjectFileError(
                    path,
                    f"program {program.name}: CO-RE relocations are not there yet (the first is "
                    f"of {wanted.name or 'a type without a name'})",
                    section=function.section,
                )
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

    def _create_maps(self, btf_fd: int) -> None:
        for name, spec in self._specs.items():
            if name in self._reused:
                made = self._stack.enter_context(Map.from_fd(self._reused[name].fileno()))
            elif spec.pinned_by_name:
                made = self._stack.enter_context(self._pinned(spec, btf_fd))
            else:
                made = self._stack.enter_context(maps.create(spec, btf_fd))
                if name in self._contents:
                    maps.fill(made, spec, bytes(self._contents[name]))
            self._maps[name] = made

    def _pinned(self, spec: MapSpec, btf_fd: int) -> Map:
        # LIBBPF_PIN_BY_NAME: one map for all objects that define it.
        path = os.path.join(PIN_ROOT, spec.name)
        try:
            found = Map.from_pin(path)
        except NotFoundError:
            made = maps.create(spec, btf_fd)
            try:
                made.pin(path)
            except NetbpfError:
                made.close()
                raise
            return made
        try:
            maps.check_reuse(spec, found)
        except NetbpfError:
            found.close()
            raise
        return found

    def _load_program(self, program: ProgramSpec, btf_fd: int, log_level: int) -> None:
        fds = {name: found.fileno() for name, found in self._maps.items()}
        fds.update({s.section: fds[name] for name, s in self._specs.items() if s.section})
        linked = relocate.link(self.spec, program, fds)
        described = bool(btf_fd and linked.func_info)
        made = prog.load(
            program.type,
            linked.insns,
            license=self.spec.license,
            name=program.name,
            expected_attach_type=program.expected_attach_type,
            flags=program.flags,
            btf_fd=btf_fd if described else 0,
            func_info=linked.func_info if described else b"",
            func_info_rec_size=relocate.FUNC_INFO_SIZE if described else 0,
            line_info=linked.line_info if described else b"",
            line_info_rec_size=relocate.LINE_INFO_SIZE if described and linked.line_info else 0,
            kern_version=self.spec.version,
            log_level=log_level,
        )
        self._programs[program.name] = self._stack.enter_context(made)
        for name, spec in self._specs.items():
            if spec.read_only:
                # As libbpf does: a program's constants can be found by way of the program.
                # Since Linux 5.10 (kernel/bpf/syscall.c: bpf_prog_bind_map); before it, without.
                with contextlib.suppress(OSError):
                    syscall.prog_bind_map(made.fileno(), self._maps[name].fileno())

    def _fill_slots(self) -> None:
        map_fds = {name: found.fileno() for name, found in self._maps.items()}
        program_fds = {name: found.fileno() for name, found in self._programs.items()}
        for name, spec in self._specs.items():
            if spec.slots:
                targets = map_fds if spec.inner is not None else program_fds
                maps.fill_slots(self._maps[name], spec, targets)


def open(path: str | os.PathLike[str]) -> Object:
    """Read the object file at ``path``; nothing is in the kernel before ``load``.

    :raises NotFoundError: there is no such file.
    :raises ObjectFileError: it is no BPF object, or a malformed one.
    """
    return Object(open_object(path))
