"""The netdev generic netlink family: the queues of devices, and leases of them.

include/uapi/linux/netdev.h and net/core/netdev-genl.c of Linux 7.2.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Any, Literal

from pyroute2.netlink import NLA_F_NESTED, genlmsg, nla

from netbpf.errors import NotSupportedError
from netbpf.netlink.genl import Genl
from netbpf.netlink.refusals import refusals
from netbpf.netlink.rtnl import Refusal

FAMILY = "netdev"

DEV_GET = 1
QUEUE_GET = 10
QUEUE_CREATE = 16

RX, TX = 0, 1

XDP_ACT_REDIRECT = 2
XDP_ACT_XSK_ZEROCOPY = 8

User = Literal["io-uring", "dmabuf", "xsk"]


class _queue_id(nla):  # type: ignore[misc]
    prefix = "NETDEV_A_QUEUE_"
    nla_flags = NLA_F_NESTED
    nla_map = (
        ("NETDEV_A_QUEUE_UNSPEC", "none"),
        ("NETDEV_A_QUEUE_ID", "uint32"),
        ("NETDEV_A_QUEUE_IFINDEX", "uint32"),
        ("NETDEV_A_QUEUE_TYPE", "uint32"),
    )


class _lease(nla):  # type: ignore[misc]
    prefix = "NETDEV_A_LEASE_"
    nla_flags = NLA_F_NESTED
    nla_map = (
        ("NETDEV_A_LEASE_UNSPEC", "none"),
        ("NETDEV_A_LEASE_IFINDEX", "uint32"),
        ("NETDEV_A_LEASE_QUEUE", "queue_id"),
        ("NETDEV_A_LEASE_NETNS_ID", "int32"),
    )
    queue_id = _queue_id


class _queue_msg(genlmsg):  # type: ignore[misc]
    prefix = "NETDEV_A_QUEUE_"
    nla_map = (
        ("NETDEV_A_QUEUE_UNSPEC", "none"),
        ("NETDEV_A_QUEUE_ID", "uint32"),
        ("NETDEV_A_QUEUE_IFINDEX", "uint32"),
        ("NETDEV_A_QUEUE_TYPE", "uint32"),
        ("NETDEV_A_QUEUE_NAPI_ID", "uint32"),
        ("NETDEV_A_QUEUE_DMABUF", "uint32"),
        # Nests of which only the presence counts.
        ("NETDEV_A_QUEUE_IO_URING", "hex"),
        ("NETDEV_A_QUEUE_XSK", "hex"),
        ("NETDEV_A_QUEUE_LEASE", "lease"),
    )
    lease = _lease


class _dev_msg(genlmsg):  # type: ignore[misc]
    prefix = "NETDEV_A_DEV_"
    nla_map = (
        ("NETDEV_A_DEV_UNSPEC", "none"),
        ("NETDEV_A_DEV_IFINDEX", "uint32"),
        ("NETDEV_A_DEV_PAD", "none"),
        ("NETDEV_A_DEV_XDP_FEATURES", "uint64"),
        ("NETDEV_A_DEV_XDP_ZC_MAX_SEGS", "uint32"),
        ("NETDEV_A_DEV_XDP_RX_METADATA_FEATURES", "uint64"),
        ("NETDEV_A_DEV_XSK_FEATURES", "uint64"),
    )


@dataclass(frozen=True)
class Lessee:
    """Who has a queue on lease, as the NIC's side tells it."""

    ifindex: int
    queue: int
    nsid: int | None
    """The id, in the NIC's namespace, of the lessee's; None: the same namespace."""


@dataclass(frozen=True)
class Queue:
    """A queue of a device that is up."""

    ifindex: int
    id: int
    type: Literal["rx", "tx"]
    napi_id: int | None
    user: User | None
    """What has taken the queue over: a memory provider, or an AF_XDP socket."""
    lessee: Lessee | None


class Netdev(Genl):
    """A socket of the netdev family, in the namespace of the calling thread.

    :raises NotSupportedError: a kernel before 6.3.
    """

    def __init__(self) -> None:
        super().__init__(FAMILY)


def queues(netdev: Netdev, ifindex: int | None = None) -> list[Queue]:
    """The queues of all devices of the socket's namespace that are up, or of one device.

    A device that is down has none to show (netdev_nl_queue_dump_one). Since Linux 6.8.
    """
    attrs = [] if ifindex is None else [("NETDEV_A_QUEUE_IFINDEX", ifindex)]
    with refusals("list queues"):
        return [_queue(answer) for answer in netdev.list_all(QUEUE_GET, _queue_msg(), attrs)]


