"""Every reason for which a lease would be refused, found out without making one."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal

from netbpf.errors import KernelError, NetlinkError, NotFoundError, NotSupportedError, errno_name
from netbpf.netkit import lease_refusal
from netbpf.netkit.lease_model import End
from netbpf.netkit.lease_reading import real_rx_queues, survey
from netbpf.netkit.lease_refusal import Reason
from netbpf.netkit.lease_sides import Sides, lessor_refusals, opened
from netbpf.netkit.model import check_range, check_word
from netbpf.netkit.reading import read
from netbpf.netlink import ethtool, netdev, xdp
from netbpf.netlink import netkit as uapi
from netbpf.netlink.links import Link
from netbpf.netlink.rtnl import Refusal
from netbpf.netns import NetNS, entered

Purpose = Literal["io-uring", "af-xdp"]

_ZERO_COPY = (
    netdev.XDP_ACT_BASIC
    | netdev.XDP_ACT_REDIRECT
    | netdev.XDP_ACT_NDO_XMIT
    | netdev.XDP_ACT_XSK_ZEROCOPY
)
"""NETDEV_XDP_ACT_XSK, all of which netkit_xsk (drivers/net/netkit.c) wants of a NIC."""


@dataclass(frozen=True)
class Finding:
    """One thing that stands in the way of a lease, or of using it, and what to do about it."""

    code: str
    """A stable word."""
    message: str
    hint: str | None = None
    errno: int | None = None
    """What the kernel would refuse with, where it refuses the lease itself."""
    extack: str | None = None
    queue: int | None = None
    """The NIC's queue that it is about."""
    blocks: bool = True
    """False: it could not be found out whether this stands in the way."""

    def as_json(self) -> dict[str, Any]:
        """The finding as ``lease check --json`` prints it."""
        return {
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "errno": None if self.errno is None else errno_name(self.errno),
            "extack": self.extack,
            "queue": self.queue,
            "blocks": self.blocks,
        }

    def as_error(self, operation: str) -> NetlinkError:
        """The error that the kernel's refusal for this reason would be."""
        return NetlinkError(
            operation,
            self.errno or 0,
            self.extack or self.message,
            hint=self.hint,
            code=self.code,
            extack=self.extack,
        )


def check(
    netkit: str | int,
    nic: str | int,
    queue: int,
    *,
    nic_netns: NetNS | str | None = None,
    count: int = 1,
    purpose: Purpose | None = None,
) -> list[Finding]:
    """Everything that stands in the way of `lease.add` with the same words; nothing is changed.

    What the kernel would say of the NIC's queues it is really asked, on behalf of a device that can
    never have a lease.

    :param purpose: also look whether the NIC is ready for what the lease is for.
    :raises ValueError: a number that cannot mean anything.
    """
    check_range("queue", queue, 0, 0xFFFFFFFF)
    check_range("count", count, 1, 0xFFFF)
    check_word("purpose", purpose, Purpose)
    try:
        with opened(netkit, nic, nic_netns) as sides:
            found = list(refusals(sides, range(queue, queue + count)))
            if purpose == "io-uring":
                found += _not_ready_for_memory(sides)
            elif purpose == "af-xdp":
                found += _not_ready_for_af_xdp(sides)
            return found
    except NotSupportedError as error:
        return [Finding("not_supported", error.message, error.hint, errno.EOPNOTSUPP)]
    except NotFoundError as error:
        code = "no_such_namespace" if error.kind == "namespace" else "no_such_device"
        return [Finding(code, error.message, error.hint, errno.ENODEV)]


def refusals(sides: Sides, queues: Sequence[int]) -> Iterator[Finding]:
    """Why the kernel would refuse to lease these queues, as far as it can be known before.

    :raises NotSupportedError: the kernel knows no leases.
    """
    netdev.require_leases(sides.netkit.netdev)
    # In the kernel's own order.
    unfit = _unfit(sides.netkit.link)
    if unfit:
        yield unfit
    yield from _lessor(sides, queues)
    if not unfit:
        yield from _other_nic(sides)
        yield from _room(sides, len(queues))


