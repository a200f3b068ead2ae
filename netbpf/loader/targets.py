"""What programs are attached to by BTF id: functions, tracepoints, hooks and iterators."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from netbpf.bpf import btf_object, uapi
from netbpf.bpf.prog import Program
from netbpf.btf import types as t
from netbpf.elf.spec import ObjectSpec, ProgramSpec
from netbpf.errors import NotFoundError, ObjectFileError
from netbpf.loader import externs
from netbpf.loader.kernel_types import KernelTypes

# Which name in the kernel's types a target has: include/trace/bpf_probe.h, kernel/bpf/bpf_lsm.c,
# include/linux/bpf.h (DEFINE_BPF_ITER_FUNC). All others have that of the function itself.
_NAMES = {
    uapi.BPF_TRACE_RAW_TP: ("btf_trace_", t.KIND_TYPEDEF, "tracepoint"),
    uapi.BPF_LSM_MAC: ("bpf_lsm_", t.KIND_FUNC, "hook of security modules"),
    uapi.BPF_LSM_CGROUP: ("bpf_lsm_", t.KIND_FUNC, "hook of security modules"),
    uapi.BPF_TRACE_ITER: ("bpf_iter_", t.KIND_FUNC, "iterator"),
}
_FUNCTION = ("", t.KIND_FUNC, "function")


class Target(NamedTuple):
    """A target's id in the types of the kernel, of ``module``, or of ``program``."""

    btf_id: int
    module: str = ""
    program: Program | None = None


# kernel/bpf/verifier.c: bpf_check_attach_target; those of freplace have no attach type.
_TO_PROGRAMS = (uapi.BPF_TRACE_FENTRY, uapi.BPF_TRACE_FEXIT, uapi.BPF_TRACE_FSESSION)


def check(spec: ObjectSpec, attach_to: Mapping[str, Program]) -> None:
    """Whether the programs with these names can be attached to other programs at all.

    :raises ObjectFileError: there is none of that name, or it is of another type.
    """
    for name in attach_to:
        program = spec.program(name)
        of_tracing = (
            program.needs_target
            and program.type == uapi.BPF_PROG_TYPE_TRACING
            and program.expected_attach_type in _TO_PROGRAMS
        )
        if program.type != uapi.BPF_PROG_TYPE_EXT and not of_tracing:
            raise _refused(
                spec,
                program,
                "it is not attached to another program",
                hint="those in freplace, fentry, fexit and fsession are",
            )


def find(
    spec: ObjectSpec,
    program: ProgramSpec,
    types: Callable[[], KernelTypes],
    attach_to: Mapping[str, Program],
) -> Target | None:
    """The target of a program, None where its type has none.

    :param attach_to: programs by the name of the program that is to be attached to one of their
        functions, in place of the kernel's.
    :raises ObjectFileError: there is no such target, or nobody said which.
    """
    if program.attach == "tracing_multi":
        return _of_many(spec, program, types)
    if not program.needs_target:
        return None
    entry = program.type, program.expected_attach_type
    prefix, kind, what = _NAMES.get(entry[1], _FUNCTION)
    if program.type == uapi.BPF_PROG_TYPE_EXT:
        prefix, kind, what = _FUNCTION
    name = program.extra
    if not name:
        raise _refused(
            spec,
            program,
            f"the name of its section does not say which {what} it is for",
            hint=f'write SEC("{program.section.removeprefix("?")}/NAME")',
        )
    other = attach_to.get(program.name)
    if other is not None:
        return Target(_in_program(spec, program, other), program=other)
    if program.type == uapi.BPF_PROG_TYPE_EXT:
        raise _refused(
            spec,
            program,
            f"nobody said of which loaded program it replaces the function {name}",
            hint=f'Object.load(attach_to={{"{program.name}": PROGRAM}}), or '
            f"--attach-to {program.name}=PROG",
        )
    module, colon, rest = name.partition(":")
    found = externs.search(
        types(), prefix + (rest if colon else name), kind, module if colon else None
    )
    if found is None:
        raise _missing(spec, program, what, module if colon else "vmlinux", rest or name, types())
    return Target(found[2], found[0])


def _of_many(
    spec: ObjectSpec, program: ProgramSpec, types: Callable[[], KernelTypes]
) -> Target | None:
    """Of one for many functions only the module counts; which they are is said at attach."""
    module, _, _ = program.extra.rpartition(":")
    if module in ("", "vmlinux"):
        return None
    if module not in types().modules():
        raise _not_loaded(spec, program, module)
    return Target(0, module)


def _missing(
    spec: ObjectSpec,
    program: ProgramSpec,
    what: str,
    module: str,
    name: str,
    types: KernelTypes,
) -> ObjectFileError:
    hint = (
        "programs can be attached to what its types tell of (netbpf btf dump), and to what is in "
        "a module once it is loaded (modprobe)"
    )
    if module == "vmlinux":
        return _refused(spec, program, f"this kernel has no {what} {name}", hint)
    if module not in types.modules():
        return _not_loaded(spec, program, module)
    return _refused(spec, program, f"module {module} has no {what} {name}", hint)


def _not_loaded(spec: ObjectSpec, program: ProgramSpec, module: str) -> ObjectFileError:
    reason = f"module {module} is not loaded, or tells of no types"
    return _refused(spec, program, reason, f"load it: modprobe {module}")


def _in_program(spec: ObjectSpec, program: ProgramSpec, other: Program) -> int:
    info = other.info()
    if not info.btf_id:
        raise _refused(
            spec,
            program,
            f"program {info.name} (id:{info.id}) was loaded without BTF that tells its functions",
            hint="compile it with -g",
        )
    found = btf_object.read(info.btf_id).find(program.extra, t.KIND_FUNC)
    if found is None:
        raise NotFoundError(
            "function",
            program.extra,
            where=f"in program {info.name} (id:{info.id}), which {program.name} is to be "
            "attached to",
        )
    return found


def _refused(
    spec: ObjectSpec, program: ProgramSpec, reason: str, hint: str | None = None
) -> ObjectFileError:
    return ObjectFileError(
        spec.path, f"program {program.name}: {reason}", section=program.section, hint=hint
    )
