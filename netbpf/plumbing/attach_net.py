"""Attaching programs that packets and sockets meet."""

from __future__ import annotations

import errno
import os
import socket
import struct
from contextlib import nullcontext
from functools import partial

from netbpf import netkit, tcx
from netbpf.bpf import link_create, syscall, uapi
from netbpf.bpf.fd import FD
from netbpf.bpf.link import Link
from netbpf.bpf.macros import BPF_F_NETFILTER_IP_DEFRAG
from netbpf.bpf.mprog import Hooks
from netbpf.bpf.mprog_refusal import device_name
from netbpf.bpf.prog import Program
from netbpf.elf.spec import ProgramSpec
from netbpf.errors import NetbpfError
from netbpf.netns import NetNS, links
from netbpf.netns.hooks import HOOKS as NETNS_HOOKS
from netbpf.plumbing.attachment import Attachment, Reasons, Where, refused, wanted

# include/uapi/linux/if_link.h: XDP_FLAGS_…_MODE.
_XDP_MODES = {"generic": 1 << 1, "native": 1 << 2, "offload": 1 << 3}
# include/uapi/linux/netfilter.h: enum nf_inet_hooks.
_NF_HOOKS = {"prerouting": 0, "input": 1, "forward": 2, "output": 3, "postrouting": 4}
_NF_FAMILIES = {"ipv4": socket.AF_INET, "ipv6": socket.AF_INET6}
_CHAINS: dict[int, tuple[Hooks, str]] = {
    uapi.BPF_TCX_INGRESS: (tcx.HOOKS, "ingress"),
    uapi.BPF_TCX_EGRESS: (tcx.HOOKS, "egress"),
    uapi.BPF_NETKIT_PRIMARY: (netkit.HOOKS, "primary"),
    uapi.BPF_NETKIT_PEER: (netkit.HOOKS, "peer"),
}
_OF_NETNS = {hook.prog_type: hook.name for hook in NETNS_HOOKS.values()}
_SK_SKB = {
    "stream_parser": uapi.BPF_SK_SKB_STREAM_PARSER,
    "stream_verdict": uapi.BPF_SK_SKB_STREAM_VERDICT,
    "verdict": uapi.BPF_SK_SKB_VERDICT,
}
# include/uapi/asm-generic/socket.h: attach and detach, by program type.
_SOCKET = {
    uapi.BPF_PROG_TYPE_SOCKET_FILTER: (50, 27),
    uapi.BPF_PROG_TYPE_SK_REUSEPORT: (52, 68),
}


def chain(spec: ProgramSpec, program: Program, where: Where) -> Attachment:
    """To the chain of a device's hook; the section may say which, ``hook`` says it otherwise."""
    if where.ifindex is None:
        raise wanted(spec, "ifindex")
    hooks, hook = _CHAINS.get(spec.expected_attach_type, (None, where.hook))
    if hook is None:
        raise wanted(spec, "hook: ingress, egress, primary or peer")
    if where.hook not in (None, hook):
        raise ValueError(f"{spec.name} is made for {hook}, not {where.hook}")
    if hooks is None:
        hooks = netkit.HOOKS if hook in netkit.HOOKS.names else tcx.HOOKS
    placed = hooks.attach(
        where.ifindex,
        hook,
        program,
        before=where.before,
        after=where.after,
        first=where.first,
        link=True,
    )
    return Attachment(spec.name, placed.link)


