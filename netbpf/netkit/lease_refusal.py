"""What a refused lease means, and what to do: by the kernel's own text, else by its errno.

net/core/netdev-genl.c (netdev_nl_queue_create_doit), net/core/netdev_queues.c and
drivers/net/netkit.c (netkit_queue_create) of Linux 7.2.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass

from netbpf.conditions import Condition
from netbpf.errors import NetlinkError
from netbpf.netlink.rtnl import Refusal

PRIMARY = "netkit can only lease against the peer device"
"""What the kernel says last: a NIC's queue for which it says so is free to be leased."""


@dataclass(frozen=True)
class Reason:
    """One reason for a refusal: a stable word, what held, and the next step."""

    code: str
    words: str
    hint: str | None = None


_BY_EXTACK = {
    errno.EINVAL: {
        "Device is not a virtual device": Reason(
            "not_virtual",
            "the device that is to get the queue is a NIC itself",
            "the first word is the netkit device, the second the NIC",
        ),
        "Device does not support queue creation": Reason(
            "not_netkit",
            "the device that is to get the queue is no netkit device",
            "make one with `netbpf netkit add NAME --single --rx-queues N`",
        ),
        "Device must have at least one real queue": Reason(
            "no_real_queue", "the device that is to get the queue has none of its own"
        ),
        "Lease device is a virtual device": Reason(
            "nic_virtual",
            "only a real NIC has queues to lease",
            "name a NIC whose driver manages its queues: mlx5, bnxt, gve, fbnic, netdevsim",
        ),
        "Lease device has been removed from the system": Reason("nic_removed", "the NIC is gone"),
        "Lease device does not support queue management operations": Reason(
            "nic_no_queue_management",
            "the NIC's driver does not manage its queues one by one",
            "it takes a NIC of mlx5, bnxt, gve, fbnic or netdevsim, and a recent driver",
        ),
        "netkit maximum queue limit reached": Reason(
            "no_rx_queues_left",
            "the device has all the rx queues that it was made with",
            "make it with more: `--rx-queues N` (of a pair `--peer-rx-queues N`), one of them is "
            "its own",
        ),
    },
    errno.EBUSY: {
        "Device queue in use by AF_XDP": Reason(
            "queue_af_xdp",
            "an AF_XDP socket has the queue",
            "close that socket, or take another queue",
        ),
        "Device queue in use due to queue leasing": Reason(
            "queue_leased",
            "the queue is leased already",
            "`netbpf lease show` tells to whom; take another queue",
        ),
        "Device queue in use by memory provider": Reason(
            "queue_memory_provider",
            "a memory provider (io_uring or a dmabuf) has the queue",
            "end the program that bound it, or take another queue",
        ),
    },
    errno.EOPNOTSUPP: {
        "Leasing queues from different devices not supported": Reason(
            "other_nic",
            "the device has queues of another NIC, and all have to be of one",
            "make a netkit device for each NIC",
        ),
        PRIMARY: Reason(
            "primary_of_pair",
            "of a pair only the peer can have queues on lease",
            "name the peer, in its own namespace, or make a single device",
        ),
    },
}
"""By errno, and by the kernel's own text that comes with it."""

_TEXTS = {text: why for reasons in _BY_EXTACK.values() for text, why in reasons.items()}

_BY_ERRNO = {
    errno.EPERM: Reason(
        "not_permitted",
        "not permitted",
        "leasing needs CAP_NET_ADMIN in the initial user namespace",
    ),
    errno.ENODEV: Reason("no_such_device", "the device or the NIC is gone"),
    errno.ENONET: Reason(
        "no_such_namespace",
        "the NIC's namespace is going away, or has no id here any more",
        "try again; look for the NIC with `netbpf netns show`",
    ),
    errno.ERANGE: Reason(
        "queue_out_of_range",
        "the NIC has no such rx queue now",
        "`ethtool -l` tells how many it has, `ethtool -L` gives it more",
    ),
    errno.ENOMEM: Reason("no_memory", "the kernel has no memory for it"),
}


def reason(refusal: Refusal) -> Reason:
    """What a refused lease means."""
    found = _TEXTS.get(refusal.extack or "") or _BY_ERRNO.get(refusal.errno or 0)
    return found or Reason("refused", refusal.extack or refusal.strerror or "refused")


def explained(
    operation: str, refusal: Refusal, more: str | None = None, hint: str | None = None
) -> NetlinkError:
    """The error for a refused lease; the kernel's words first, then what to do.

    :param more: what else there is to know, put before the hint.
    :param hint: instead of the usual one.
    """
    why = reason(refusal)
    return NetlinkError(
        operation,
        refusal.errno or 0,
        refusal.extack or why.words,
        hint="; ".join(filter(None, (more, hint or why.hint))) or None,
        extack=refusal.extack,
        code=why.code,
    )


def conditions() -> Iterator[Condition]:
    """Every reason that is known."""
    source = "net/core/netdev-genl.c, net/core/netdev_queues.c, drivers/net/netkit.c"
    for number, reasons in _BY_EXTACK.items():
        for text, why in reasons.items():
            yield Condition("lease-add", number, why.words, why.hint, source, text)
    for number, why in _BY_ERRNO.items():
        yield Condition("lease-add", number, why.words, why.hint, source)
