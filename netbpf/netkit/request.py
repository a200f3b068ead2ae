"""Making a netkit device: settings as netlink attributes, and what the kernel made of them."""

from __future__ import annotations

import errno
import itertools
import re
import socket
from dataclasses import replace
from typing import Any

from netbpf.errors import KernelError, NotFoundError, NotSupportedError
from netbpf.netkit.model import Settings
from netbpf.netkit.reading import MODES, POLICIES, SCRUBS
from netbpf.netlink import links
from netbpf.netlink import netkit as uapi
from netbpf.netlink.refusals import NEEDS_NET_ADMIN, Meaning, explained
from netbpf.netlink.rtnl import Refusal, Rtnl

_NUMBER_OF: dict[str | int, int] = {
    word: number for table in (MODES, POLICIES, SCRUBS) for number, word in table.items()
}

_SINCE = {
    "IFLA_NETKIT_PAIRING": ("single netkit devices", "7.1"),
    "IFLA_NETKIT_SCRUB": ("netkit scrub", "6.13"),
    "IFLA_NETKIT_PEER_SCRUB": ("netkit scrub", "6.13"),
    "IFLA_NETKIT_HEADROOM": ("netkit headroom", "6.14"),
    "IFLA_NETKIT_TAILROOM": ("netkit tailroom", "6.14"),
}
"""What the attributes that came after netkit itself are called, and the release they came with."""

_UNKNOWN_KIND = "Unknown device type"
"""The extack of rtnl_newlink (net/core/rtnetlink.c) for a kind the kernel does not have."""

_NUMBERED = re.compile(r"nk[0-9]+")
_NAME_TRIES = 10

_ADD_MEANINGS = {
    errno.EOPNOTSUPP: Meaning(
        "this kernel's netkit refuses the combination",
        "it takes at most 1024 rx queues, no MAC address in L3 mode, and for a single device "
        "neither a peer nor scrub nor a policy",
    ),
    errno.EINVAL: Meaning(
        "a value is out of its range", "between 1 and 4096 queues; a policy forward or blackhole"
    ),
    errno.EADDRNOTAVAIL: Meaning("the MAC address is multicast or all zeros"),
    errno.EPERM: Meaning("not permitted", NEEDS_NET_ADMIN + ", for a pair in those of both ends"),
    errno.ENODEV: Meaning("the namespace of one end is going away"),
}


def create(rtnl: Rtnl, peer_rtnl: Rtnl, settings: Settings) -> int:
    """Ask for the device and return its ifindex; ``peer_rtnl`` stands where the other end goes.

    :raises NotSupportedError: this kernel has no netkit, or no singles.
    :raises NetlinkError: the kernel refused.
    """
    try:
        return _ask(rtnl, settings)
    except Refusal as error:
        if error.errno == errno.EOPNOTSUPP and error.extack == _UNKNOWN_KIND:
            raise NotSupportedError("netkit", since="6.7", config="CONFIG_NETKIT") from error
        if error.errno == errno.EEXIST and settings.single and not _is_here(settings.name):
            # A kernel that knows no singles makes a pair, and calls its other end nkN: this one.
            feature, since = _SINCE["IFLA_NETKIT_PAIRING"]
            raise NotSupportedError(feature, since=since) from error
        meanings = dict(_ADD_MEANINGS)
        if error.errno == errno.EEXIST:
            meanings[errno.EEXIST] = _who_has_the_name(rtnl, peer_rtnl, settings)
        raise explained(f"add {settings.name}", error, meanings) from error


def _ask(rtnl: Rtnl, settings: Settings) -> int:
    for _ in range(_NAME_TRIES):
        peer = settings.peer or _free_name(settings)
        try:
            return links.add(
                rtnl,
                settings.name,
                uapi.KIND,
                data=_data(replace(settings, peer=peer)),
                attributes=given(
                    IFLA_NUM_RX_QUEUES=settings.rx_queues,
                    IFLA_MTU=settings.mtu,
                    IFLA_ADDRESS=settings.mac,
                ),
            )
        except Refusal as error:
            if error.errno != errno.EEXIST or peer == settings.peer or _is_here(settings.name):
                raise
            # Somebody took the free name meanwhile: look again.
            last = error
    raise last


