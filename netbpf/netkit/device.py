"""Netkit devices: made, changed, deleted, shown.

Importing this room imports pyroute2; `netbpf.netkit.model` holds the words and shapes without it.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from netbpf.errors import KernelError
from netbpf.interrupts import held
from netbpf.netkit.model import (
    Device,
    Mode,
    Policy,
    Scrub,
    Settings,
    check_mac,
    check_range,
    check_word,
)
from netbpf.netkit.reading import netkit_link, read, read_all
from netbpf.netkit.request import check_taken, create, given
from netbpf.netlink import addresses, links
from netbpf.netlink import netkit as uapi
from netbpf.netlink.refusals import Meaning, explained, refusals
from netbpf.netlink.rtnl import Refusal, Rtnl
from netbpf.netns import NetNS, entered

_SET_MEANINGS = {
    errno.EACCES: Meaning(
        "a peer's settings are changed through the primary device",
        "name the primary device; mode, scrub, headroom and tailroom are fixed at creation",
    ),
    errno.EOPNOTSUPP: Meaning(
        "this device has no such setting",
        "a single device has no policy, and a pair whose peer is gone no peer policy; "
        "an L3 device has no MAC address",
    ),
    errno.ENODEV: Meaning("the device is gone"),
}
_UP_MEANINGS = {
    errno.ENOTCONN: Meaning("its peer is gone"),
    errno.ENODEV: Meaning("the device is gone"),
}


def add(
    name: str,
    *,
    peer: str | None = None,
    peer_netns: NetNS | str | None = None,
    single: bool = False,
    mode: Mode = "l3",
    policy: Policy = "forward",
    peer_policy: Policy | None = None,
    scrub: Scrub | None = None,
    peer_scrub: Scrub | None = None,
    headroom: int | None = None,
    tailroom: int | None = None,
    rx_queues: int | None = None,
    peer_rx_queues: int | None = None,
    mtu: int | None = None,
    mac: str | None = None,
    peer_mac: str | None = None,
    addrs: Sequence[str] = (),
    peer_addrs: Sequence[str] = (),
    up: bool = False,
) -> Device:
    """Make a netkit pair, or a single device, in the namespace of the calling thread.

    ``name`` becomes the primary end; programs are attached there, for both ends. Without ``peer``
    the other end is called by the first free ``nkN``, as the kernel does it. A peer inherits
    nothing: policy and scrub are set at both ends (forward and default unless named), ``mtu``,
    ``up``, ``headroom`` and ``tailroom`` hold for both, and the others have their ``peer_…``.

    When a step fails or is interrupted, the device just made is gone again.

    :param peer_netns: where the other end goes: a handle, or a name, a path or ``pid:N``.
    :param addrs: addresses with prefix length, ``10.0.0.1/24``.
    :raises ValueError: the settings cannot mean anything; nothing was asked of the kernel.
    :raises NotSupportedError: this kernel has no netkit, or not the setting asked for.
    :raises NotFoundError: there is no namespace ``peer_netns``.
    :raises NetlinkError: the kernel refused; EEXIST: a name is taken; EPERM: CAP_NET_ADMIN.

    Since Linux 6.7; ``scrub`` 6.13; ``headroom`` and ``tailroom`` 6.14; ``single`` 7.1
    (drivers/net/netkit.c).
    """
    with _taken_back_on_failure() as made, ExitStack() as stack:
        if isinstance(peer_netns, str):
            peer_netns = stack.enter_context(NetNS.parse(peer_netns))
        if peer_netns is not None and peer_netns.is_current():
            peer_netns = None
        settings = Settings(
            name=name,
            peer=peer,
            peer_netns=peer_netns,
            single=single,
            mode=mode,
            policy=policy,
            peer_policy=peer_policy,
            scrub=scrub,
            peer_scrub=peer_scrub,
            headroom=headroom,
            tailroom=tailroom,
            rx_queues=rx_queues,
            peer_rx_queues=peer_rx_queues,
            mtu=mtu,
            mac=mac,
            peer_mac=peer_mac,
            addrs=addrs,
            peer_addrs=peer_addrs,
            up=up,
        )
        own_addrs = _parsed(settings.addrs)
        other_addrs = _parsed(settings.peer_addrs)
        rtnl = stack.enter_context(Rtnl())
        peer_rtnl = rtnl
        if settings.peer_netns is not None:
            with entered(settings.peer_netns):
                peer_rtnl = stack.enter_context(Rtnl())
        with held():
            made.append(create(rtnl, peer_rtnl, settings))
        link = links.get(rtnl, made[0])
        check_taken(link, settings)
        if not settings.single:
            if link.peer_ifindex is None:
                raise KernelError(f"add {name}", errno.ENOTCONN, "its peer is gone already")
            _dress(peer_rtnl, link.peer_ifindex, f"the peer of {link.name}", other_addrs, up)
        _dress(rtnl, link.ifindex, link.name, own_addrs, up)
        return read(rtnl, link.ifindex)


def set(
    device: str | int,
    *,
    policy: Policy | None = None,
    peer_policy: Policy | None = None,
    mtu: int | None = None,
    mac: str | None = None,
    up: bool | None = None,
) -> Device:
    """Change a netkit device of the namespace of the calling thread; what is not named stays.

    Policies are changed through the primary end. When a part is refused, the rest is put back.
    Mode, scrub, headroom, tailroom and pairing are fixed when the device is made.

    :param device: name or ifindex.
    :raises ValueError: nothing to change, or a value that cannot mean anything.
    :raises NotFoundError: there is no such netkit device.
    :raises NetlinkError: EACCES: this is the peer end; EOPNOTSUPP: the device has no such setting.

    Since Linux 6.7 (netkit_change_link in drivers/net/netkit.c).
    """
    check_word("policy", policy, Policy)
    check_word("peer policy", peer_policy, Policy)
    check_range("mtu", mtu, 1, 0x7FFFFFFF)
    if mac is not None:
        check_mac(mac)
    if all(value is None for value in (policy, peer_policy, mtu, mac, up)):
        raise ValueError("nothing to change: name a policy, a peer policy, an mtu, a mac or up")
    with Rtnl() as rtnl:
        before = netkit_link(rtnl, device)
        data = given(IFLA_NETKIT_POLICY=policy, IFLA_NETKIT_PEER_POLICY=peer_policy)
        general = given(IFLA_MTU=mtu, IFLA_ADDRESS=mac)
        try:
            with refusals(f"set {before.name}", _SET_MEANINGS):
                links.change(
                    rtnl,
                    before.ifindex,
                    up=up,
                    attributes=general,
                    kind=uapi.KIND if data else None,
                    data=data,
                )
        except BaseException:
            _put_back(rtnl, before, data, general, up)
            raise
        return read(rtnl, before.ifindex)


def delete(*devices: str | int) -> list[str]:
    """Delete netkit devices of the namespace of the calling thread; return their names.

    Deleting either end of a pair deletes both. All are looked up before the first is deleted.

    :param devices: names or ifindexes.
    :raises NotFoundError: one of them is no netkit device; then none was deleted.
    :raises NetlinkError: the kernel refused; EPERM: CAP_NET_ADMIN.
    """
    with Rtnl() as rtnl:
        found = {link.ifindex: link for link in (netkit_link(rtnl, device) for device in devices)}
        gone: dict[int, None] = {}
        for ifindex, link in found.items():
            try:
                links.delete(rtnl, ifindex)
            except Refusal as error:
                # Named together with its other end, which took it along.
                if error.errno == errno.ENODEV and link.peer_ifindex in gone:
                    continue
                raise explained(f"delete {link.name}", error) from error
            gone[ifindex] = None
        return [link.name for link in found.values()]


def get(device: str | int) -> Device:
    """One netkit device of the namespace of the calling thread, by name or ifindex.

    :raises NotFoundError: there is none.
    """
    with Rtnl() as rtnl:
        return read(rtnl, device)


def show(name: str | None = None) -> list[Device]:
    """All netkit devices of the namespace of the calling thread by ifindex, or the one ``name``.

    :raises NotFoundError: there is no netkit device ``name``.
    """
    with Rtnl() as rtnl:
        return read_all(rtnl) if name is None else [read(rtnl, name)]


def _dress(
    rtnl: Rtnl, ifindex: int, label: str, addrs: Sequence[addresses.Interface], up: bool
) -> None:
    for address in addrs:
        with refusals(f"give {label} the address {address}"):
            addresses.add(rtnl, ifindex, address)
    if up:
        with refusals(f"bring {label} up", _UP_MEANINGS):
            links.change(rtnl, ifindex, up=True)


@contextmanager
def _taken_back_on_failure() -> Iterator[list[int]]:
    """A list for the ifindex of the device made in the block; deleted again if the block fails."""
    made: list[int] = []
    try:
        yield made
    except BaseException:
        if made:
            with held(), suppress(Refusal), Rtnl() as rtnl:
                links.delete(rtnl, made[0])
        raise


def _put_back(
    rtnl: Rtnl,
    before: links.Link,
    data: Sequence[tuple[str, Any]],
    general: Sequence[tuple[str, Any]],
    up: bool | None,
) -> None:
    """Give a device back what a change may have taken, each on its own, as far as it goes."""
    earlier = {"IFLA_MTU": before.mtu, "IFLA_ADDRESS": before.mac, **before.data}
    with held():
        for name, _ in data:
            with suppress(Refusal):
                pair = [(name, earlier[name])]
                links.change(rtnl, before.ifindex, kind=uapi.KIND, data=pair)
        for name, _ in general:
            with suppress(Refusal):
                links.change(rtnl, before.ifindex, attributes=[(name, earlier[name])])
        if up is not None:
            with suppress(Refusal):
                links.change(rtnl, before.ifindex, up=before.up)


def _parsed(texts: Sequence[str]) -> list[addresses.Interface]:
    parsed = [addresses.parse(text) for text in texts]
    for position, address in enumerate(parsed):
        if address in parsed[:position]:
            raise ValueError(f"the address {address} is given twice")
    return parsed
