"""All that an object wants of the running kernel: looked up before anything is made."""

from __future__ import annotations

from netbpf.bpf import uapi
from netbpf.bpf.map import Map
from netbpf.bpf.prog import Program
from netbpf.closing import Several
from netbpf.elf.spec import MapSpec, ObjectSpec, ProgramSpec
from netbpf.errors import VerifierError
from netbpf.loader import choose, kernel_types, log
from netbpf.loader.programs import NOTHING, Attached
from netbpf.records import field, record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, MutableMapping, Sequence

    from netbpf.loader.externs import Found, Patch
    from netbpf.loader.struct_ops import Fitted
    from netbpf.loader.targets import Target


# kernel/bpf/disasm.c: how a call is shown whose number is no helper's.
_POISONED = r"^\d+: \(85\) call unknown#(\d+)\b"


@record(slots=True)
class Wanted:
    """What was found in the kernel: externs, targets of programs, structs made of programs.

    ``members`` says of programs which map's struct they belong to, and the number of the member.
    """

    externs: dict[str, Found] = field(default_factory=dict)
    targets: dict[str, Target] = field(default_factory=dict)
    structs: dict[str, Fitted] = field(default_factory=dict)
    members: dict[str, tuple[str, int]] = field(default_factory=dict)

    def value(self, name: str, programs: Mapping[str, int]) -> bytes:
        """The value of the map of a struct, with the descriptors of ``programs`` in it."""
        from netbpf.loader import struct_ops

        return struct_ops.value(self.structs[name], programs)


def look_up(
    spec: ObjectSpec,
    chosen: Sequence[ProgramSpec],
    maps: Mapping[str, MapSpec],
    contents: MutableMapping[str, bytearray],
    given: Collection[str],
    attach_to: Mapping[str, Program],
) -> Wanted:
    """Find all of it.

    :param chosen: the programs that are to be loaded.
    :param contents: the data sections by map, of which ``.kconfig`` is filled.
    :param given: what of ``.kconfig`` was set by hand.
    :param attach_to: programs by the name of those to be attached to one of their functions.
    :raises ObjectFileError: the kernel has not what the object wants.
    """
    # The rooms are imported where they are wanted: few objects want all.
    found = Wanted()
    types = kernel_types.running
    if attach_to:
        from netbpf.loader import targets

        targets.check(spec, attach_to)
    if spec.externs:
        from netbpf.loader import externs

        found.externs = externs.resolve(spec, types, contents, given)
    for program in chosen:
        if program.needs_target or program.attach == "tracing_multi":
            from netbpf.loader import targets

            target = targets.find(spec, program, types, attach_to)
            if target is not None:
                found.targets[program.name] = target
                log.debug("program %s is for %s: %s", program.name, program.extra, target)
    names = {p.name for p in chosen if p.type == uapi.BPF_PROG_TYPE_STRUCT_OPS}
    for each in choose.structs(maps.values(), names):
        from netbpf.loader import struct_ops

        assert each.struct_ops is not None
        found.structs[each.name] = struct_ops.fit(spec, each, each.struct_ops.data, types())
    if found.structs or names:
        from netbpf.loader import struct_ops

        found.members = struct_ops.members(spec, found.structs, sorted(names))
    return found


class Open:
    """What was found, with the descriptors that programs and maps need of it."""

    def __init__(self, spec: ObjectSpec, found: Wanted, made: Several) -> None:
        self._found = found
        self._made = made
        self._modules: dict[str, int] = {}
        self.fd_array: list[int] = []
        self.patches: Mapping[str, Patch] = {}
        if found.externs:
            from netbpf.loader import externs

            self.patches = externs.patches(spec, found.externs, self.module, self.fd_array)

    def module(self, name: str) -> int:
        """The descriptor of a module's types, 0 for the kernel itself.

        :raises NotFoundError: it went meanwhile. :raises BpfError: it may not be read.
        """
        if name and name not in self._modules:
            from netbpf.bpf import btf_object

            self._modules[name] = self._made.add(btf_object.open_module(name)).fileno()
        return self._modules[name] if name else 0

    def create_struct(self, spec: MapSpec, btf_fd: int) -> Map:
        """Create the map of a struct.

        :raises BpfError: the kernel refused.
        """
        from netbpf.loader import struct_ops

        fitted = self._found.structs[spec.name]
        return struct_ops.create(spec, fitted, btf_fd, self.module(fitted.module))

    def attached(self, program: str) -> Attached:
        """What a program is attached to."""
        target = self._found.targets.get(program)
        if target is not None:
            if target.program is not None:
                return Attached(target.btf_id, prog_fd=target.program.fileno())
            return Attached(target.btf_id, btf_fd=self.module(target.module))
        if program in self._found.members:
            name, number = self._found.members[program]
            struct = self._found.structs[name]
            return Attached(struct.type_id, btf_fd=self.module(struct.module), attach_type=number)
        return NOTHING


def explained(error: VerifierError, spec: ObjectSpec) -> VerifierError:
    """``error`` in words, where the verifier met the call of a weak function that is not there."""
    if not spec.externs:
        return error
    import re

    said = re.findall(_POISONED, error.log, re.MULTILINE)
    if not said:
        return error
    from netbpf.loader import externs

    extern = externs.poisoned(spec, int(said[-1]))
    if extern is None:
        return error
    return VerifierError(
        error.operation,
        error.errno,
        f"it calls {extern.name}, which this kernel has not",
        hint=f"call it only if ({extern.name}) says that it is there",
        log=error.log,
    )