def _free_name(settings: Settings) -> str | None:
    """A name for the peer where the kernel's own choice could not work, else None.

    The kernel registers the peer first and calls it by the first free nkN: without this, a pair
    whose other end is to be that very nkN could not be made.
    """
    if settings.single or settings.peer_netns is not None or not _NUMBERED.fullmatch(settings.name):
        return None
    taken = {name for _, name in socket.if_nameindex()} | {settings.name}
    return next(name for name in map("nk{}".format, itertools.count()) if name not in taken)


def _is_here(name: str) -> bool:
    return any(name == other for _, other in socket.if_nameindex())


def _data(settings: Settings) -> list[tuple[str, Any]]:
    data = given(
        IFLA_NETKIT_MODE=settings.mode,
        IFLA_NETKIT_HEADROOM=settings.headroom,
        IFLA_NETKIT_TAILROOM=settings.tailroom,
    )
    if settings.single:
        # It refuses policies and scrubs, even those that it has.
        return [*data, ("IFLA_NETKIT_PAIRING", uapi.SINGLE)]
    other = settings.peer_netns
    nest = given(
        IFLA_IFNAME=settings.peer,
        IFLA_NET_NS_FD=None if other is None else other.fileno(),
        IFLA_NUM_RX_QUEUES=settings.peer_rx_queues,
        IFLA_MTU=settings.mtu,
        IFLA_ADDRESS=settings.peer_mac,
    )
    return [
        *data,
        *given(
            IFLA_NETKIT_POLICY=settings.policy,
            IFLA_NETKIT_PEER_POLICY=settings.peer_policy or "forward",
            IFLA_NETKIT_SCRUB=settings.scrub or "default",
            IFLA_NETKIT_PEER_SCRUB=settings.peer_scrub or "default",
        ),
        ("IFLA_NETKIT_PEER_INFO", {"attrs": nest}),
    ]


def given(**attributes: str | int | None) -> list[tuple[str, Any]]:
    """The attributes that were given, words of netkit as its numbers."""
    return [
        (name, _NUMBER_OF.get(value, value) if name.startswith("IFLA_NETKIT") else value)
        for name, value in attributes.items()
        if value is not None
    ]


def check_taken(link: links.Link, settings: Settings) -> None:
    """See that the kernel took what was asked: older ones pass over attributes they do not know."""
    asked = given(
        IFLA_NETKIT_HEADROOM=settings.headroom or None,
        IFLA_NETKIT_TAILROOM=settings.tailroom or None,
        # What these kernels do anyway is no reason to refuse.
        IFLA_NETKIT_SCRUB=None if settings.scrub == "default" else settings.scrub,
        IFLA_NETKIT_PEER_SCRUB=None if settings.peer_scrub == "default" else settings.peer_scrub,
    )
    if settings.single:
        asked.insert(0, ("IFLA_NETKIT_PAIRING", uapi.SINGLE))
    for attribute, value in asked:
        if link.data.get(attribute) != value:
            feature, since = _SINCE[attribute]
            raise NotSupportedError(feature, since=since)


def _who_has_the_name(rtnl: Rtnl, peer_rtnl: Rtnl, settings: Settings) -> Meaning:
    """Which of the two names is taken: the kernel does not say."""
    other = "here" if settings.peer_netns is None else f"in {settings.peer_netns}"
    for ours, name, where in (
        (rtnl, settings.name, "here"),
        (peer_rtnl, settings.peer, other),
    ):
        if name is None:
            continue
        try:
            links.get(ours, name)
        except (NotFoundError, KernelError):
            continue
        return Meaning(f"there is a device {name} {where} already", "take another name")
    return Meaning("the name is taken", "take another name")
