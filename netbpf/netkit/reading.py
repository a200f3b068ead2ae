"""Reading netkit devices: from what the kernel lists to `Device`, the other end included."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from netbpf.errors import KernelError, NotFoundError
from netbpf.netkit import marks
from netbpf.netkit.lease_model import Lease
from netbpf.netkit.lease_reading import leases_of
from netbpf.netkit.model import Device, Mode, Pairing, Peer, Policy, Scrub
from netbpf.netlink import addresses, links, nsids
from netbpf.netlink import netkit as uapi
from netbpf.netlink.rtnl import Rtnl
from netbpf.netns import NetNS, list_names, pids_by_inode

MODES: dict[int, Mode] = {uapi.L2: "l2", uapi.L3: "l3"}
POLICIES: dict[int, Policy] = {uapi.PASS: "forward", uapi.DROP: "blackhole"}
SCRUBS: dict[int, Scrub] = {uapi.SCRUB_NONE: "none", uapi.SCRUB_DEFAULT: "default"}
PAIRINGS: dict[int, Pairing] = {uapi.PAIR: "pair", uapi.SINGLE: "single"}

_NONE: Mapping[int, Sequence[Lease]] = {}


class Neighbours:
    """The namespaces that the socket's namespace has ids for, as a person would write them."""

    def __init__(self, rtnl: Rtnl) -> None:
        self._rtnl = rtnl
        self._names: dict[int, str] | None = None
        self._pids: dict[int, str] | None = None

    def reference(self, nsid: int) -> str:
        """A name under /run/netns, ``pid:N`` of a process inside, or else ``nsid:N``."""
        if self._names is None:
            self._names = self._by_nsid(list_names())
        if nsid in self._names:
            return self._names[nsid]
        if self._pids is None:
            self._pids = self._by_nsid(f"pid:{pids[0]}" for pids in pids_by_inode().values())
        return self._pids.get(nsid, f"nsid:{nsid}")

    def _by_nsid(self, references: Iterable[str]) -> dict[int, str]:
        found: dict[int, str] = {}
        for reference in references:
            try:
                with NetNS.parse(reference) as ns:
                    nsid = nsids.get(self._rtnl, ns)
            except (NotFoundError, KernelError, ValueError):
                # Gone meanwhile, or not ours to look into.
                continue
            if nsid is not None:
                found.setdefault(nsid, reference)
        return found


class Elsewhere:
    """The netkit devices of a namespace that the socket's has an id for, and their addresses.

    Asked one by one, or listed at once where several are wanted.
    """

    def __init__(self, rtnl: Rtnl, nsid: int, *, several: bool) -> None:
        self._rtnl = rtnl
        self._nsid = nsid
        self._links: dict[int, links.Link] | None = None
        self._addrs: Mapping[int, list[str]] = {}
        if several:
            found = links.dump(rtnl, kind=uapi.KIND, nsid=nsid)
            self._links = {link.ifindex: link for link in found}
            self._addrs = addresses.by_device(rtnl, nsid=nsid)

    def find(self, ifindex: int) -> tuple[links.Link, Sequence[str]] | None:
        """A device and its addresses; None: it is gone."""
        if self._links is not None:
            link = self._links.get(ifindex)
            return None if link is None else (link, self._addrs.get(ifindex, ()))
        link = links.get(self._rtnl, ifindex, nsid=self._nsid)
        addrs = addresses.by_device(self._rtnl, ifindex, nsid=self._nsid)
        return link, addrs.get(ifindex, ())


class Reader:
    """Turns links into devices, asking for the other ends and the addresses as needed."""

    def __init__(
        self, rtnl: Rtnl, known: Sequence[links.Link], addrs: Mapping[int, list[str]]
    ) -> None:
        """Read devices of the socket's namespace.

        :param addrs: the addresses of the devices ``known``, by ifindex.
        """
        self._rtnl = rtnl
        self._known = {link.ifindex: link for link in known}
        self._addrs = addrs
        self._neighbours = Neighbours(rtnl)
        self._abroad = Counter(link.peer_nsid for link in known if link.peer_nsid is not None)
        self._elsewhere: dict[int, Elsewhere | None] = {}

    def device(self, link: links.Link, leases: Mapping[int, Sequence[Lease]] = _NONE) -> Device:
        """The `Device` that ``link`` shows; leases are given by ifindex."""
        netns = None if link.peer_nsid is None else self._neighbours.reference(link.peer_nsid)
        peer = peer_of(link, netns, *self._other_end(link))
        addrs = self._addrs.get(link.ifindex, ())
        return device_of(link, addrs, peer, leases.get(link.ifindex, ()))

    def _other_end(self, link: links.Link) -> tuple[links.Link | None, Sequence[str]]:
        ifindex, nsid = link.peer_ifindex, link.peer_nsid
        if ifindex is None:
            return None, ()
        if nsid is None and ifindex in self._known:
            return self._known[ifindex], self._addrs.get(ifindex, ())
        try:
            if nsid is None:
                found = links.get(self._rtnl, ifindex)
                return found, addresses.by_device(self._rtnl, ifindex).get(ifindex, ())
            if nsid not in self._elsewhere:
                # Set first: when it is refused, it is for the next one too.
                self._elsewhere[nsid] = None
                several = self._abroad[nsid] > 1
                self._elsewhere[nsid] = Elsewhere(self._rtnl, nsid, several=several)
            there = self._elsewhere[nsid]
            return (there and there.find(ifindex)) or (None, ())
        except (NotFoundError, KernelError):
            # Going away at this moment, or in a namespace of a user that we may not act for.
            return None, ()


