"""Loading a program that has been put together, with all that its object says of it."""

from __future__ import annotations

from netbpf.bpf import prog
from netbpf.bpf.prog import Program
from netbpf.elf.spec import ObjectSpec, ProgramSpec
from netbpf.loader import relocate
from netbpf.loader.relocate import Linked


def load(
    spec: ObjectSpec, program: ProgramSpec, linked: Linked, btf_fd: int, log_level: int
) -> Program:
    """Load ``program`` as ``linked`` into the kernel.

    :param btf_fd: the object's BTF in the kernel, 0 for none.
    :raises VerifierError: it was refused. :raises BpfError: refused before the verifier looked.
    """
    described = bool(btf_fd and linked.func_info)
    return prog.load(
        program.type,
        linked.insns,
        license=spec.license,
        name=program.name,
        expected_attach_type=program.expected_attach_type,
        flags=program.flags,
        btf_fd=btf_fd if described else 0,
        func_info=linked.func_info if described else b"",
        func_info_rec_size=relocate.FUNC_INFO_SIZE if described else 0,
        line_info=linked.line_info if described else b"",
        line_info_rec_size=relocate.LINE_INFO_SIZE if described and linked.line_info else 0,
        kern_version=spec.version,
        log_level=log_level,
    )