def xdp(spec: ProgramSpec, program: Program, where: Where) -> Attachment:
    """To a device's receive path, before there is a packet."""
    if spec.expected_attach_type in (uapi.BPF_XDP_DEVMAP, uapi.BPF_XDP_CPUMAP):
        raise NetbpfError(
            f"{spec.name} (section {spec.section}) is attached to no device: it is an entry's "
            "program of a devmap or cpumap",
            hint="update the map with the program's descriptor in the value",
            code="not_attachable",
        )
    if where.ifindex is None:
        raise wanted(spec, "ifindex")
    if where.mode is not None and where.mode not in _XDP_MODES:
        raise ValueError(f"no mode {where.mode}: it is {', '.join(_XDP_MODES)}")
    flags = _XDP_MODES[where.mode] if where.mode else 0
    reasons: dict[int, tuple[str, str | None]] = {
        errno.EBUSY: ("another xdp program is there already", "take that one away first"),
        errno.EEXIST: ("another xdp program is there, in another mode", None),
        errno.ENODEV: ("there is no such device in this network namespace", None),
        errno.EOPNOTSUPP: ("the device has no such mode", "mode generic works on every device"),
    }
    if device_name(where.ifindex).startswith("ifindex "):
        # What the kernel says of a device that is not there (net/core/dev.c: bpf_xdp_link_attach).
        reasons[errno.EINVAL] = reasons[errno.ENODEV]
    try:
        made = link_create.xdp(program.fileno(), where.ifindex, flags)
    except OSError as error:
        raise refused(spec, error, f"ifindex {where.ifindex}", reasons, since="5.9") from error
    return Attachment(spec.name, Link(FD(made)))


def netns(spec: ProgramSpec, program: Program, where: Where) -> Attachment:
    """To a network namespace, the thread's own unless another is named."""
    with NetNS.current() if where.netns is None else nullcontext(where.netns) as ns:
        placed = links.attach(ns, _OF_NETNS[spec.type], program)
    return Attachment(spec.name, placed.link)


