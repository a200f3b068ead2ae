"""Reading leases: what the NICs of all namespaces tell, joined with the netkit devices there.

The kernel tells a lease at the NIC's queue only, and only while the NIC is up
(netdev_nl_queue_fill_lease and netdev_nl_queue_dump_one in net/core/netdev-genl.c). How many leases
a netkit device has can always be told: all its real rx queues but the first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from netbpf import libc
from netbpf.errors import KernelError, NotFoundError, NotSupportedError
from netbpf.netkit.lease_model import End, Lease, Survey, Unknown
from netbpf.netlink import links, netdev, nsids
from netbpf.netlink import netkit as uapi
from netbpf.netlink.netdev import Netdev, Queue
from netbpf.netlink.rtnl import Rtnl
from netbpf.netns import Namespace, NetNS, enter_for_good, entered, scan
from netbpf.netns.enter import in_thread


@dataclass
class _Place:
    """A namespace, and what of it has to do with leases."""

    reference: str | None
    namespace: Namespace
    lessees: dict[int, links.Link] = field(default_factory=dict)
    """The netkit devices that may have leases, by ifindex."""
    counts: dict[int, int | None] = field(default_factory=dict)
    """How many leases each has; None: that could not be told."""
    queues: dict[tuple[int, int], Queue] = field(default_factory=dict)
    """The rx queues of devices that are up."""
    nics: dict[int, str] = field(default_factory=dict)
    """The names of the devices that have queues on lease."""


def survey() -> Survey:
    """All leases of all namespaces that can be seen from the calling thread's."""
    places: list[_Place] = []
    unknown: list[Unknown] = []
    for reference, namespace, problem in _namespaces():
        if problem is None:
            try:
                places.append(_look(reference, namespace))
                continue
            except NotFoundError:
                continue
            except NotSupportedError:
                return Survey()
            except KernelError as error:
                problem = error
        unknown.append(Unknown(None, reference, f"cannot look into it: {problem}"))
    found = _told_by_nics(places)
    leases = list(found.values())
    hidden: list[tuple[_Place, links.Link, int | None]] = []
    for place in places:
        for ifindex, count in place.counts.items():
            link = place.lessees[ifindex]
            missing = [
                number
                for number in range(1, (count or 0) + 1)
                if (place.namespace.inode, ifindex, number) not in found
            ]
            leases += [_hidden(place, link, number) for number in missing]
            if missing or count is None:
                hidden.append((place, link, count))
    if hidden:
        down = _down(places)
        unknown += [_unknown(place, link, count, down) for place, link, count in hidden]
    return Survey(tuple(sorted(leases, key=_order)), tuple(unknown))


def leases_of(devices: Iterable[links.Link]) -> Mapping[int, list[Lease]]:
    """The leases of netkit devices of the calling thread's namespace, by ifindex.

    Other namespaces are looked into only when one of the devices has leases at all.
    """
    able = {link.ifindex: link for link in devices if link.rx_queues > 1}
    if not able:
        return {}
    try:
        with NetNS.current() as home, Netdev() as socket:
            queues = {(q.ifindex, q.id) for q in netdev.queues(socket) if q.type == "rx"}
            counts = _counts(home, able, queues)
    except (NotSupportedError, KernelError):
        return {}
    if not any(count is None or count > 0 for count in counts.values()):
        return {}
    found: dict[int, list[Lease]] = {}
    for lease in survey().leases:
        if lease.netkit.netns is None and lease.netkit.ifindex in able:
            found.setdefault(lease.netkit.ifindex, []).append(lease)
    return found


def real_rx_queues(ns: NetNS, names: Iterable[str]) -> dict[str, int]:
    """How many rx queues devices of ``ns`` have now, whether up or down; by name.

    From a sysfs of that namespace, mounted for a thread of its own. What cannot be told is left
    out.
    """
    wanted = list(names)

    def inside() -> dict[str, int]:
        enter_for_good(ns)
        libc.unshare(libc.CLONE_NEWNS)
        # Nothing that is mounted here may reach the others.
        libc.mount("", "/", "none", libc.MS_SLAVE | libc.MS_REC)
        libc.mount("sysfs", "/sys", "sysfs", libc.MS_RDONLY)
        folders = {name: Path("/sys/class/net") / name / "queues" for name in wanted}
        return {
            name: sum(entry.name.startswith("rx-") for entry in folder.iterdir())
            for name, folder in folders.items()
            if folder.is_dir()
        }

    try:
        return in_thread(inside) if wanted else {}
    except (OSError, KernelError):
        return {}


def _namespaces() -> Iterator[tuple[str | None, Namespace, KernelError | None]]:
    with NetNS.current() as home:
        inode = home.inode
    here = Namespace(inode)
    others = []
    for namespace in scan():
        if namespace.inode == inode:
            here = namespace
        else:
            others.append(namespace)
    yield None, here, None
    for namespace in others:
        yield namespace.reference, namespace, None