def device_of(
    link: links.Link,
    addrs: Sequence[str],
    peer: Peer | None,
    leases: Sequence[Lease] = (),
    netns: str | None = None,
) -> Device:
    """The `Device` that ``link`` shows."""
    data = link.data
    mode = MODES[data.get("IFLA_NETKIT_MODE", uapi.L3)]
    return Device(
        name=link.name,
        ifindex=link.ifindex,
        netns=netns,
        # What a kernel does not tell, it does as here: scrub came with Linux 6.13, headroom and
        # tailroom with 6.14, singles with 7.1.
        pairing=PAIRINGS[data.get("IFLA_NETKIT_PAIRING", uapi.PAIR)],
        primary=bool(data.get("IFLA_NETKIT_PRIMARY", 0)),
        mode=mode,
        policy=POLICIES[data.get("IFLA_NETKIT_POLICY", uapi.PASS)],
        scrub=SCRUBS[data.get("IFLA_NETKIT_SCRUB", uapi.SCRUB_DEFAULT)],
        headroom=data.get("IFLA_NETKIT_HEADROOM", 0),
        tailroom=data.get("IFLA_NETKIT_TAILROOM", 0),
        rx_queues=link.rx_queues,
        mtu=link.mtu,
        mac=link.mac if mode == "l2" else None,
        up=link.up,
        state=link.state,
        group=link.group,
        alias=link.alias,
        # At the end, the mark goes from the peer first.
        unfinished=marks.meaning(link.group)
        or (marks.meaning(peer.group) if peer is not None and peer.group else None),
        addrs=tuple(addrs),
        peer=peer,
        leases=tuple(leases),
    )


def peer_of(
    link: links.Link, netns: str | None, other: links.Link | None, addrs: Sequence[str]
) -> Peer | None:
    """The other end of ``link`` as it is seen from there, ``other`` if it can be seen itself."""
    if link.peer_ifindex is None:
        return None
    data = link.data
    peer = Peer(
        name=None,
        ifindex=link.peer_ifindex,
        netns=netns,
        policy=POLICIES[data.get("IFLA_NETKIT_PEER_POLICY", uapi.PASS)],
        scrub=SCRUBS[data.get("IFLA_NETKIT_PEER_SCRUB", uapi.SCRUB_DEFAULT)],
    )
    if other is None:
        return peer
    l2 = data.get("IFLA_NETKIT_MODE", uapi.L3) == uapi.L2
    return replace(
        peer,
        name=other.name,
        rx_queues=other.rx_queues,
        mtu=other.mtu,
        mac=other.mac if l2 else None,
        up=other.up,
        state=other.state,
        group=other.group,
        alias=other.alias,
        addrs=tuple(addrs),
    )


def read(rtnl: Rtnl, device: int | str) -> Device:
    """One netkit device of the socket's namespace.

    :raises NotFoundError: there is none of this name or ifindex, or it is no netkit device.
    """
    link = netkit_link(rtnl, device)
    addrs = addresses.by_device(rtnl, link.ifindex)
    return Reader(rtnl, [link], addrs).device(link, leases_of([link]))


def read_all(rtnl: Rtnl) -> list[Device]:
    """All netkit devices of the socket's namespace, by ifindex."""
    found = links.dump(rtnl, kind=uapi.KIND)
    if not found:
        return []
    reader = Reader(rtnl, found, addresses.by_device(rtnl))
    leases = leases_of(found)
    return [reader.device(link, leases) for link in found]


def netkit_link(rtnl: Rtnl, device: int | str) -> links.Link:
    """The link of a netkit device.

    :raises NotFoundError: there is none of this name or ifindex, or it is no netkit device.
    """
    try:
        link = links.get(rtnl, device)
    except NotFoundError as error:
        raise NotFoundError("netkit device", error.name) from error
    if link.kind != uapi.KIND:
        what = f"a {link.kind} device" if link.kind else "a device of another kind"
        raise NotFoundError("netkit device", link.name, hint=f"{link.name} is {what}")
    return link
