"""The netkit devices of all namespaces, each with its other end wherever that is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from netbpf.errors import NotFoundError
from netbpf.netkit.lease_model import Lease
from netbpf.netkit.lease_reading import survey
from netbpf.netkit.model import Device
from netbpf.netkit.reading import device_of, peer_of
from netbpf.netlink import addresses, links, nsids
from netbpf.netlink import netkit as uapi
from netbpf.netlink.rtnl import Rtnl
from netbpf.netns import Namespace, NetNS, entered
from netbpf.netns.visit import LeftOut, visit


@dataclass(frozen=True)
class _Place:
    """A namespace and its netkit devices."""

    namespace: Namespace
    home: bool
    links: Mapping[int, links.Link]
    addrs: Mapping[int, list[str]]

    @property
    def netns(self) -> str | None:
        return None if self.home else self.namespace.reference


_Sighting = tuple[_Place, links.Link]


def show_all(left_out: LeftOut | None = None) -> list[Device]:
    """All netkit devices of all namespaces that can be seen from the calling thread's.

    Each says by ``netns`` where it lives: None for the calling thread's namespace.

    :param left_out: told of each namespace that may not be entered, whose devices are then left
        out; None raises.
    :raises KernelError: EPERM or EACCES: a namespace may not be entered.
    """
    places = _places(left_out)
    leases = _leases(places)
    ends = _Ends(places)
    found = []
    for place in places:
        others = ends.of(place)
        for link in place.links.values():
            other = others.get(link.ifindex)
            netns = None
            if link.peer_nsid is not None:
                netns = other[0].namespace.reference if other else f"nsid:{link.peer_nsid}"
            addrs = other[0].addrs.get(other[1].ifindex, ()) if other else ()
            found.append(
                device_of(
                    link,
                    place.addrs.get(link.ifindex, ()),
                    peer_of(link, netns, other[1] if other else None, addrs),
                    leases.get((place.netns, link.ifindex), ()),
                    place.netns,
                )
            )
    return found


def _places(left_out: LeftOut | None) -> list[_Place]:
    found = []
    for namespace, home in visit(left_out):
        with Rtnl() as rtnl:
            listed = links.dump(rtnl, kind=uapi.KIND)
            addrs = addresses.by_device(rtnl) if listed else {}
        by_ifindex = {link.ifindex: link for link in listed}
        found.append(_Place(namespace, home, by_ifindex, addrs))
    return found


def _leases(places: Iterable[_Place]) -> dict[tuple[str | None, int], list[Lease]]:
    found: dict[tuple[str | None, int], list[Lease]] = {}
    # Looked for only where there can be one.
    if any(link.rx_queues > 1 for place in places for link in place.links.values()):
        for lease in survey().leases:
            found.setdefault((lease.netkit.netns, lease.netkit.ifindex), []).append(lease)
    return found


class _Ends:
    """Finds the other end of a device in another namespace.

    A device tells the ifindex of its other end and the id of the namespace, which is a number of
    its own namespace only. What that number means is asked of the kernel, but only for namespaces
    in which there is a device that fits, tells the same of this one, and which are few: asked for
    each pair of namespaces, a thousand of them would cost a million questions.
    """

    def __init__(self, places: Sequence[_Place]) -> None:
        self._by_ends: dict[tuple[int, int], list[_Sighting]] = {}
        for place in places:
            for link in place.links.values():
                if link.peer_nsid is not None and link.peer_ifindex is not None:
                    key = (link.ifindex, link.peer_ifindex)
                    self._by_ends.setdefault(key, []).append((place, link))

    def of(self, place: _Place) -> dict[int, _Sighting]:
        """The other ends of the devices of a namespace, by ifindex."""
        found: dict[int, _Sighting] = {}
        abroad = []
        for link in place.links.values():
            if link.peer_ifindex is None:
                continue
            if link.peer_nsid is not None:
                abroad.append(link)
            elif link.peer_ifindex in place.links:
                found[link.ifindex] = (place, place.links[link.peer_ifindex])
        if not abroad:
            return found
        try:
            rtnl = _rtnl(place)
        except NotFoundError:
            return found
        numbers: dict[int, int | None] = {}
        with rtnl:
            for link in abroad:
                key = (link.peer_ifindex or 0, link.ifindex)
                for other in self._by_ends.get(key, ()):
                    inode = other[0].namespace.inode
                    if inode not in numbers:
                        numbers[inode] = _number(rtnl, other[0])
                    if numbers[inode] == link.peer_nsid:
                        found[link.ifindex] = other
                        break
        return found


def _rtnl(place: _Place) -> Rtnl:
    """A socket of the place; where the thread is already, no rights are needed."""
    if place.home:
        return Rtnl()
    with place.namespace.open() as ns, entered(ns):
        return Rtnl()


def _number(rtnl: Rtnl, place: _Place) -> int | None:
    """The id that the socket's namespace has for another."""
    try:
        with NetNS.current() if place.home else place.namespace.open() as ns:
            return nsids.get(rtnl, ns)
    except NotFoundError:
        return None
