"""The two sides of a lease: both devices looked up, each with sockets in its own namespace."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass

from netbpf import libc
from netbpf.errors import KernelError, NotFoundError
from netbpf.netkit.lease_model import End, Lease
from netbpf.netkit.lease_refusal import PRIMARY
from netbpf.netlink import links, netdev, nsids
from netbpf.netlink import netkit as uapi
from netbpf.netlink.netdev import Netdev
from netbpf.netlink.rtnl import Refusal, Rtnl
from netbpf.netns import NetNS, entered, scan
from netbpf.netns.enter import in_thread


@dataclass(frozen=True)
class Side:
    """A device and the sockets of its namespace."""

    ns: NetNS
    netns: str | None
    """How the namespace is written; None: the calling thread's."""
    link: links.Link
    rtnl: Rtnl
    netdev: Netdev


@dataclass(frozen=True)
class Sides:
    """The netkit device and the NIC."""

    netkit: Side
    nic: Side

    @property
    def apart(self) -> bool:
        """Whether they are in different namespaces."""
        return self.nic.ns != self.netkit.ns

    def nsid(self) -> int | None:
        """The id of the NIC's namespace in the netkit device's, assigned now if there was none."""
        return nsids.ensure(self.netkit.rtnl, self.nic.ns) if self.apart else None

    def create(self, queue: int, nsid: int | None) -> int:
        """Ask for one lease and return the new virtual queue; see `netdev.create_queue`."""
        return netdev.create_queue(
            self.netkit.netdev, self.netkit.link.ifindex, self.nic.link.ifindex, queue, nsid
        )

    def lease(self, queue: int, virtual: int) -> Lease:
        """What became of a lease, as the NIC tells it while it is up."""
        told = netdev.queue(self.nic.netdev, self.nic.link.ifindex, queue)
        return Lease(
            End(self.netkit.link.name, self.netkit.link.ifindex, self.netkit.netns, virtual),
            End(self.nic.link.name, self.nic.link.ifindex, self.nic.netns, queue),
            told.user if told else None,
        )


@contextmanager
def opened(netkit: str | int, nic: str | int, nic_netns: NetNS | str | None) -> Iterator[Sides]:
    """Look both devices up: ``netkit`` where the calling thread is, ``nic`` in ``nic_netns``.

    :raises NotFoundError: there is no such device, or no such namespace.
    """
    with ExitStack() as stack:
        home = stack.enter_context(NetNS.current())
        if isinstance(nic_netns, str):
            nic_netns = stack.enter_context(NetNS.parse(nic_netns))
        place = home if nic_netns is None or nic_netns == home else nic_netns
        netns = None if place is home else str(place)
        yield Sides(_side(stack, home, None, netkit), _side(stack, place, netns, nic))


def _side(stack: ExitStack, ns: NetNS, netns: str | None, device: str | int) -> Side:
    # Entering, even where one is, needs CAP_SYS_ADMIN.
    with entered(ns) if netns else nullcontext():
        rtnl = stack.enter_context(Rtnl())
        socket = stack.enter_context(Netdev())
    try:
        link = links.get(rtnl, device)
    except NotFoundError as error:
        where = f"in {netns}" if netns else None
        raise NotFoundError("device", error.name, where=where, hint=_elsewhere(device)) from error
    return Side(ns, netns, link, rtnl, socket)


def _elsewhere(device: str | int) -> str | None:
    """Where there is a device of that name, if in another namespace."""
    found = []
    with NetNS.current() as home:
        for namespace in scan() if isinstance(device, str) else ():
            if namespace.inode == home.inode:
                continue
            try:
                with namespace.open() as ns, entered(ns), Rtnl() as rtnl:
                    links.get(rtnl, device)
            except (NotFoundError, KernelError, ValueError):
                continue
            found.append(namespace.reference or "")
    if not found:
        return None
    return (
        f"there is one in {', '.join(found[:5])}: --netns names the netkit device's namespace, "
        "--nic-netns the NIC's"
    )


def lessor_refusals(nic: Side, queues: Iterable[int]) -> dict[int, Refusal | None]:
    """Why the kernel would not lease each of a NIC's queues; None: it would.

    Asked, without anything coming of it, for the primary of a pair in a namespace that is gone
    afterwards: the kernel looks at the NIC first, and then refuses that such a device gets a lease.

    :raises NotSupportedError: the kernel knows no leases, or no netkit.
    """

    def inside() -> dict[int, Refusal | None]:
        libc.unshare(libc.CLONE_NEWNET)
        with Rtnl() as rtnl, Netdev() as socket:
            ifindex = links.add(rtnl, "asker", uapi.KIND)
            nsid = nsids.ensure(rtnl, nic.ns)
            return {
                number: _refusal(socket, ifindex, nic.link.ifindex, number, nsid)
                for number in queues
            }

    return in_thread(inside)


def _refusal(
    socket: Netdev, ifindex: int, nic_ifindex: int, number: int, nsid: int
) -> Refusal | None:
    try:
        netdev.create_queue(socket, ifindex, nic_ifindex, number, nsid)
    except Refusal as error:
        return None if error.extack == PRIMARY else error
    return None


def own_leases(sides: Sides, queues: Sequence[int]) -> dict[int, int]:
    """Which of the NIC's queues this netkit device has already: its queue by the NIC's.

    Told only while the NIC is up.
    """
    here = nsids.get(sides.nic.rtnl, sides.netkit.ns) if sides.apart else None
    found = {}
    for number in queues:
        told = netdev.queue(sides.nic.netdev, sides.nic.link.ifindex, number)
        if told is None or told.lessee is None:
            continue
        lessee = told.lessee
        if lessee.ifindex == sides.netkit.link.ifindex and lessee.nsid == here:
            found[number] = lessee.queue
    return found