def queue(netdev: Netdev, ifindex: int, number: int) -> Queue | None:
    """One rx queue; None: the device is down, or has no such queue now. Since Linux 6.8."""
    attrs = [
        ("NETDEV_A_QUEUE_ID", number),
        ("NETDEV_A_QUEUE_TYPE", RX),
        ("NETDEV_A_QUEUE_IFINDEX", ifindex),
    ]
    with refusals(f"look up rx queue {number}"):
        try:
            answers = netdev.call(QUEUE_GET, _queue_msg(), attrs)
        except Refusal as error:
            if error.errno in (errno.ENOENT, errno.EINVAL):
                return None
            raise
    return _queue(answers[0])


def create_queue(
    netdev: Netdev, ifindex: int, nic_ifindex: int, nic_queue: int, nsid: int | None
) -> int:
    """Lease rx queue ``nic_queue`` of a NIC to a device of the socket's namespace.

    :param nsid: the id, in the socket's namespace, of the NIC's; None: the same namespace.
    :return: the number of the device's new virtual rx queue.
    :raises Refusal: the kernel refused; for the caller to explain.
    :raises NotSupportedError: the kernel does not know the command.

    Since Linux 7.1 (netdev_nl_queue_create_doit in net/core/netdev-genl.c).
    """
    lease: list[tuple[str, Any]] = [
        ("NETDEV_A_LEASE_IFINDEX", nic_ifindex),
        (
            "NETDEV_A_LEASE_QUEUE",
            {"attrs": [("NETDEV_A_QUEUE_ID", nic_queue), ("NETDEV_A_QUEUE_TYPE", RX)]},
        ),
    ]
    if nsid is not None:
        lease.append(("NETDEV_A_LEASE_NETNS_ID", nsid))
    attrs = [
        ("NETDEV_A_QUEUE_IFINDEX", ifindex),
        ("NETDEV_A_QUEUE_TYPE", RX),
        ("NETDEV_A_QUEUE_LEASE", {"attrs": lease}),
    ]
    try:
        answers = netdev.call(QUEUE_CREATE, _queue_msg(), attrs)
    except Refusal as error:
        # Before the permission, a kernel looks whether it has the command.
        if error.errno == errno.EOPNOTSUPP and not netdev.has(QUEUE_CREATE):
            raise NotSupportedError("rx queue leases", since="7.1") from error
        raise
    return int(answers[0].get_attr("NETDEV_A_QUEUE_ID"))


def xdp_features(netdev: Netdev, ifindex: int) -> int:
    """What a device's driver does for XDP (NETDEV_XDP_ACT_…). Since Linux 6.3."""
    with refusals("look up XDP features"):
        answers = netdev.call(DEV_GET, _dev_msg(), [("NETDEV_A_DEV_IFINDEX", ifindex)])
    return int(answers[0].get_attr("NETDEV_A_DEV_XDP_FEATURES") or 0)


def _queue(message: Any) -> Queue:
    present = dict(message["attrs"])
    lease = message.get_attr("NETDEV_A_QUEUE_LEASE")
    user: User | None = None
    if "NETDEV_A_QUEUE_IO_URING" in present:
        user = "io-uring"
    elif "NETDEV_A_QUEUE_DMABUF" in present:
        user = "dmabuf"
    elif "NETDEV_A_QUEUE_XSK" in present:
        user = "xsk"
    return Queue(
        ifindex=present["NETDEV_A_QUEUE_IFINDEX"],
        id=present["NETDEV_A_QUEUE_ID"],
        type="rx" if present["NETDEV_A_QUEUE_TYPE"] == RX else "tx",
        napi_id=present.get("NETDEV_A_QUEUE_NAPI_ID"),
        user=user,
        lessee=None if lease is None else _lessee(lease),
    )


def _lessee(lease: Any) -> Lessee:
    return Lessee(
        ifindex=lease.get_attr("NETDEV_A_LEASE_IFINDEX"),
        queue=lease.get_attr("NETDEV_A_LEASE_QUEUE").get_attr("NETDEV_A_QUEUE_ID"),
        nsid=lease.get_attr("NETDEV_A_LEASE_NETNS_ID"),
    )
