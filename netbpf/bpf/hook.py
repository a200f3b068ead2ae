"""A device's hook, and reading the chain that hangs there."""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from netbpf.bpf import syscall, uapi
from netbpf.bpf.chain import Chain, Entry

# One more than the kernel's limit, so that one call always has room (include/linux/bpf_mprog.h).
_ROOM = 64


@dataclass(frozen=True, slots=True)
class Hook:
    """One of a device's hooks.

    ``member`` is its part of BPF_LINK_CREATE's attributes. ``refusals`` are the errnos that only
    this kind of hook gives, each with reason and hint.
    """

    name: str
    attach_type: int
    member: Literal["tcx", "netkit"]
    since: str
    config: str
    refusals: Mapping[int, tuple[str, str | None]] = field(default_factory=dict)


def query(ifindex: int, hook: Hook) -> Chain:
    """The chain at ``hook`` of the device, in the caller's network namespace.

    Since Linux 6.6 (kernel/bpf/mprog.c: bpf_mprog_query).

    :raises OSError: the kernel's errno.
    """
    if not 0 < ifindex < 2**31:
        raise ValueError(f"an ifindex is a positive number below 2^31, not {ifindex}")
    room = _ROOM
    while True:
        progs, links = (ctypes.c_uint32 * room)(), (ctypes.c_uint32 * room)()
        attr = uapi.ProgQueryAttr(attach_type=hook.attach_type)
        attr.target_ifindex, attr.count = ifindex, room
        attr.prog_ids, attr.link_ids = ctypes.addressof(progs), ctypes.addressof(links)
        try:
            syscall.prog_query(attr)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                room = attr.count + _ROOM
                continue
            raise
        entries = tuple(
            Entry(position, progs[position], links[position] or None)
            for position in range(attr.count)
        )
        told = entries or hook.member != "netkit"
        return Chain(ifindex, hook.name, attr.revision if told else 0, entries)
