"""Changing netkit devices: all that was asked for, or nothing."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from netbpf.errors import NetlinkError
from netbpf.interrupts import held
from netbpf.netkit.bulk import UP_MEANINGS
from netbpf.netkit.model import (
    Device,
    Policy,
    check_addresses,
    check_alias,
    check_changeable,
    check_device_name,
    check_group,
    check_mac,
    check_range,
    check_word,
)
from netbpf.netkit.reading import netkit_link, read
from netbpf.netkit.request import given
from netbpf.netlink import addresses, links
from netbpf.netlink import netkit as uapi
from netbpf.netlink.refusals import Meaning, refusals
from netbpf.netlink.rtnl import Refusal, Rtnl

Pairs = Sequence[tuple[str, Any]]

SET_MEANINGS = {
    **UP_MEANINGS,
    errno.EACCES: Meaning(
        "a peer's policy is changed through the primary device",
        "name the primary device, in its own namespace; mode, scrub, headroom, tailroom and "
        "pairing are fixed when a device is made",
    ),
    errno.EOPNOTSUPP: Meaning(
        "this device has no such setting",
        "a single device has no policy, and a pair whose peer is gone no peer policy; "
        "an L3 device has no MAC address",
    ),
    errno.EEXIST: Meaning("the name is taken", "take another name"),
}
_DEL_MEANINGS = {errno.EADDRNOTAVAIL: Meaning("it does not have it")}
_ADD_MEANINGS = {errno.EEXIST: Meaning("it has it already")}


@dataclass(frozen=True)
class Change:
    """What is to be changed, as attributes and addresses."""

    data: Pairs
    general: Pairs
    addresses: Sequence[tuple[bool, addresses.Interface]]
    """Addresses, and whether they are added."""


def checked(
    *,
    policy: str | None = None,
    peer_policy: str | None = None,
    name: str | None = None,
    mtu: int | None = None,
    mac: str | None = None,
    group: int | None = None,
    alias: str | None = None,
    addrs: Sequence[str] = (),
    del_addrs: Sequence[str] = (),
    up: bool | None = None,
    **fixed: object,
) -> Change:
    """What `set` is to change, after a look whether it can mean anything.

    :raises ValueError: it cannot, or it is nothing.
    """
    check_changeable(fixed)
    check_word("policy", policy, Policy)
    check_word("peer policy", peer_policy, Policy)
    check_range("mtu", mtu, 1, 0x7FFFFFFF)
    check_group("group", group)
    check_alias("alias", alias)
    if mac is not None:
        check_mac(mac)
    if name is not None:
        check_device_name(name)
    # Taken away before others are given: one can be written with another prefix length.
    steps = [(False, address) for address in check_addresses(del_addrs)]
    steps += [(True, address) for address in check_addresses(addrs)]
    data = given(IFLA_NETKIT_POLICY=policy, IFLA_NETKIT_PEER_POLICY=peer_policy)
    general = given(
        IFLA_ADDRESS=mac, IFLA_MTU=mtu, IFLA_GROUP=group, IFLA_IFNAME=name, IFLA_IFALIAS=alias
    )
    if not (data or general or steps) and up is None:
        raise ValueError(
            "nothing to change: name a policy, a peer policy, a name, an mtu, a mac, a group, "
            "an alias, addresses or up"
        )
    return Change(data, general, steps)


def set(
    device: str | int,
    *,
    policy: Policy | None = None,
    peer_policy: Policy | None = None,
    name: str | None = None,
    mtu: int | None = None,
    mac: str | None = None,
    group: int | None = None,
    alias: str | None = None,
    addrs: Sequence[str] = (),
    del_addrs: Sequence[str] = (),
    up: bool | None = None,
    **fixed: object,
) -> Device:
    """Change a netkit device of the namespace of the calling thread; what is not named stays.

    Policies are changed through the primary end, for both; all else is of this end. When a part is
    refused, the rest is put back. Mode, scrub, headroom, tailroom, pairing and queues are fixed
    when the device is made: naming one is a ValueError.

    :param device: name or ifindex.
    :param name: what it is to be called from now on.
    :param alias: a text beside its name; the empty one takes it away.
    :param addrs: addresses to add, with prefix length.
    :param del_addrs: addresses to take from it.
    :raises ValueError: nothing to change, or a value that cannot mean anything.
    :raises NotFoundError: there is no such netkit device.
    :raises NetlinkError: EACCES: this is the peer end; EOPNOTSUPP: the device has no such setting.

    Since Linux 6.7 (netkit_change_link in drivers/net/netkit.c); a new name for a device that is up
    since 6.2.
    """
    wanted = checked(
        policy=policy,
        peer_policy=peer_policy,
        name=name,
        mtu=mtu,
        mac=mac,
        group=group,
        alias=alias,
        addrs=addrs,
        del_addrs=del_addrs,
        up=up,
        **fixed,
    )
    data, general, steps = wanted.data, wanted.general, wanted.addresses
    with Rtnl() as rtnl:
        before = netkit_link(rtnl, device)
        done: list[tuple[bool, addresses.Interface]] = []
        try:
            if data or general or up is not None:
                kind = uapi.KIND if data else None
                with refusals(f"set {before.name}", SET_MEANINGS):
                    links.change(
                        rtnl, before.ifindex, up=up, attributes=general, kind=kind, data=data
                    )
            for adding, address in steps:
                with held():
                    _change_address(rtnl, before, adding, address)
                    done.append((adding, address))
        except BaseException:
            with held():
                for adding, address in reversed(done):
                    with suppress(NetlinkError):
                        _change_address(rtnl, before, not adding, address)
                _put_back(rtnl, before, data, general, up)
            raise
        return read(rtnl, before.ifindex)


def _change_address(
    rtnl: Rtnl, link: links.Link, adding: bool, address: addresses.Interface
) -> None:
    if adding:
        with refusals(f"give {link.name} the address {address}", _ADD_MEANINGS):
            addresses.add(rtnl, link.ifindex, address)
    else:
        with refusals(f"take the address {address} from {link.name}", _DEL_MEANINGS):
            addresses.delete(rtnl, link.ifindex, address)


def _put_back(
    rtnl: Rtnl,
    before: links.Link,
    data: Pairs,
    general: Pairs,
    up: bool | None,
) -> None:
    """Give a device back what a change may have taken, each on its own, as far as it goes."""
    earlier = {
        "IFLA_ADDRESS": before.mac,
        "IFLA_MTU": before.mtu,
        "IFLA_GROUP": before.group,
        "IFLA_IFNAME": before.name,
        "IFLA_IFALIAS": before.alias or "",
        **before.data,
    }
    for name, _ in data:
        # A device that does not tell a setting does not have it: its change was refused.
        if name not in earlier:
            continue
        with suppress(Refusal):
            links.change(rtnl, before.ifindex, kind=uapi.KIND, data=[(name, earlier[name])])
    for name, _ in general:
        with suppress(Refusal):
            links.change(rtnl, before.ifindex, attributes=[(name, earlier[name])])
    if up is not None:
        with suppress(Refusal):
            links.change(rtnl, before.ifindex, up=before.up)
