"""Loading a program that has been put together, with all that its object says of it."""

from __future__ import annotations

from netbpf.bpf import prog, uapi
from netbpf.bpf.prog import Program
from netbpf.closing import Several
from netbpf.elf.spec import ObjectSpec, ProgramSpec
from netbpf.errors import NotSupportedError, VerifierError
from netbpf.loader import log, relocate
from netbpf.loader.relocate import Linked
from netbpf.records import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


@record(slots=True, frozen=True)
class Attached:
    """What a program is attached to as the kernel wants it said when it is loaded.

    ``btf_id`` is of the kernel's types, of those of a module (``btf_fd``) or of a program
    (``prog_fd``). ``attach_type`` is that of the section's name unless it is a member's number.
    """

    btf_id: int = 0
    btf_fd: int = 0
    prog_fd: int = 0
    attach_type: int | None = None


NOTHING = Attached()


def load(
    spec: ObjectSpec,
    program: ProgramSpec,
    linked: Linked,
    btf_fd: int,
    log_level: int,
    *,
    attached: Attached = NOTHING,
    fd_array: Sequence[int] = (),
) -> Program:
    """Load ``program`` as ``linked`` into the kernel, with maps of its own for its jump tables.

    :param btf_fd: the object's BTF in the kernel, 0 for none.
    :param fd_array: descriptors of modules' types, by the place that calls say.
    :raises VerifierError: it was refused. :raises BpfError: refused before the verifier looked.
    :raises NotSupportedError: it jumps by a table, and the kernel has no such maps.
    """
    log.debug("program %s: %d instructions", program.name, len(linked.insns) // 8)
    try:
        return _load(spec, program, linked, btf_fd, log_level, attached, fd_array)
    except VerifierError as error:
        # kernel/bpf/verifier.c: to an older kernel it is a program without a target.
        if program.attach == "tracing_multi" and "must provide btf_id" in error.log:
            raise NotSupportedError(
                f"program {program.name} in section {program.section}", since="7.2"
            ) from error
        raise


def _load(
    spec: ObjectSpec,
    program: ProgramSpec,
    linked: Linked,
    btf_fd: int,
    log_level: int,
    attached: Attached,
    fd_array: Sequence[int],
) -> Program:
    described = bool(btf_fd and linked.func_info)
    with Several() as made:
        if spec.jump_tables:
            # Imported only here: few objects have any.
            from netbpf.loader import jump_tables

            linked = jump_tables.put(spec, program, linked, made)
        return prog.load(
            program.type,
            linked.insns,
            license=spec.license,
            name=program.name,
            expected_attach_type=_attach_type(program, attached),
            flags=program.flags,
            btf_fd=btf_fd if described else 0,
            func_info=linked.func_info if described else b"",
            func_info_rec_size=relocate.FUNC_INFO_SIZE if described else 0,
            line_info=linked.line_info if described else b"",
            line_info_rec_size=relocate.LINE_INFO_SIZE if described and linked.line_info else 0,
            attach_btf_id=attached.btf_id,
            attach_fd=attached.prog_fd,
            attach_btf_fd=attached.btf_fd,
            fd_array=fd_array,
            kern_version=spec.version,
            log_level=log_level,
        )


def _attach_type(program: ProgramSpec, attached: Attached) -> int:
    if program.attach == "usdt":
        # So that one link can take all places of a probe. Before Linux 6.6 nobody looks at it.
        return uapi.BPF_TRACE_UPROBE_MULTI
    return program.expected_attach_type if attached.attach_type is None else attached.attach_type