def half_done(sides: Sides, queues: Sequence[int]) -> Iterator[Finding]:
    """What would stop a request for several queues in the middle, not at the first.

    A NIC that is up tells of its queues itself, which is cheaper than asking the kernel.
    """
    yield from _capacity(sides, len(queues))
    nic = sides.nic
    told = {
        queue.id: queue
        for queue in netdev.queues(nic.netdev, nic.link.ifindex)
        if queue.type == "rx"
    }
    if not told:
        yield from _lessor(sides, queues)
        return
    for number in queues:
        queue = told.get(number)
        if queue is None:
            refusal = Refusal(errno.ERANGE)
        elif queue.user == "xsk":
            refusal = Refusal(errno.EBUSY, "Device queue in use by AF_XDP")
        elif queue.lessee is not None:
            refusal = Refusal(errno.EBUSY, "Device queue in use due to queue leasing")
        elif queue.user is not None:
            refusal = Refusal(errno.EBUSY, "Device queue in use by memory provider")
        else:
            continue
        why = lease_refusal.reason(refusal)
        yield _finding(why, refusal.errno, refusal.extack, number)


def _unfit(link: Link) -> Finding | None:
    """What netdev_can_create_queue (net/core/netdev_queues.c) would say of the first device."""
    if link.kind == uapi.KIND:
        return None
    if link.kind is None and link.ifindex != 1:
        return _of_extack(errno.EINVAL, "Device is not a virtual device")
    return _of_extack(errno.EINVAL, "Device does not support queue creation")


def _lessor(sides: Sides, queues: Sequence[int]) -> Iterator[Finding]:
    try:
        answers = lessor_refusals(sides.nic, queues)
    except Refusal as error:
        yield _finding(lease_refusal.reason(error), error.errno, error.extack)
        return
    except OSError as error:
        if error.errno != errno.EPERM:
            raise KernelError("check the lease", error.errno or 0) from error
        yield _finding(lease_refusal.reason(Refusal(errno.EPERM)), errno.EPERM)
        return
    seen = set()
    for number, refusal in answers.items():
        if refusal is None:
            continue
        why = lease_refusal.reason(refusal)
        about_queue = why.code.startswith("queue_")
        if about_queue or why.code not in seen:
            seen.add(why.code)
            which = number if about_queue else None
            yield _finding(why, refusal.errno, refusal.extack, which)


def _room(sides: Sides, count: int) -> Iterator[Finding]:
    """What netkit_queue_create (drivers/net/netkit.c) would say."""
    data = sides.netkit.link.data
    if data.get("IFLA_NETKIT_PAIRING", uapi.PAIR) == uapi.PAIR and data.get("IFLA_NETKIT_PRIMARY"):
        yield _of_extack(errno.EOPNOTSUPP, lease_refusal.PRIMARY, peer_hint(sides))
        return
    yield from _capacity(sides, count)


def _capacity(sides: Sides, count: int) -> Iterator[Finding]:
    side = sides.netkit
    queues = [q for q in netdev.queues(side.netdev, side.link.ifindex) if q.type == "rx"]
    real: int | None = len(queues)
    if not queues:
        real = real_rx_queues(side.ns, [side.link.name]).get(side.link.name)
    if real is None:
        yield Finding(
            "capacity_unknown",
            f"how many of its {side.link.rx_queues} rx queues {side.link.name} has left cannot be "
            "told: it is down, and sysfs cannot be read for it",
            blocks=False,
        )
    elif side.link.rx_queues - real < count:
        why = lease_refusal.reason(Refusal(errno.EINVAL, "netkit maximum queue limit reached"))
        left = side.link.rx_queues - real
        words = (
            f"{side.link.name} was made with {side.link.rx_queues} rx queues and has {left} left"
        )
        yield Finding(why.code, words, why.hint, errno.EINVAL, "netkit maximum queue limit reached")