@contextmanager
def _at(place: _Place) -> Iterator[tuple[NetNS, Rtnl]]:
    """A handle and a socket of a place."""
    with ExitStack() as stack:
        if place.reference is None:
            ns = stack.enter_context(NetNS.current())
            yield ns, stack.enter_context(Rtnl())
        else:
            ns = stack.enter_context(place.namespace.open())
            with entered(ns):
                rtnl = stack.enter_context(Rtnl())
            yield ns, rtnl


def _look(reference: str | None, namespace: Namespace) -> _Place:
    place = _Place(reference, namespace)
    with _at(place) as (ns, rtnl), ExitStack() as stack:
        # Entering, even where one is, needs CAP_SYS_ADMIN.
        with entered(ns) if reference else nullcontext():
            socket = stack.enter_context(Netdev())
        place.lessees = {
            link.ifindex: link for link in links.dump(rtnl, kind=uapi.KIND) if link.rx_queues > 1
        }
        place.queues = {(q.ifindex, q.id): q for q in netdev.queues(socket) if q.type == "rx"}
        place.counts = _counts(ns, place.lessees, place.queues)
        for queue in place.queues.values():
            if queue.lessee is not None and queue.ifindex not in place.nics:
                place.nics[queue.ifindex] = links.get(rtnl, queue.ifindex).name
    return place


def _counts(
    ns: NetNS, able: Mapping[int, links.Link], queues: Iterable[tuple[int, int]]
) -> dict[int, int | None]:
    """How many leases each of the netkit devices has."""
    up: dict[int, int] = {}
    for ifindex, _ in queues:
        up[ifindex] = up.get(ifindex, 0) + 1
    told = real_rx_queues(ns, [link.name for link in able.values() if link.ifindex not in up])
    counts: dict[int, int | None] = {}
    for ifindex, link in able.items():
        real = up.get(ifindex, told.get(link.name))
        counts[ifindex] = None if real is None else real - 1
    return counts


def _told_by_nics(places: list[_Place]) -> dict[tuple[int, int, int], Lease]:
    """The leases that NICs tell of, by the inode, ifindex and queue of their netkit end."""
    found: dict[tuple[int, int, int], Lease] = {}
    for place in places:
        if not place.nics:
            continue
        with _at(place) as (_, rtnl):
            neighbours = _neighbours(rtnl, place, places)
            for queue in place.queues.values():
                lessee = queue.lessee
                if lessee is None:
                    continue
                other = place if lessee.nsid is None else neighbours.get(lessee.nsid)
                inode = -(lessee.nsid or 0) if other is None else other.namespace.inode
                found[inode, lessee.ifindex, lessee.queue] = Lease(
                    netkit=_netkit_end(rtnl, other, lessee),
                    nic=End(place.nics[queue.ifindex], queue.ifindex, place.reference, queue.id),
                    user=queue.user,
                )
    return found


def _neighbours(rtnl: Rtnl, place: _Place, places: list[_Place]) -> dict[int, _Place]:
    """The places that have lessees, by their ids in ``place``."""
    if all(q.lessee is None or q.lessee.nsid is None for q in place.queues.values()):
        return {}
    found = {}
    for other in places:
        if other is place or not other.lessees:
            continue
        try:
            with _at(other) as (ns, _):
                nsid = nsids.get(rtnl, ns)
        except (NotFoundError, KernelError):
            continue
        if nsid is not None:
            found[nsid] = other
    return found


def _netkit_end(rtnl: Rtnl, place: _Place | None, lessee: netdev.Lessee) -> End:
    if place is not None and lessee.ifindex in place.lessees:
        name: str | None = place.lessees[lessee.ifindex].name
    else:
        try:
            name = links.get(rtnl, lessee.ifindex, nsid=lessee.nsid).name
        except (NotFoundError, KernelError):
            name = None
    netns = f"nsid:{lessee.nsid}" if place is None else place.reference
    return End(name, lessee.ifindex, netns, lessee.queue)


def _hidden(place: _Place, link: links.Link, number: int) -> Lease:
    """A lease of which only the netkit's side tells."""
    own = place.queues.get((link.ifindex, number))
    end = End(link.name, link.ifindex, place.reference, number)
    return Lease(end, None, own.user if own else None)


def _down(places: list[_Place]) -> list[str]:
    """The devices that are down and could be the NICs of leases that nobody tells of."""
    found = []
    for place in places:
        try:
            with _at(place) as (_, rtnl):
                found += [
                    f"{link.name} in {place.reference}" if place.reference else link.name
                    for link in links.dump(rtnl)
                    if link.kind is None and link.ifindex != 1 and not link.up
                ]
        except (NotFoundError, KernelError):
            continue
    return found


def _unknown(place: _Place, link: links.Link, count: int | None, down: list[str]) -> Unknown:
    if count is None:
        reason = "how many leases it has: it is down, and sysfs cannot be read for it"
    else:
        reason = "of which NIC it leases: the kernel tells only while the NIC is up; "
        reason += f"down are {', '.join(down)}" if down else "it is in a namespace out of sight"
    return Unknown(link.name, place.reference, reason)


def _order(lease: Lease) -> tuple[str, str, int]:
    return (lease.netkit.netns or "", lease.netkit.device or "", lease.netkit.queue)
