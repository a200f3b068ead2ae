"""Attaching programs that functions, tracepoints and readers meet."""

from __future__ import annotations

import errno
import fnmatch
import os
import re
import struct

from netbpf.bpf import btf_object, kobject, link_create, perf_event, uapi
from netbpf.bpf.fd import FD
from netbpf.bpf.link import Link
from netbpf.bpf.prog import Program
from netbpf.btf import functions
from netbpf.btf import types as t
from netbpf.btf.blob import Btf
from netbpf.elf import symbols
from netbpf.elf.spec import ProgramSpec
from netbpf.errors import NetbpfError, NotFoundError, NotSupportedError
from netbpf.loader import kernel_types
from netbpf.plumbing.attachment import Attachment, Reasons, Where, refused, wanted

_TRACING = "CAP_BPF and CAP_PERFMON"
# Documentation/arch: how the kernel calls the functions of system calls.
_SYSCALL_PREFIXES = {
    "x86_64": "__x64",
    "aarch64": "__arm64",
    "s390x": "__s390x",
    "riscv64": "__riscv",
}
_NO_PROBES = "the kernel has no such function, or none that may be probed"


def trace(spec: ProgramSpec, program: Program, where: Where) -> Attachment:
    """To what the program was loaded for: tp_btf, fentry and its kin, lsm, freplace."""
    if (where.target is None) != (where.function is None):
        raise wanted(spec, "target and function together, or neither")
    target_fd = target_id = 0
    if where.target is not None and where.function is not None:
        target_fd, target_id = where.target.fileno(), _function_id(where.target, where.function)
    reasons: Reasons = {
        errno.EBUSY: ("it takes no more programs, or this one is attached already", None),
        errno.E2BIG: ("38 programs are there already", None),
    }
    try:
        made = link_create.tracing(
            program.fileno(),
            spec.expected_attach_type,
            target_fd=target_fd,
            target_btf_id=target_id,
            cookie=where.cookie,
        )
    except OSError as error:
        if error.errno != errno.EINVAL or target_fd or where.cookie:
            raise refusal(spec, error, spec.extra or "its target", reasons) from error
        # Before Linux 5.18 there is only this one.
        try:
            made = link_create.raw_tracepoint(program.fileno(), None)
        except OSError as older:
            raise refusal(spec, older, spec.extra or "its target", reasons) from older
    return Attachment(spec.name, Link(FD(made)))


def trace_multi(spec: ProgramSpec, program: Program, where: Where) -> Attachment:
    """To all functions whose names fit a pattern, of the kernel or of a module: fentry.multi."""
    text = where.function or spec.extra
    module, _, pattern = text.rpartition(":")
    if not pattern:
        raise wanted(spec, "function: a function of the kernel, or a pattern")
    types = kernel_types.running()
    btf: Btf | None = types.btf
    if module and module != "vmlinux":
        btf = found.btf if (found := types.modules().get(module)) is not None else None
    ids = functions.matching(btf, pattern) if btf is not None else {}
    if set(pattern) & set("*?") and perf_event.tracefs() is not None:
        # That of one the kernel cannot take would keep it from taking any.
        ids = {name: ids[name] for name in ids.keys() & _probed()}
    if not ids:
        where_not = f"in module {module}" if module else "in the kernel"
        raise NotFoundError("function", pattern, where=f"{where_not} that may be traced")
    reasons: Reasons = {
        errno.ENOENT: (
            "one of the functions may not be traced",
            "where tracefs is mounted such ones are left out",
        ),
        errno.EBUSY: ("one of the functions takes no more programs", None),
    }
    try:
        made = link_create.tracing_multi(
            program.fileno(), spec.expected_attach_type, sorted(ids.values()), cookie=where.cookie
        )
    except OSError as error:
        raise refusal(spec, error, text, reasons, since="7.2") from error
    return Attachment(spec.name, Link(FD(made)))


def _function_id(target: Program, name: str) -> int:
    info = target.info()
    if info.btf_id:
        btf = btf_object.read(info.btf_id)
        found = btf.find(name, t.KIND_FUNC)
        if found is not None:
            return found
    raise NotFoundError("function", name, where=f"in program {info.name} (id:{info.id})")


def raw_tracepoint(spec: ProgramSpec, program: Program, where: Where) -> Attachment:
    """To a tracepoint, with its arguments as they are."""
    name = where.function or spec.extra
    if not name:
        raise wanted(spec, "function: the tracepoint's name")
    reasons: Reasons = {errno.ENOENT: ("there is no such tracepoint", None)}
    try:
        made = link_create.raw_tracepoint(program.fileno(), name, where.cookie)
    except OSError as error:
        raise refusal(spec, error, name, reasons) from error
    return Attachment(spec.name, Link(FD(made)))


