"""Devices for a test: veth, netkit, netdevsim; each inside namespaces of the test."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netbpf.errors import NotFoundError
from netbpf.netkit import device as netkit_device
from netbpf.netkit.model import Device
from netbpf.netlink import addresses, links
from netbpf.netlink.rtnl import Refusal, Rtnl
from netbpf.netns import NetNS, entered


@dataclass(frozen=True)
class End:
    """One end of a pair: where it is, what it is called, and its IPv4 address."""

    ns: NetNS
    name: str
    ifindex: int
    address: str


@contextmanager
def veth_pair(
    a: NetNS,
    b: NetNS,
    *,
    names: tuple[str, str] = ("veth-a", "veth-b"),
    addrs: tuple[str, str] = ("10.99.0.1/24", "10.99.0.2/24"),
) -> Iterator[tuple[End, End]]:
    """A veth pair between two namespaces, addressed and up."""
    with rtnl_in(a) as at_a, rtnl_in(b) as at_b:
        nest = {"attrs": [("IFLA_IFNAME", names[1]), ("IFLA_NET_NS_FD", b.fileno())]}
        first = links.add(at_a, names[0], "veth", data=[("VETH_INFO_PEER", nest)])
        try:
            second = links.get(at_b, names[1]).ifindex
            for rtnl, ifindex, address in ((at_a, first, addrs[0]), (at_b, second, addrs[1])):
                addresses.add(rtnl, ifindex, addresses.parse(address))
                links.change(rtnl, ifindex, up=True)
            yield (
                End(a, names[0], first, addrs[0].split("/")[0]),
                End(b, names[1], second, addrs[1].split("/")[0]),
            )
        finally:
            with suppress(Refusal):
                links.delete(at_a, first)


@contextmanager
def device(ns: NetNS, name: str = "dev0") -> Iterator[int]:
    """A device that is no netkit (a veth, its other end ``NAMEp`` beside it), up; its ifindex."""
    with rtnl_in(ns) as rtnl:
        nest = {"attrs": [("IFLA_IFNAME", f"{name}p")]}
        ifindex = links.add(rtnl, name, "veth", data=[("VETH_INFO_PEER", nest)])
        try:
            links.change(rtnl, links.get(rtnl, f"{name}p").ifindex, up=True)
            links.change(rtnl, ifindex, up=True)
            yield ifindex
        finally:
            with suppress(Refusal):
                links.delete(rtnl, ifindex)


@contextmanager
def netkit_pair(
    a: NetNS,
    b: NetNS,
    *,
    names: tuple[str, str] = ("nk0", "eth0"),
    addrs: tuple[str, str] = ("10.98.0.1/24", "10.98.0.2/24"),
    **settings: Any,
) -> Iterator[tuple[End, End]]:
    """A netkit pair, primary in ``a``, peer in ``b``, addressed and up; more as `device.add`."""
    with entered(a):
        made = netkit_device.add(
            names[0],
            peer=names[1],
            peer_netns=b,
            addrs=[addrs[0]],
            peer_addrs=[addrs[1]],
            up=True,
            **settings,
        )
    assert made.peer is not None
    try:
        yield (
            End(a, names[0], made.ifindex, addrs[0].split("/")[0]),
            End(b, names[1], made.peer.ifindex, addrs[1].split("/")[0]),
        )
    finally:
        _delete_netkit(a, made.ifindex)


@contextmanager
def netkit_single(ns: NetNS, name: str = "nk0", **settings: Any) -> Iterator[Device]:
    """A single netkit device; more as `device.add`."""
    with entered(ns):
        made = netkit_device.add(name, single=True, **settings)
    try:
        yield made
    finally:
        _delete_netkit(ns, made.ifindex)


@contextmanager
def netdevsim(ns: NetNS, *, queues: int = 4, ports: int = 1) -> Iterator[Sequence[str]]:
    """A simulated NIC in ``ns`` (drivers/net/netdevsim); yields the names of its devices.

    The module has to be there: in the lab with ``--netdevsim``.
    """
    bus = Path("/sys/bus/netdevsim")
    number = 1000 + os.getpid() % 100000
    while (bus / f"devices/netdevsim{number}").exists():
        number += 1
    with entered(ns):
        # The device goes to the namespace of whoever writes.
        (bus / "new_device").write_text(f"{number} {ports} {queues}")
    try:
        folder = bus / f"devices/netdevsim{number}/net"
        yield _netdevsim_names(ns, folder, ports)
    finally:
        (bus / "del_device").write_text(str(number))


def _netdevsim_names(ns: NetNS, folder: Path, ports: int) -> list[str]:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        with rtnl_in(ns) as rtnl:
            # Its folder in sysfs shows the devices of the mount's namespace only: ask rtnetlink.
            found = [
                link.name for link in links.dump(rtnl) if link.kind is None and link.ifindex > 1
            ]
        if len(found) >= ports:
            return found
        time.sleep(0.02)
    raise AssertionError(f"no device appeared for {folder}")


@contextmanager
def rtnl_in(ns: NetNS) -> Iterator[Rtnl]:
    """An rtnetlink socket of ``ns``."""
    with entered(ns):
        rtnl = Rtnl()
    with rtnl:
        yield rtnl


def _delete_netkit(ns: NetNS, ifindex: int) -> None:
    with entered(ns), suppress(NotFoundError):
        netkit_device.delete(ifindex)