def _other_nic(sides: Sides) -> Iterator[Finding]:
    link = sides.netkit.link
    here = (None, link.ifindex)
    nics = [
        lease.nic for lease in survey().leases if (lease.netkit.netns, lease.netkit.ifindex) == here
    ]
    if None in nics:
        yield Finding(
            "other_nic_unknown",
            f"of which NIC {link.name} has queues already cannot be told: that one is down",
            "all leases of a device have to be of one NIC; bring it up to see",
            blocks=False,
        )
    for nic in nics:
        if nic is None or (nic.ifindex == sides.nic.link.ifindex and _is_in(nic, sides.nic.ns)):
            continue
        yield _of_extack(errno.EOPNOTSUPP, "Leasing queues from different devices not supported")
        return


def _is_in(end: End, ns: NetNS) -> bool:
    if end.netns is None:
        return ns.is_current()
    try:
        with NetNS.parse(end.netns) as place:
            return place == ns
    except (NotFoundError, KernelError, ValueError):
        return False


def _not_ready_for_memory(sides: Sides) -> Iterator[Finding]:
    """What __netif_mp_open_rxq (net/core/netdev_rx_queue.c) would refuse a memory provider for."""
    nic = sides.nic
    name = nic.link.name
    with entered(nic.ns) if nic.netns else nullcontext(), ethtool.Ethtool() as socket:
        rings = ethtool.rings(socket, nic.link.ifindex)
    if rings is None or rings.tcp_data_split is None:
        yield Finding(
            "tcp_data_split",
            f"the driver of {name} cannot split headers from data",
            "zero-copy receive needs a NIC that can (tcp-data-split)",
        )
    elif rings.tcp_data_split != "on":
        yield Finding(
            "tcp_data_split",
            f"tcp-data-split of {name} is {rings.tcp_data_split}",
            f"`ethtool -G {name} tcp-data-split on`",
        )
    if rings is not None and rings.hds_thresh:
        yield Finding(
            "hds_thresh",
            f"hds-thresh of {name} is {rings.hds_thresh}",
            f"`ethtool -G {name} hds-thresh 0`",
        )
    if xdp.attached(nic.rtnl, nic.link.ifindex):
        yield Finding(
            "xdp_program",
            f"{name} has an XDP program",
            f"detach it: `ip link set dev {name} xdp off`",
        )


def _not_ready_for_af_xdp(sides: Sides) -> Iterator[Finding]:
    """What netkit_xsk (drivers/net/netkit.c) would refuse an AF_XDP socket for."""
    link, nic = sides.netkit.link, sides.nic
    if link.data.get("IFLA_NETKIT_PAIRING", uapi.PAIR) == uapi.PAIR:
        yield Finding(
            "pair_for_af_xdp",
            f"{link.name} is no single device, and AF_XDP works through those only",
            "make one with `netbpf netkit add NAME --single --rx-queues N`",
        )
    if netdev.xdp_features(nic.netdev, nic.link.ifindex) & _ZERO_COPY != _ZERO_COPY:
        yield Finding(
            "no_zero_copy",
            f"the driver of {nic.link.name} has no zero-copy AF_XDP",
            "it takes a NIC of mlx5 or another driver with xsk-zerocopy among its XDP features",
        )
    taken = [
        queue.id
        for queue in netdev.queues(nic.netdev, nic.link.ifindex)
        if queue.user in ("io-uring", "dmabuf")
    ]
    if taken:
        listed = ", ".join(map(str, taken))
        yield Finding(
            "memory_provider",
            f"a memory provider has queue {listed} of {nic.link.name}",
            "AF_XDP and memory providers do not share a NIC: end the programs that bound them",
        )


def peer_hint(sides: Sides) -> str | None:
    """How the peer of a pair's primary is named."""
    peer = read(sides.netkit.rtnl, sides.netkit.link.ifindex).peer
    if peer is None:
        return None
    where = f"--netns {peer.netns} " if peer.netns else ""
    return f"name the peer: `netbpf lease add {where}{peer.name or 'NAME'} …`"


def _of_extack(number: int, text: str, hint: str | None = None) -> Finding:
    found = _finding(lease_refusal.reason(Refusal(number, text)), number, text)
    return replace(found, hint=hint) if hint else found


def _finding(
    why: Reason, number: int | None, extack: str | None = None, queue: int | None = None
) -> Finding:
    words = why.words if queue is None else f"queue {queue}: {why.words}"
    return Finding(why.code, words, why.hint, number, extack, queue)