def cgroup(spec: ProgramSpec, program: Program, where: Where) -> Attachment:
    """To a cgroup of version 2, for all that is in it and below."""
    if where.cgroup is None:
        raise wanted(spec, "cgroup")
    kind = spec.expected_attach_type
    if where.hook is not None:
        if spec.type != uapi.BPF_PROG_TYPE_CGROUP_SKB or where.hook not in ("ingress", "egress"):
            raise ValueError(f"{spec.name}: hook {where.hook} is none of its type")
        kind = getattr(uapi, f"BPF_CGROUP_INET_{where.hook.upper()}")
    place = f"cgroup {where.cgroup}"
    reasons: Reasons = {
        errno.EBADF: ("it is no folder of cgroup2", None),
        errno.E2BIG: ("64 programs are there already", None),
        errno.EPERM: (
            "not permitted, or a program is there or above that allows no others beside it",
            "needs CAP_NET_ADMIN; `bpftool cgroup tree` shows what is there",
        ),
    }
    try:
        if isinstance(where.cgroup, int):
            made = link_create.cgroup(program.fileno(), where.cgroup, kind)
        else:
            with FD(os.open(where.cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as folder:
                made = link_create.cgroup(program.fileno(), folder.fileno(), kind)
    except OSError as error:
        raise refused(spec, error, place, reasons, since="5.7") from error
    return Attachment(spec.name, Link(FD(made)))


def sockmap(spec: ProgramSpec, program: Program, where: Where) -> Attachment:
    """To the sockets of a sockmap or sockhash; before Linux 6.10 without a link."""
    if where.map is None:
        raise wanted(spec, "map: the sockmap")
    kind = spec.expected_attach_type
    if where.hook is not None:
        if spec.type != uapi.BPF_PROG_TYPE_SK_SKB or where.hook not in _SK_SKB:
            raise ValueError(f"{spec.name}: hook {where.hook} is none of its type")
        kind = _SK_SKB[where.hook]
    elif spec.type == uapi.BPF_PROG_TYPE_SK_SKB and not kind:
        raise wanted(spec, f"hook: {', '.join(_SK_SKB)}")
    target = where.map.fileno()
    place = f"map {where.map.info().name}"
    reasons: Reasons = {
        errno.EBUSY: ("a program is there already, or one that goes with none beside it", None),
        errno.EOPNOTSUPP: ("it is no sockmap", None),
        errno.EINVAL: ("it is no sockmap, or the program is of another type", None),
    }
    try:
        return Attachment(spec.name, Link(FD(link_create.sockmap(program.fileno(), target, kind))))
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise refused(spec, error, place, reasons, since="6.10") from error
    attr = uapi.ProgAttachAttr(attach_type=kind)
    attr.target_fd, attr.attach_bpf_fd = target, program.fileno()
    try:
        syscall.prog_attach(attr)
    except OSError as error:
        raise refused(spec, error, place, reasons) from error
    # Map and program may be closed by their owners before the attachment is.
    held, by = FD(os.dup(target)), FD(os.dup(program.fileno()))
    return Attachment(spec.name, None, partial(_leave_map, held, by, kind))


def _leave_map(target: FD, program: FD, kind: int) -> None:
    with target, program:
        attr = uapi.ProgAttachAttr(attach_type=kind)
        attr.target_fd, attr.attach_bpf_fd = target.fileno(), program.fileno()
        try:
            syscall.prog_detach(attr)
        except OSError as error:
            # Somebody else has put another program there, which is not ours to take away.
            if error.errno != errno.ENOENT:
                raise


def netfilter(spec: ProgramSpec, program: Program, where: Where) -> Attachment:
    """To a netfilter hook of the thread's network namespace."""
    if where.family not in _NF_FAMILIES or where.hook not in _NF_HOOKS or where.priority is None:
        raise wanted(
            spec,
            f"family ({', '.join(_NF_FAMILIES)}), hook ({', '.join(_NF_HOOKS)}) and priority",
        )
    if not -(2**31) <= where.priority < 2**31:
        raise ValueError(f"priority {where.priority} is no number of 32 bits")
    place = f"netfilter {where.family} {where.hook}"
    reasons: Reasons = {
        errno.EBUSY: ("a program of this priority is there already", "choose another priority"),
        errno.ERANGE: ("the first and the last priority are not for programs", None),
        errno.EAFNOSUPPORT: ("the kernel has no netfilter for this family", None),
    }
    try:
        made = link_create.netfilter(
            program.fileno(),
            _NF_FAMILIES[where.family],
            _NF_HOOKS[where.hook],
            where.priority,
            BPF_F_NETFILTER_IP_DEFRAG if where.defrag else 0,
        )
    except OSError as error:
        config = "CONFIG_NETFILTER_BPF_LINK"
        raise refused(spec, error, place, reasons, since="6.4", config=config) from error
    return Attachment(spec.name, Link(FD(made)))


def of_socket(spec: ProgramSpec, program: Program, where: Where) -> Attachment:
    """To one socket, or to the group that shares its port; the socket holds it, not a link."""
    if where.socket is None:
        raise wanted(spec, "socket")
    attach, detach = _SOCKET[spec.type]
    with socket.socket(fileno=os.dup(where.socket)) as other:
        try:
            other.setsockopt(socket.SOL_SOCKET, attach, struct.pack("=i", program.fileno()))
        except OSError as error:
            raise refused(spec, error, f"socket {where.socket}") from error
        held = FD(os.dup(where.socket))
    return Attachment(spec.name, held, partial(_leave_socket, held, detach))


def _leave_socket(held: FD, option: int) -> None:
    with socket.socket(fileno=os.dup(held.fileno())) as other:
        try:
            other.setsockopt(socket.SOL_SOCKET, option, struct.pack("=i", 0))
        except FileNotFoundError:
            return


def route(spec: ProgramSpec, program: Program, where: Where) -> Attachment:
    """Refused: such a program goes with a route, which `ip` makes."""
    word = spec.type_name.removeprefix("lwt_")
    line = (
        "ip -6 route add PREFIX encap seg6local action End.BPF endpoint pinned PIN dev DEV"
        if word == "seg6local"
        else f"ip route add PREFIX encap bpf {word} pinned PIN dev DEV"
    )
    raise NetbpfError(
        f"{spec.name} (section {spec.section}) is attached by a route, not by bpf(2)",
        hint=f"pin it, then: {line}",
        code="not_attachable",
    )
