"""One thin function per kind of link: BPF_LINK_CREATE and the older calls that do the same.

They take and return plain descriptors, own nothing and raise plain OSError with the kernel's errno.
Links of tcx and netkit are made in mprog_request.py: they have a place in a chain.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence

from netbpf import libc
from netbpf.bpf import syscall, uapi


def _create(prog_fd: int, attach_type: int, flags: int = 0) -> uapi.LinkCreateAttr:
    attr = uapi.LinkCreateAttr(attach_type=attach_type, flags=flags)
    attr.prog_fd = prog_fd
    return attr


def xdp(prog_fd: int, ifindex: int, flags: int = 0) -> int:
    """At a device; ``flags`` is one of XDP_FLAGS_SKB_MODE and its kin, 0 lets the kernel choose.

    Since Linux 5.9 (net/core/dev.c: bpf_xdp_link_attach).
    """
    attr = _create(prog_fd, uapi.BPF_XDP, flags)
    attr.target_ifindex = ifindex
    return syscall.link_create(attr)


def netns(prog_fd: int, netns_fd: int, attach_type: int) -> int:
    """flow_dissector or sk_lookup of a network namespace.

    Since Linux 5.8, sk_lookup since 5.9 (kernel/bpf/net_namespace.c: netns_bpf_link_create).
    """
    attr = _create(prog_fd, attach_type)
    attr.target_fd = netns_fd
    return syscall.link_create(attr)


def cgroup(
    prog_fd: int,
    cgroup_fd: int,
    attach_type: int,
    *,
    flags: int = 0,
    relative_fd: int = 0,
    relative_id: int = 0,
    expected_revision: int = 0,
) -> int:
    """At a cgroup; ``flags`` and the rest place it among others, as in a chain.

    Since Linux 5.7, the order since 6.17 (kernel/bpf/cgroup.c: cgroup_bpf_link_attach).
    """
    attr = _create(prog_fd, attach_type, flags)
    attr.target_fd = cgroup_fd
    if relative_fd:
        attr.cgroup.relative_fd = relative_fd
    elif relative_id:
        attr.cgroup.relative_id = relative_id
    attr.cgroup.expected_revision = expected_revision
    return syscall.link_create(attr)


def sockmap(prog_fd: int, map_fd: int, attach_type: int) -> int:
    """At a sockmap or sockhash.

    Since Linux 6.10 (net/core/sock_map.c: sock_map_link_create).
    """
    attr = _create(prog_fd, attach_type)
    attr.target_fd = map_fd
    return syscall.link_create(attr)


def netfilter(prog_fd: int, family: int, hook: int, priority: int, flags: int = 0) -> int:
    """At a netfilter hook of the caller's network namespace.

    Since Linux 6.4 (net/netfilter/nf_bpf_link.c: bpf_nf_link_attach).
    """
    attr = _create(prog_fd, uapi.BPF_NETFILTER)
    attr.netfilter.pf, attr.netfilter.hooknum = family, hook
    attr.netfilter.priority, attr.netfilter.flags = priority, flags
    return syscall.link_create(attr)


def tracing(
    prog_fd: int, attach_type: int, *, target_fd: int = 0, target_btf_id: int = 0, cookie: int = 0
) -> int:
    """At the function, tracepoint or hook that the program was loaded for.

    Of a program of type ext or tracing ``target_fd`` and ``target_btf_id`` may name another program
    and its function.

    Since Linux 5.18 (kernel/bpf/syscall.c: link_create); ``raw_tracepoint`` does it before.
    """
    attr = _create(prog_fd, attach_type)
    attr.target_fd = target_fd
    attr.tracing.target_btf_id, attr.tracing.cookie = target_btf_id, cookie
    return syscall.link_create(attr)


def tracing_multi(prog_fd: int, attach_type: int, ids: Sequence[int], *, cookie: int = 0) -> int:
    """At many functions by their ids in the types that the program was loaded for.

    :param cookie: what the program is told, the same at each.

    Since Linux 7.2 (kernel/bpf/trampoline.c: bpf_trampoline_multi_attach).
    """
    numbers = (ctypes.c_uint32 * len(ids))(*ids)
    cookies = (ctypes.c_uint64 * len(ids))(*(cookie for _ in ids))
    attr = _create(prog_fd, attach_type)
    attr.tracing_multi.ids, attr.tracing_multi.cnt = ctypes.addressof(numbers), len(ids)
    if cookie:
        attr.tracing_multi.cookies = ctypes.addressof(cookies)
    return syscall.link_create(attr)


def raw_tracepoint(prog_fd: int, name: str | None, cookie: int = 0) -> int:
    """At a raw tracepoint; without a name at what the program was loaded for.

    Since Linux 4.17, the cookie since 6.10 (kernel/bpf/syscall.c: bpf_raw_tracepoint_open).
    """
    attr = uapi.RawTracepointAttr(prog_fd=prog_fd, cookie=cookie)
    buffer = ctypes.create_string_buffer(name.encode()) if name is not None else None
    if buffer is not None:
        attr.name = ctypes.addressof(buffer)
    return libc.bpf(uapi.BPF_RAW_TRACEPOINT_OPEN, attr)


def perf_event(prog_fd: int, perf_fd: int, cookie: int = 0) -> int:
    """At a perf event, which the link holds from now on.

    Since Linux 5.15 (kernel/bpf/syscall.c: bpf_perf_link_attach).
    """
    attr = _create(prog_fd, uapi.BPF_PERF_EVENT)
    attr.target_fd = perf_fd
    attr.perf_event.bpf_cookie = cookie
    return syscall.link_create(attr)


def kprobe_multi(
    prog_fd: int, attach_type: int, symbols: Sequence[str], *, flags: int = 0, cookie: int = 0
) -> int:
    """At many functions of the kernel; each gets the same cookie.

    Since Linux 5.18, sessions since 6.10 (kernel/trace/bpf_trace.c: bpf_kprobe_multi_link_attach).
    """
    names = (ctypes.c_char_p * len(symbols))(*(name.encode() for name in symbols))
    cookies = (ctypes.c_uint64 * len(symbols))(*(cookie for _ in symbols))
    attr = _create(prog_fd, attach_type)
    attr.kprobe_multi.flags, attr.kprobe_multi.cnt = flags, len(symbols)
    attr.kprobe_multi.syms = ctypes.addressof(names)
    if cookie:
        attr.kprobe_multi.cookies = ctypes.addressof(cookies)
    return syscall.link_create(attr)


def uprobe_multi(
    prog_fd: int,
    attach_type: int,
    path: str,
    offsets: Sequence[int],
    *,
    flags: int = 0,
    cookies: Sequence[int] = (),
    semaphores: Sequence[int] = (),
    pid: int = 0,
) -> int:
    """At many places of a file, by offset in it; ``pid`` 0 is every process.

    :param cookies: what the program is told at each place, or none.
    :param semaphores: where in the file the program counts who looks at each place, 0 for nowhere.

    Since Linux 6.6, sessions since 6.13 (kernel/trace/bpf_trace.c: bpf_uprobe_multi_link_attach).
    """
    name = ctypes.create_string_buffer(os.fsencode(path))
    places, told, counters = (
        (ctypes.c_uint64 * len(each))(*each) for each in (offsets, cookies, semaphores)
    )
    attr = _create(prog_fd, attach_type)
    multi = attr.uprobe_multi
    multi.path, multi.offsets = ctypes.addressof(name), ctypes.addressof(places)
    multi.cnt, multi.flags, multi.pid = len(offsets), flags, pid
    if cookies:
        multi.cookies = ctypes.addressof(told)
    if any(semaphores):
        multi.ref_ctr_offsets = ctypes.addressof(counters)
    return syscall.link_create(attr)


def iterator(prog_fd: int, info: bytes = b"") -> int:
    """An iterator; ``info`` is a union bpf_iter_link_info that says over what.

    Since Linux 5.8 (kernel/bpf/bpf_iter.c: bpf_iter_link_attach).
    """
    attr = _create(prog_fd, uapi.BPF_TRACE_ITER)
    buffer = ctypes.create_string_buffer(info, len(info))
    if info:
        attr.iter_info, attr.iter_info_len = ctypes.addressof(buffer), len(info)
    return syscall.link_create(attr)


def iterator_open(link_fd: int) -> int:
    """BPF_ITER_CREATE: a descriptor to read what the iterator's program writes, once."""
    return libc.bpf(uapi.BPF_ITER_CREATE, uapi.IterCreateAttr(link_fd=link_fd))


def struct_ops(map_fd: int) -> int:
    """Register the struct of a map of type struct_ops that was made with BPF_F_LINK.

    Since Linux 6.4 (kernel/bpf/bpf_struct_ops.c: bpf_struct_ops_link_create).
    """
    attr = uapi.LinkCreateAttr(attach_type=uapi.BPF_STRUCT_OPS)
    attr.map_fd = map_fd
    return syscall.link_create(attr)
