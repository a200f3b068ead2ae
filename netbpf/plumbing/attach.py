"""Attaching loaded programs of every type, one or all of an object."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from netbpf.bpf import kobject, link_create, uapi
from netbpf.bpf.fd import FD
from netbpf.bpf.link import Link
from netbpf.bpf.map import Map
from netbpf.bpf.prog import Program
from netbpf.closing import Closing, Several
from netbpf.elf.spec import MapSpec, ProgramSpec
from netbpf.errors import BpfError, NetbpfError
from netbpf.interrupts import held as uninterrupted
from netbpf.loader.object import Object
from netbpf.plumbing import attach_net as net
from netbpf.plumbing import attach_tracing as tracing
from netbpf.plumbing import attach_usdt as usdt
from netbpf.plumbing.attachment import Attachment, Where

Attacher = Callable[[ProgramSpec, Program, Where], Attachment]

# What does it, what it takes of Where, and in words what has to be said of that.
_Entry = tuple[Attacher, frozenset[str], str]

_TARGET = "what it is to be attached to"
# By how a program is attached that may name its target itself (ProgramSpec.attach).
_BY_SECTION: dict[str, _Entry] = {
    "trace": (tracing.trace, frozenset({"target", "function", "cookie"}), _TARGET),
    "lsm": (tracing.trace, frozenset({"cookie"}), _TARGET),
    "raw_tracepoint": (tracing.raw_tracepoint, frozenset({"function", "cookie"}), _TARGET),
    "tracepoint": (tracing.tracepoint, frozenset({"function", "cookie"}), _TARGET),
    "kprobe": (tracing.kprobe, frozenset({"function", "cookie"}), _TARGET),
    "ksyscall": (tracing.ksyscall, frozenset({"function", "cookie"}), _TARGET),
    "kprobe_multi": (tracing.kprobe_multi, frozenset({"function", "cookie"}), _TARGET),
    "kprobe_session": (tracing.kprobe_multi, frozenset({"function", "cookie"}), _TARGET),
    "uprobe": (tracing.uprobe, frozenset({"function", "pid", "cookie"}), _TARGET),
    "uprobe_multi": (tracing.uprobe_multi, frozenset({"function", "pid", "cookie"}), _TARGET),
    "iter": (tracing.iterator, frozenset({"map"}), _TARGET),
    "usdt": (usdt.attach, frozenset({"function", "pid", "cookie", "object"}), _TARGET),
    "tracing_multi": (tracing.trace_multi, frozenset({"function", "cookie"}), _TARGET),
}
_CGROUP: _Entry = (net.cgroup, frozenset({"cgroup", "hook"}), "a cgroup")
_NETNS: _Entry = (net.netns, frozenset({"netns"}), "a network namespace")
_SOCKMAP: _Entry = (net.sockmap, frozenset({"map", "hook"}), "a sockmap")
_SOCKET: _Entry = (net.of_socket, frozenset({"socket"}), "a socket")
_ROUTE: _Entry = (net.route, frozenset(), "a route")

# By type, for those that have to be told where.
_BY_TYPE: dict[int, _Entry] = {
    uapi.BPF_PROG_TYPE_SCHED_CLS: (
        net.chain,
        frozenset({"ifindex", "hook", "before", "after", "first"}),
        "a device",
    ),
    uapi.BPF_PROG_TYPE_XDP: (net.xdp, frozenset({"ifindex", "mode"}), "a device"),
    uapi.BPF_PROG_TYPE_FLOW_DISSECTOR: _NETNS,
    uapi.BPF_PROG_TYPE_SK_LOOKUP: _NETNS,
    uapi.BPF_PROG_TYPE_CGROUP_SKB: _CGROUP,
    uapi.BPF_PROG_TYPE_CGROUP_SOCK: _CGROUP,
    uapi.BPF_PROG_TYPE_CGROUP_SOCK_ADDR: _CGROUP,
    uapi.BPF_PROG_TYPE_CGROUP_DEVICE: _CGROUP,
    uapi.BPF_PROG_TYPE_CGROUP_SYSCTL: _CGROUP,
    uapi.BPF_PROG_TYPE_CGROUP_SOCKOPT: _CGROUP,
    uapi.BPF_PROG_TYPE_SOCK_OPS: _CGROUP,
    # lsm_cgroup: the others of this type attach by themselves.
    uapi.BPF_PROG_TYPE_LSM: _CGROUP,
    uapi.BPF_PROG_TYPE_SK_MSG: _SOCKMAP,
    uapi.BPF_PROG_TYPE_SK_SKB: _SOCKMAP,
    uapi.BPF_PROG_TYPE_NETFILTER: (
        net.netfilter,
        frozenset({"family", "hook", "priority", "defrag"}),
        "family, hook and priority",
    ),
    uapi.BPF_PROG_TYPE_SOCKET_FILTER: _SOCKET,
    uapi.BPF_PROG_TYPE_SK_REUSEPORT: _SOCKET,
    uapi.BPF_PROG_TYPE_LWT_IN: _ROUTE,
    uapi.BPF_PROG_TYPE_LWT_OUT: _ROUTE,
    uapi.BPF_PROG_TYPE_LWT_XMIT: _ROUTE,
    uapi.BPF_PROG_TYPE_LWT_SEG6LOCAL: _ROUTE,
}

# Attached by themselves even without a word behind the section's name: it counts at load.
_NEVER_OPEN = frozenset({"trace", "lsm"})
# Iterators that go over a map, which has to be given (kernel/bpf/map_iter.c and its kin).
_OVER_A_MAP = frozenset({"bpf_map_elem", "bpf_sk_storage_map", "sockmap"})


def attach(spec: ProgramSpec, program: Program, **where: Any) -> Attachment:
    """Attach a program where its section says, or ``where`` (``Where`` has the words).

    Whatever is opened on the way is closed when a step fails. The attachment does not need the
    program any more: it may be closed.

    :param program: ``spec`` as it was loaded.
    :raises TypeError, ValueError: a word that says nothing to this type, or one is missing.
    :raises BpfError: the kernel refused; the reason says why where that is known.
    :raises NotSupportedError: this kernel cannot. :raises NotFoundError: the target is not there.
    :raises NetbpfError: such a program is not attached by bpf(2).
    """
    place = Where(**where)
    entry = _BY_SECTION.get(spec.attach) or _BY_TYPE.get(spec.type)
    if entry is None:
        raise NetbpfError(
            f"{spec.name} (section {spec.section}): a program of type {spec.type_name} is not "
            "attached by netbpf",
            hint="`netbpf prog run` runs one over packets, a tail call map or tc take others",
            code="not_attachable",
        )
    attacher, takes, _ = entry
    if useless := sorted(place.given() - takes):
        raise ValueError(
            f"{spec.name} (section {spec.section}): {', '.join(useless)} says nothing to a program "
            f"of type {spec.type_name}"
        )
    made: Attachment | None = None
    try:
        with uninterrupted():
            made = attacher(spec, program, place)
    except BaseException:
        if made is not None:
            made.close()
        raise
    return made


def attach_struct_ops(spec: MapSpec, found: Map, value: bytes = b"") -> Attachment:
    """Register the kernel's struct that a map of type struct_ops holds.

    :param value: what the map is to hold; for a struct in ``.struct_ops``, which is registered by
        that, without a link. One in ``.struct_ops.link`` holds it already.
    :raises BpfError: the kernel refused.
    """
    if spec.struct_ops is None:
        raise ValueError(f"map {spec.name} is of type {spec.type_name}, not struct_ops")
    operation = f"register {spec.name} ({spec.struct_ops.type_name})"
    if not spec.struct_ops.link:
        try:
            found.update(bytes(4), value)
        except BpfError as error:
            # kernel/bpf/bpf_struct_ops.c: once it was registered, its map is good for nothing.
            busy = error.errno == errno.EBUSY
            raise BpfError(
                operation,
                error.errno,
                "it was registered before, which it can be once" if busy else error.reason,
                hint="load the object again" if busy else error.hint,
            ) from error
        own = Map.from_fd(found.fileno())
        return Attachment(spec.name, None, partial(_unregister, own))
    try:
        return Attachment(spec.name, Link(FD(link_create.struct_ops(found.fileno()))))
    except OSError as error:
        raise kobject.refused(operation, error) from error


def _unregister(own: Map) -> None:
    with own:
        own.delete(bytes(4))


def left_open(spec: ProgramSpec) -> str | None:
    """What has to be said to attach the program; None: it says all by itself.

    Those are attached by ``attach_all``. As in libbpf, a section's name alone (``SEC("kprobe")``)
    leaves open what it has no word for.
    """
    if spec.attach == "iter":
        return "the map that it goes over" if spec.extra in _OVER_A_MAP else None
    entry = _BY_SECTION.get(spec.attach) or _BY_TYPE.get(spec.type)
    if spec.attach in _BY_SECTION and (spec.extra or spec.attach in _NEVER_OPEN):
        return None
    return "where" if entry is None else entry[2]


class Attachments(Mapping[str, Attachment], Closing):
    """The attachments of an object by program or map, closed together, last one first.

    ``open`` are the programs that were left alone, each with what would have to be said.
    """

    def __init__(self) -> None:
        self.open: dict[str, str] = {}
        self._made: dict[str, Attachment] = {}
        self._own = Several()

    def add(self, attachment: Attachment) -> None:
        """Own one more."""
        self._made[attachment.program] = self._own.add(attachment)

    def close(self) -> None:
        """Take all of them away; a second call does nothing."""
        self._own.close()
        self._made.clear()

    def __getitem__(self, name: str) -> Attachment:
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._made)

    def __len__(self) -> int:
        return len(self._made)


@dataclass(frozen=True, slots=True)
class Auto:
    """What ``attach_all`` attaches, and what it leaves alone with what would have to be said."""

    programs: list[ProgramSpec]
    structs: list[MapSpec]
    open: dict[str, str]

    @property
    def names(self) -> list[str]:
        """The programs and structs to be attached, in order."""
        return [p.name for p in self.programs] + [m.name for m in self.structs]


def foresee(programs: Iterable[ProgramSpec], maps: Iterable[MapSpec]) -> Auto:
    """What ``attach_all`` would do, were these loaded."""
    found = Auto([], [m for m in maps if m.struct_ops is not None], {})
    for spec in programs:
        if spec.type == uapi.BPF_PROG_TYPE_STRUCT_OPS:
            # Its struct is what is registered.
            continue
        if (missing := left_open(spec)) is not None:
            found.open[spec.name] = missing
            continue
        found.programs.append(spec)
    return found


def attach_all(obj: Object) -> Attachments:
    """Attach the loaded programs and structs of an object that say by themselves where.

    All or none: when one cannot be attached, those before it are taken away again, in reverse.

    :raises NetbpfError: as for ``attach``.
    """
    if not obj.loaded:
        raise ValueError("the object is not loaded: there is nothing to attach")
    auto = foresee(
        (p for p in obj.spec.programs if p.name in obj.programs),
        (m for m in obj.spec.maps if m.name in obj.maps),
    )
    made = Attachments()
    made.open.update(auto.open)
    try:
        for spec in auto.programs:
            with uninterrupted():
                where = {"object": obj} if spec.attach == "usdt" else {}
                made.add(attach(spec, obj.programs[spec.name], **where))
        for struct in auto.structs:
            with uninterrupted():
                value = obj.struct_value(struct.name)
                made.add(attach_struct_ops(struct, obj.maps[struct.name], value))
    except BaseException:
        made.close()
        raise
    return made
