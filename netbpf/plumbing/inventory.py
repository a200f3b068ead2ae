"""What the calling thread's namespace holds: its devices, and the chains that hang at them."""

from __future__ import annotations

import errno
from dataclasses import dataclass

from netbpf.bpf.query import Asker
from netbpf.errors import BpfError
from netbpf.netlink import listing
from netbpf.plumbing.packet_path import HOOKS, SIDES


@dataclass(frozen=True, slots=True)
class ChainState:
    """A chain with programs in it: where it hangs, how many there are, and its revision."""

    device: str
    ifindex: int
    hook: str
    programs: int
    revision: int


_NONE_THERE = frozenset({errno.EINVAL, errno.ENODEV, errno.ENXIO, errno.EACCES, errno.EOPNOTSUPP})
"""A kernel without such chains, a device that went, and netkit's peers and singles."""


def chains() -> list[ChainState]:
    """The chains of tcx and netkit in this namespace that hold programs, by device.

    :raises BpfError: EPERM: looking needs CAP_NET_ADMIN in the initial user namespace.
    """
    found = []
    asker = Asker()
    for device in listing.devices():
        hooks = {**HOOKS, **SIDES} if device.netkit else HOOKS
        for hook, attach_type in hooks.items():
            try:
                revision, programs = asker.state(device.ifindex, attach_type)
            except OSError as error:
                if error.errno in _NONE_THERE:
                    continue
                hint = (
                    "it needs CAP_NET_ADMIN in the initial user namespace"
                    if error.errno == errno.EPERM
                    else None
                )
                operation = f"look at the chain at {device.name} {hook}"
                raise BpfError(operation, error.errno or 0, hint=hint) from error
            if programs:
                found.append(ChainState(device.name, device.ifindex, hook, programs, revision))
    return found