def tracepoint(spec: ProgramSpec, program: Program, where: Where) -> Attachment:
    """To a tracepoint, by way of a perf event."""
    text = where.function or spec.extra
    category, slash, name = text.partition("/")
    if not slash or not name or ".." in (category, name) or "/" in name:
        raise wanted(spec, "function: category/name of the tracepoint")
    if perf_event.tracefs() is None:
        raise NetbpfError(
            f"attach {spec.name} to {text}: tracefs is not mounted",
            hint=f"mount -t tracefs tracefs {perf_event.TRACEFS[0]}",
            code="no_tracefs",
        )
    reasons: Reasons = {errno.ENOENT: ("there is no such tracepoint", None)}
    try:
        event = FD(perf_event.tracepoint(category, name))
    except OSError as error:
        raise refusal(spec, error, text, reasons) from error
    return at_event(spec, program, event, text, where.cookie)


def kprobe(spec: ProgramSpec, program: Program, where: Where) -> Attachment:
    """To a function of the kernel, or with ``+N`` to a place in it."""
    return _kprobe(spec, program, where, where.function or spec.extra)


def ksyscall(spec: ProgramSpec, program: Program, where: Where) -> Attachment:
    """To the function of a system call."""
    name = where.function or spec.extra
    prefix = _SYSCALL_PREFIXES.get(os.uname().machine, "__se")
    return _kprobe(spec, program, where, f"{prefix}_sys_{name}" if name else "")


def _kprobe(spec: ProgramSpec, program: Program, where: Where, text: str) -> Attachment:
    name, offset = _place(spec, text, "function: the kernel's")
    reasons: Reasons = {
        errno.ENOENT: (_NO_PROBES, None),
        errno.EINVAL: (_NO_PROBES, None),
        errno.EADDRNOTAVAIL: (_NO_PROBES, None),
    }
    if not os.path.isdir("/sys/bus/event_source/devices/kprobe"):
        raise _missing(spec, text, "CONFIG_KPROBE_EVENTS")
    try:
        event = FD(perf_event.probe("kprobe", name, offset, at_return=_at_return(spec)))
    except OSError as error:
        raise refusal(spec, error, text, reasons) from error
    return at_event(spec, program, event, text, where.cookie)


def uprobe(spec: ProgramSpec, program: Program, where: Where) -> Attachment:
    """To a function of a file, in all processes that run it or in one."""
    text = where.function or spec.extra
    path, colon, rest = text.rpartition(":")
    if not colon or not path:
        raise wanted(spec, "function: path:function")
    path, (name, offset) = file_of(spec, path), _place(spec, rest, "function: path:function")
    # A number is a place in the file.
    number = re.fullmatch(r"0x[0-9a-fA-F]{1,15}|[0-9]{1,18}", name)
    offset += int(name, 0) if number else symbols.offset(path, name)
    if not os.path.isdir("/sys/bus/event_source/devices/uprobe"):
        raise _missing(spec, text, "CONFIG_UPROBE_EVENTS")
    pid = -1 if where.pid is None else where.pid
    try:
        event = FD(perf_event.probe("uprobe", path, offset, at_return=_at_return(spec), pid=pid))
    except OSError as error:
        raise refusal(spec, error, text) from error
    return at_event(spec, program, event, text, where.cookie)


def at_event(spec: ProgramSpec, program: Program, event: FD, text: str, cookie: int) -> Attachment:
    """To a perf event, which the attachment holds from now on."""
    with event:
        try:
            made: Link | FD
            try:
                made = Link(FD(link_create.perf_event(program.fileno(), event.fileno(), cookie)))
            except OSError as error:
                if error.errno != errno.EINVAL or cookie:
                    raise
                # Before Linux 5.15 there is no link for it.
                perf_event.set_program(event.fileno(), program.fileno())
                made = event.dup()
            try:
                perf_event.enable(event.fileno())
            except BaseException:
                made.close()
                raise
        except OSError as error:
            raise refusal(spec, error, text) from error
    return Attachment(spec.name, made)


def kprobe_multi(spec: ProgramSpec, program: Program, where: Where) -> Attachment:
    """To all functions of the kernel whose names fit a pattern."""
    text = where.function or spec.extra
    if not text:
        raise wanted(spec, "function: a function of the kernel, or a pattern")
    names = [text]
    if set(text) & set("*?"):
        names = _kernel_functions(spec, text)
    flags = uapi.BPF_F_KPROBE_MULTI_RETURN if _at_return(spec) else 0
    reasons: Reasons = {errno.ESRCH: (_NO_PROBES, None), errno.ENOENT: (_NO_PROBES, None)}
    try:
        made = link_create.kprobe_multi(
            program.fileno(), spec.expected_attach_type, names, flags=flags, cookie=where.cookie
        )
    except OSError as error:
        raise refusal(spec, error, text, reasons, since="5.18", config="CONFIG_FPROBE") from error
    return Attachment(spec.name, Link(FD(made)))


