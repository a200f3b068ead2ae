"""Programs on both sides of a netkit device: its primary and its peer.

Since Linux 6.7 (drivers/net/netkit.c). Both sides are named by the primary's ifindex, in the
primary's network namespace, where the calling thread stands. What the functions do and raise is
said at ``netbpf.bpf.mprog.Hooks``.
"""

import errno

from netbpf.bpf import uapi
from netbpf.bpf.hook import Hook
from netbpf.bpf.mprog import Hooks

# drivers/net/netkit.c: netkit_dev_fetch.
_REFUSALS = {
    errno.ENXIO: ("it is not a netkit device", "for other devices there is tcx"),
    errno.EACCES: (
        "it is the peer of a pair, and programs for both sides are attached by way of the primary",
        "name the primary device, in its own namespace; the side that this device sends from is "
        "called peer there",
    ),
    errno.EOPNOTSUPP: (
        "it is a single netkit device, which runs no programs",
        "attach with tcx to its ingress or egress",
    ),
    errno.ENODEV: ("the peer is gone", None),
}

HOOKS = Hooks(
    Hook("primary", uapi.BPF_NETKIT_PRIMARY, "netkit", "6.7", "CONFIG_NETKIT", refusals=_REFUSALS),
    Hook("peer", uapi.BPF_NETKIT_PEER, "netkit", "6.7", "CONFIG_NETKIT", refusals=_REFUSALS),
)

attach = HOOKS.attach
detach = HOOKS.detach
update = HOOKS.update
chain = HOOKS.chain

__all__ = ["HOOKS", "attach", "chain", "detach", "update"]
