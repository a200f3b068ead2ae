"""The netdev generic netlink family: the queues of devices, and leases of them.

include/uapi/linux/netdev.h and net/core/netdev-genl.c of Linux 7.2.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Literal

from netbpf.errors import NotSupportedError
from netbpf.netlink.attributes import attribute, number_in, s32, u32, unpack
from netbpf.netlink.genl import Genl
from netbpf.netlink.refusals import refusals
from netbpf.netlink.rtnl import Refusal

FAMILY = "netdev"

DEV_GET = 1
QUEUE_GET = 10
QUEUE_CREATE = 16

RX, TX = 0, 1

XDP_ACT_BASIC = 1
XDP_ACT_REDIRECT = 2
XDP_ACT_NDO_XMIT = 4
XDP_ACT_XSK_ZEROCOPY = 8

User = Literal["io-uring", "dmabuf", "xsk"]


# include/uapi/linux/netdev.h: NETDEV_A_QUEUE_…, NETDEV_A_LEASE_…, NETDEV_A_DEV_…
_ID, _IFINDEX, _TYPE, _NAPI_ID, _DMABUF, _IO_URING, _XSK, _LEASE = range(1, 9)
_LEASE_IFINDEX, _LEASE_QUEUE, _LEASE_NETNS_ID = range(1, 4)
_DEV_IFINDEX, _DEV_XDP_FEATURES = 1, 3

_NESTED = 1 << 15
"""NLA_F_NESTED: this family checks that a nest says that it is one."""

_USERS: dict[int, User] = {_IO_URING: "io-uring", _DMABUF: "dmabuf", _XSK: "xsk"}
"""Of these attributes only the presence counts."""


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
    wanted = b"" if ifindex is None else attribute(_IFINDEX, u32(ifindex))
    with refusals("list queues"):
        return [_queue(answer) for answer in netdev.list_all(QUEUE_GET, wanted)]


def queue(netdev: Netdev, ifindex: int, number: int) -> Queue | None:
    """One rx queue; None: the device is down, or has no such queue now. Since Linux 6.8."""
    wanted = attribute(_IFINDEX, u32(ifindex)) + _rx(number)
    with refusals(f"look up rx queue {number}"):
        try:
            answers = netdev.call(QUEUE_GET, wanted)
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
    lease = attribute(_LEASE_IFINDEX, u32(nic_ifindex))
    lease += attribute(_LEASE_QUEUE | _NESTED, _rx(nic_queue))
    if nsid is not None:
        lease += attribute(_LEASE_NETNS_ID, s32(nsid))
    wanted = attribute(_IFINDEX, u32(ifindex)) + attribute(_TYPE, u32(RX))
    wanted += attribute(_LEASE | _NESTED, lease)
    try:
        answers = netdev.call(QUEUE_CREATE, wanted)
    except Refusal as error:
        # Before the permission, a kernel looks whether it has the command.
        if error.errno == errno.EOPNOTSUPP:
            require_leases(netdev)
        raise
    return number_in(answers[0][_ID])


def require_leases(netdev: Netdev) -> None:
    """See that the kernel knows the command that makes leases.

    :raises NotSupportedError: it does not.
    """
    if not netdev.has(QUEUE_CREATE):
        raise NotSupportedError("rx queue leases", since="7.1")


def xdp_features(netdev: Netdev, ifindex: int) -> int:
    """What a device's driver does for XDP (NETDEV_XDP_ACT_…). Since Linux 6.3."""
    with refusals("look up XDP features"):
        answers = netdev.call(DEV_GET, attribute(_DEV_IFINDEX, u32(ifindex)))
    return number_in(answers[0].get(_DEV_XDP_FEATURES))


def _rx(number: int) -> bytes:
    return attribute(_ID, u32(number)) + attribute(_TYPE, u32(RX))


def _queue(answer: dict[int, bytes]) -> Queue:
    return Queue(
        ifindex=number_in(answer[_IFINDEX]),
        id=number_in(answer[_ID]),
        type="rx" if number_in(answer[_TYPE]) == RX else "tx",
        napi_id=number_in(answer[_NAPI_ID]) if _NAPI_ID in answer else None,
        user=next((user for number, user in _USERS.items() if number in answer), None),
        lessee=_lessee(unpack(answer[_LEASE])) if _LEASE in answer else None,
    )


def _lessee(lease: dict[int, bytes]) -> Lessee:
    nsid = lease.get(_LEASE_NETNS_ID)
    return Lessee(
        ifindex=number_in(lease[_LEASE_IFINDEX]),
        queue=number_in(unpack(lease[_LEASE_QUEUE])[_ID]),
        nsid=None if nsid is None else number_in(nsid),
    )
