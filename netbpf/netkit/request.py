"""Making a netkit device: settings as netlink attributes, and what the kernel made of them."""

from __future__ import annotations

import errno
import itertools
import re
import secrets
import socket
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from operator import attrgetter
from typing import Any

from netbpf.errors import KernelError, NetbpfError, NotFoundError, NotSupportedError
from netbpf.netkit import marks
from netbpf.netkit.model import Settings
from netbpf.netkit.reading import MODES, POLICIES, SCRUBS
from netbpf.netlink import links
from netbpf.netlink import netkit as uapi
from netbpf.netlink.refusals import NEEDS_NET_ADMIN, Meaning, explained
from netbpf.netlink.rtnl import Refusal, Rtnl
from netbpf.netns import entered

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
_NAME_TRIES = 20

ADD_MEANINGS = {
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
    errno.EEXIST: Meaning("the name is taken", "take another name"),
}


def create(rtnl: Rtnl, settings: Settings, mark: int | None) -> links.Made:
    """Ask for one device in the namespace of ``rtnl`` and of the calling thread.

    :param mark: the group that both ends get, in place of their own, until they are finished.
    :raises NotSupportedError: this kernel has no netkit, or no singles.
    :raises NetlinkError: the kernel refused.
    """
    for turn in range(_NAME_TRIES):
        peer = settings.peer or _free_name(settings, turn)
        try:
            return links.create(rtnl, Bodies().of(replace(settings, peer=peer), mark))
        except Refusal as error:
            if error.errno == errno.EEXIST:
                if _leftover_removed(rtnl, settings.name):
                    continue
                if peer != settings.peer and not _is_here(settings.name):
                    # Somebody took the free name meanwhile: look again.
                    last = error
                    continue
            raise refused(rtnl, settings, error) from error
    raise refused(rtnl, settings, last) from last


def refused(rtnl: Rtnl, settings: Settings, error: Refusal) -> NetbpfError:
    """What to raise for the kernel's ``error`` to a new device."""
    if error.errno == errno.EOPNOTSUPP and error.extack == _UNKNOWN_KIND:
        return NotSupportedError("netkit", since="6.7", config="CONFIG_NETKIT")
    if error.errno == errno.EEXIST and settings.single and not _is_here(settings.name):
        # A kernel that knows no singles makes a pair, and calls its other end nkN: this one.
        feature, since = _SINCE["IFLA_NETKIT_PAIRING"]
        return NotSupportedError(feature, since=since)
    meanings = dict(ADD_MEANINGS)
    if error.errno == errno.EEXIST:
        meanings[errno.EEXIST] = _who_has_the_name(rtnl, settings)
    return explained(f"add {settings.name}", error, meanings)


class Bodies:
    """The messages that make devices; what two in a row have in common is packed once."""

    def __init__(self) -> None:
        self._key: object = None
        self._template: links.Template | None = None

    def of(self, settings: Settings, mark: int | None) -> bytes:
        """The message for one; what it cannot hold is left for later messages."""
        other = settings.peer_netns
        key = (_ALL_BUT_NAMES(settings), other and other.fileno(), mark)
        if self._template is None or key != self._key:
            self._template, self._key = _template(settings, mark), key
        return self._template.body(settings.name, settings.peer)


_ALL_BUT_NAMES = attrgetter(
    *("single", "mode", "policy", "peer_policy", "scrub", "peer_scrub", "headroom", "tailroom"),
    *("rx_queues", "peer_rx_queues", "mtu", "peer_mtu", "mac", "peer_mac", "group", "peer_group"),
    "up",
)
"""Of the settings that the message holds."""


def _template(settings: Settings, mark: int | None) -> links.Template:
    return links.netkit_template(
        _data(settings),
        None if settings.single else _peer(settings, mark),
        given(
            IFLA_NUM_RX_QUEUES=settings.rx_queues,
            IFLA_MTU=settings.mtu,
            IFLA_ADDRESS=settings.mac,
            IFLA_GROUP=settings.group if mark is None else mark,
        ),
        up=settings.up and mark is None,
    )