def _kernel_functions(spec: ProgramSpec, pattern: str) -> list[str]:
    if perf_event.tracefs() is None:
        raise NetbpfError(
            f"attach {spec.name} to {pattern}: tracefs is not mounted",
            hint=f"mount -t tracefs tracefs {perf_event.TRACEFS[0]}",
            code="no_tracefs",
        )
    names = sorted(fnmatch.filter(_probed(), pattern))
    if not names:
        raise NotFoundError("function", pattern, where="in the kernel that may be probed")
    return names


def _probed() -> set[str]:
    """The functions that may be probed, where tracefs is mounted."""
    with open(f"{perf_event.tracefs()}/available_filter_functions") as lines:
        # A function of a module has the module's name behind it.
        return {line.split()[0] for line in lines}


def uprobe_multi(spec: ProgramSpec, program: Program, where: Where) -> Attachment:
    """To all functions of a file whose names fit a pattern."""
    text = where.function or spec.extra
    path, colon, pattern = text.rpartition(":")
    if not colon or not path or not pattern:
        raise wanted(spec, "function: path:function, or path:pattern")
    path = file_of(spec, path)
    offsets = sorted(set(symbols.matching(path, pattern).values()))
    flags = uapi.BPF_F_UPROBE_MULTI_RETURN if _at_return(spec) else 0
    try:
        made = link_create.uprobe_multi(
            program.fileno(),
            spec.expected_attach_type,
            path,
            offsets,
            flags=flags,
            cookies=[where.cookie for _ in offsets] if where.cookie else (),
            pid=where.pid or 0,
        )
    except OSError as error:
        raise refusal(spec, error, text, since="6.6", config="CONFIG_UPROBES") from error
    return Attachment(spec.name, Link(FD(made)))


def iterator(spec: ProgramSpec, program: Program, where: Where) -> Attachment:
    """An iterator over what its section says, of a map where it goes over a map's elements."""
    info = struct.pack("=I", where.map.fileno()) if where.map is not None else b""
    reasons: Reasons = {
        errno.EBADF: ("it goes over a map, and none was given", "give it as map"),
        errno.EINVAL: ("it goes over another type of map, or over none", None),
        errno.EACCES: ("it reads or writes more than the map's elements have", None),
    }
    try:
        made = link_create.iterator(program.fileno(), info)
    except OSError as error:
        raise refusal(spec, error, spec.extra or "its iterator", reasons) from error
    return Attachment(spec.name, Link(FD(made)))


def read_iterator(link: Link) -> bytes:
    """All that the iterator's program writes, from the start.

    :raises BpfError: it is no iterator, or its program failed.
    """
    try:
        with FD(link_create.iterator_open(link.fileno())) as reader:
            pieces = []
            while piece := os.read(reader.fileno(), 1 << 16):
                pieces.append(piece)
            return b"".join(pieces)
    except OSError as error:
        raise kobject.refused(f"read link {link.id} as an iterator", error) from error


def _at_return(spec: ProgramSpec) -> bool:
    return spec.section.removeprefix("?").startswith(("kret", "uret"))


def _place(spec: ProgramSpec, text: str, what: str) -> tuple[str, int]:
    name, plus, offset = text.partition("+")
    if not name:
        raise wanted(spec, what)
    if plus and not re.fullmatch(r"0x[0-9a-fA-F]{1,8}|[0-9]{1,9}", offset):
        raise ValueError(f"attach {spec.name} to {text}: {offset!r} is no offset")
    if plus and int(offset, 0) and _at_return(spec):
        raise ValueError(f"attach {spec.name} to {text}: a return has no offset")
    return name, int(offset, 0) if plus else 0


def file_of(spec: ProgramSpec, path: str) -> str:
    """The file that the section means: a name without a slash is looked for as a shell would."""
    if "/" in path:
        return path
    machine = f"{os.uname().machine}-linux-gnu"
    folders = (
        ["/usr/lib64", "/usr/lib", f"/usr/lib/{machine}", f"/lib/{machine}"]
        if ".so" in path
        else [*os.environ.get("PATH", "").split(":"), "/usr/bin", "/usr/sbin"]
    )
    for folder in folders:
        if os.path.isfile(f"{folder}/{path}"):
            return f"{folder}/{path}"
    raise NotFoundError("file", path, where=f"for {spec.name} (section {spec.section})")


def _missing(spec: ProgramSpec, text: str, config: str) -> NetbpfError:
    return NotSupportedError(f"attaching {spec.section or text}", config=config)


def refusal(
    spec: ProgramSpec,
    error: OSError,
    place: str,
    reasons: Reasons | None = None,
    *,
    since: str | None = None,
    config: str | None = None,
) -> NetbpfError:
    """Why the kernel did not attach a program here; EPERM names the capabilities of tracing."""
    return refused(spec, error, place, reasons, since=since, config=config, needs=_TRACING)