def _leftover_removed(rtnl: Rtnl, name: str) -> bool:
    """Delete the device ``name`` if a netbpf was killed while it made or deleted it."""
    try:
        link = links.get(rtnl, name)
    except (NotFoundError, KernelError):
        return False
    doing = marks.meaning(link.group)
    if link.kind != uapi.KIND or doing is None or (doing == "add" and marks.is_held(link.group)):
        return False
    try:
        links.delete(rtnl, link.ifindex)
    except Refusal as error:
        return error.errno == errno.ENODEV
    return True


def _free_name(settings: Settings, turn: int) -> str | None:
    """A name for the peer where the kernel's own choice could not work, else None.

    The kernel registers the peer first and calls it by the first free nkN: without this, a pair
    whose other end is to be that very nkN could not be made.

    :param turn: how often the name was gone when it was asked for: then not all who look take the
        first.
    """
    if (
        settings.single
        or settings.peer is not None
        or settings.peer_netns is not None
        or not is_numbered(settings.name)
    ):
        return None
    free = free_names({settings.name})
    return next(itertools.islice(free, secrets.randbelow(4 * turn) if turn else 0, None))


def is_numbered(name: str) -> bool:
    """Whether a device is called as the kernel calls those that nobody gave a name."""
    return _NUMBERED.fullmatch(name) is not None


def free_names(but: Collection[str]) -> Iterator[str]:
    """The names nk0, nk1 … that no device of this thread's namespace has, nor is in ``but``."""
    taken = {name for _, name in socket.if_nameindex()}
    return (name for name in map("nk{}".format, itertools.count()) if name not in taken | set(but))


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
    return [
        *data,
        *given(
            IFLA_NETKIT_POLICY=settings.policy,
            IFLA_NETKIT_PEER_POLICY=settings.peer_policy or "forward",
            IFLA_NETKIT_SCRUB=settings.scrub or "default",
            IFLA_NETKIT_PEER_SCRUB=settings.peer_scrub or "default",
        ),
    ]


def _peer(settings: Settings, mark: int | None) -> list[tuple[str, Any]]:
    other = settings.peer_netns
    return given(
        IFLA_NET_NS_FD=None if other is None else other.fileno(),
        IFLA_NUM_RX_QUEUES=settings.peer_rx_queues,
        IFLA_MTU=settings.mtu if settings.peer_mtu is None else settings.peer_mtu,
        IFLA_ADDRESS=settings.peer_mac,
        IFLA_GROUP=settings.peer_group if mark is None else mark,
    )


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


@contextmanager
def at_peer(rtnl: Rtnl, settings: Settings) -> Iterator[Rtnl]:
    """A socket of the namespace in which the other end is: ``rtnl``, if that is the same."""
    if settings.peer_netns is None:
        yield rtnl
        return
    with entered(settings.peer_netns):
        opened = Rtnl()
    with opened:
        yield opened


def _who_has_the_name(rtnl: Rtnl, settings: Settings) -> Meaning:
    """Which of the two names is taken: the kernel does not say."""
    with suppress(NotFoundError, KernelError):
        return _taken_by(links.get(rtnl, settings.name), "here")
    with suppress(NotFoundError, KernelError), at_peer(rtnl, settings) as there:
        where = "here" if settings.peer_netns is None else f"in {settings.peer_netns}"
        if settings.peer is not None:
            return _taken_by(links.get(there, settings.peer), where)
    return Meaning("the name is taken", "take another name")


def _taken_by(link: links.Link, where: str) -> Meaning:
    if marks.meaning(link.group):
        return Meaning(
            f"there is an unfinished device {link.name} {where}",
            "somebody makes or deletes it at this moment, or was killed at it: "
            f"`netbpf netkit del {link.name}` removes it",
        )
    return Meaning(f"there is a device {link.name} {where} already", "take another name")
