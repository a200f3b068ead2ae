"""What a netkit device is: its words, its shape in JSON, and the settings of a new one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self, get_args

from netbpf.netkit import marks
from netbpf.netkit.lease_model import Lease
from netbpf.netlink import addresses
from netbpf.netns import NetNS

Mode = Literal["l3", "l2"]
Policy = Literal["forward", "blackhole"]
Scrub = Literal["default", "none"]
Pairing = Literal["pair", "single"]
Unfinished = marks.Unfinished

FIXED = {
    "mode": "mode",
    "scrub": "scrub",
    "peer_scrub": "peer scrub",
    "headroom": "headroom",
    "tailroom": "tailroom",
    "single": "pairing",
    "peer": "peer",
    "peer_netns": "peer netns",
    "rx_queues": "rx queues",
    "peer_rx_queues": "peer rx queues",
}
"""The settings of a new device that the kernel never changes afterwards, and what they are called
(netkit_change_link in drivers/net/netkit.c)."""

_HOSTILE = re.compile(r"[/:\s]")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


@dataclass(frozen=True)
class Peer:
    """The other end of a pair, as far as it can be seen from this one."""

    name: str | None
    """None: it lives in a namespace that we may not look into."""
    ifindex: int
    netns: str | None
    """Where it lives: None for the same namespace, else as `NetNS.parse` takes it (a name, or
    ``pid:N`` of a process in it), or ``nsid:N`` when nothing visible leads there."""
    policy: Policy
    scrub: Scrub
    rx_queues: int | None = None
    """None, as all that follows: it lives in a namespace that we may not look into."""
    mtu: int | None = None
    mac: str | None = None
    up: bool | None = None
    state: str | None = None
    group: int | None = None
    alias: str | None = None
    addrs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Device:
    """A netkit device, one end of a pair or a single one."""

    name: str
    ifindex: int
    pairing: Pairing
    primary: bool
    mode: Mode
    policy: Policy
    scrub: Scrub
    headroom: int
    tailroom: int
    rx_queues: int
    mtu: int
    mac: str | None
    """None in L3 mode, which has no MAC addresses."""
    up: bool
    """Set up; whether packets can pass is told by ``state``."""
    state: str = "unknown"
    """The operational state: ``up``, ``down``, ``lowerlayerdown`` while the peer is down …"""
    group: int = 0
    alias: str | None = None
    unfinished: Unfinished | None = None
    """``add`` or ``del``: a netbpf that makes or deletes it, or one that was killed at it."""
    addrs: tuple[str, ...] = ()
    peer: Peer | None = None
    """None: a single device, or a pair whose other end is going away."""
    netns: str | None = None
    """None: the namespace in which it was asked for."""
    leases: tuple[Lease, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The device as ``netkit show --json`` prints it."""
        peer = self.peer
        return {
            "name": self.name,
            "ifindex": self.ifindex,
            "netns": self.netns,
            "pairing": self.pairing,
            "primary": self.primary,
            "mode": self.mode,
            "policy": self.policy,
            "scrub": self.scrub,
            "headroom": self.headroom,
            "tailroom": self.tailroom,
            "rx_queues": self.rx_queues,
            "mtu": self.mtu,
            "mac": self.mac,
            "up": self.up,
            "state": self.state,
            "group": self.group,
            "alias": self.alias,
            "unfinished": self.unfinished,
            "addrs": list(self.addrs),
            "peer": None
            if peer is None
            else {
                "name": peer.name,
                "ifindex": peer.ifindex,
                "netns": peer.netns,
                "policy": peer.policy,
                "scrub": peer.scrub,
                "rx_queues": peer.rx_queues,
                "mtu": peer.mtu,
                "mac": peer.mac,
                "up": peer.up,
                "state": peer.state,
                "group": peer.group,
                "alias": peer.alias,
                "addrs": list(peer.addrs),
            },
            "leases": [lease.as_json() for lease in self.leases],
        }


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a new device shall be; made only when it makes sense.

    :raises ValueError: a setting, or two together, cannot mean anything.
    """

    name: str
    peer: str | None = None
    peer_netns: NetNS | None = None
    single: bool = False
    mode: Mode = "l3"
    policy: Policy = "forward"
    peer_policy: Policy | None = None
    scrub: Scrub | None = None
    peer_scrub: Scrub | None = None
    headroom: int | None = None
    tailroom: int | None = None
    rx_queues: int | None = None
    peer_rx_queues: int | None = None
    mtu: int | None = None
    peer_mtu: int | None = None
    mac: str | None = None
    peer_mac: str | None = None
    group: int | None = None
    peer_group: int | None = None
    alias: str | None = None
    peer_alias: str | None = None
    addrs: Sequence[str] = field(default=())
    peer_addrs: Sequence[str] = field(default=())
    up: bool = False

    def __post_init__(self) -> None:
        check_device_name(self.name)
        if self.peer is not None:
            check_device_name(self.peer)
            if self.peer == self.name and self.peer_netns is None:
                raise ValueError(f"both ends cannot be called {self.name} in one namespace")
        check_word("mode", self.mode, Mode)
        for what, policy in (("policy", self.policy), ("peer policy", self.peer_policy)):
            check_word(what, policy, Policy)
        for what, scrub in (("scrub", self.scrub), ("peer scrub", self.peer_scrub)):
            check_word(what, scrub, Scrub)
        check_range("headroom", self.headroom, 0, 0xFFFF)
        check_range("tailroom", self.tailroom, 0, 0xFFFF)
        check_range("rx queues", self.rx_queues, 1, 0xFFFFFFFF)
        check_range("peer rx queues", self.peer_rx_queues, 1, 0xFFFFFFFF)
        check_range("mtu", self.mtu, 1, 0x7FFFFFFF)
        check_range("peer mtu", self.peer_mtu, 1, 0x7FFFFFFF)
        check_group("group", self.group)
        check_group("peer group", self.peer_group)
        check_alias("alias", self.alias)
        check_alias("peer alias", self.peer_alias)
        check_addresses(self.addrs)
        check_addresses(self.peer_addrs)
        self._check_single()
        self._check_macs()

    @classmethod
    def numbered(
        cls, name: str, numbers: Iterable[int], *, peer: str | None = None, **settings: Any
    ) -> Iterator[Self]:
        """Settings that differ by name: ``numbered("nk{}", range(1000), peer="nk{}p", mtu=1400)``.

        :param name: a pattern in which ``{}`` stands for the number; so is ``peer``.
        """
        for number in numbers:
            yield cls(
                name=name.format(number),
                peer=None if peer is None else peer.format(number),
                **settings,
            )

    @property
    def in_steps(self) -> bool:
        """Whether one message to the kernel is not enough to make it, or to know that it is so."""
        # Addresses and aliases are not taken from the message that makes a device, nor is the
        # state of the peer; and older kernels pass over the last four.
        return bool(
            self.addrs
            or self.peer_addrs
            or self.alias
            or self.peer_alias
            or (self.up and not self.single)
            or self.single
            or self.headroom
            or self.tailroom
            or "none" in (self.scrub, self.peer_scrub)
        )

    def _check_single(self) -> None:
        if not self.single:
            return
        given = {
            "peer": self.peer,
            "peer netns": self.peer_netns,
            "peer policy": self.peer_policy,
            "peer scrub": self.peer_scrub,
            "peer rx queues": self.peer_rx_queues,
            "peer mtu": self.peer_mtu,
            "peer mac": self.peer_mac,
            "peer group": self.peer_group,
            "peer alias": self.peer_alias,
            "peer address": self.peer_addrs or None,
        }
        excess = [word for word, value in given.items() if value is not None]
        if excess:
            raise ValueError(
                f"a single device has no peer: leave out {' and '.join(excess)}, or make a pair"
            )
        if self.scrub is not None:
            raise ValueError("a single device scrubs nothing: leave out scrub, or make a pair")
        if self.policy != "forward":
            raise ValueError(
                "a single device knows no policy but forward: leave it out, or make a pair"
            )

    def _check_macs(self) -> None:
        for what, mac in (("mac", self.mac), ("peer mac", self.peer_mac)):
            if mac is None:
                continue
            check_mac(mac)
            if self.mode != "l2":
                raise ValueError(
                    f"an L3 device has no MAC address: leave out {what}, or take mode l2"
                )


def check_device_name(name: str) -> str:
    """Hand back ``name`` if the kernel takes it for a device (dev_valid_name in net/core/dev.c).

    A single ``%d`` in it is filled in by the kernel with the first free number.

    :raises ValueError: it is empty, longer than 15 bytes, ``.`` or ``..``, or holds a ``/``, a
        ``:``, white space or a control character.
    """
    if not name:
        raise ValueError("a device needs a name, this one is empty")
    if len(name.encode(errors="surrogateescape")) > 15:
        raise ValueError(f"a device's name has at most 15 bytes: {name[:40]!r}")
    if name in (".", ".."):
        raise ValueError(f"a device cannot be called {name!r}")
    if _HOSTILE.search(name) or not name.isprintable():
        character = next(c for c in name if _HOSTILE.match(c) or not c.isprintable())
        raise ValueError(f"a device's name cannot hold {character!r}: {name!r}")
    if "%" in name.replace("%d", "", 1):
        raise ValueError(f"a '%' in a device's name can only be one '%d': {name!r}")
    return name


def check_mac(mac: str) -> str:
    """Hand back ``mac`` if a device can have it.

    :raises ValueError: it is no MAC address, or a multicast one, or all zeros.
    """
    if not _MAC.fullmatch(mac.lower()):
        raise ValueError(f"{mac!r} is no MAC address: write it as 02:00:00:00:00:01")
    if int(mac[:2], 16) & 1:
        raise ValueError(f"{mac} is a multicast address: a device's own has an even first byte")
    if mac == "00:00:00:00:00:00":
        raise ValueError("a device's MAC address cannot be all zeros")
    return mac


def check_group(what: str, group: int | None) -> None:
    check_range(what, group, 0, 0xFFFFFFFF)
    if group is not None and marks.meaning(group):
        raise ValueError(
            f"{what} {group} is one of those by which netbpf marks devices that are not finished"
        )


def check_alias(what: str, alias: str | None) -> None:
    # IFALIASZ in include/uapi/linux/if.h, with room for a NUL.
    if alias is not None and (len(alias.encode(errors="surrogateescape")) > 255 or "\0" in alias):
        raise ValueError(f"{what} has at most 255 bytes, and no NUL among them")


def check_addresses(texts: Sequence[str]) -> list[addresses.Interface]:
    """The addresses that are written as ``texts``.

    :raises ValueError: one is none, or given twice.
    """
    parsed: list[addresses.Interface] = []
    for text in texts:
        address = addresses.parse(text)
        if address in parsed:
            raise ValueError(f"the address {address} is given twice")
        parsed.append(address)
    return parsed


def check_changeable(names: Iterable[str]) -> None:
    """Refuse settings that are fixed for good.

    :raises ValueError: one of `FIXED` is among them.
    :raises TypeError: a netkit device has no setting of this name.
    """
    for name in names:
        if name not in FIXED:
            raise TypeError(f"a netkit device has no setting {name!r}")
        raise ValueError(
            f"{FIXED[name]} cannot be changed after a device was made: "
            "delete it and make it again with other settings"
        )


def check_word(what: str, word: str | None, allowed: Any) -> None:
    words = get_args(allowed)
    if word is not None and word not in words:
        raise ValueError(f"{what} is {' or '.join(words)}, not {word!r}")


def check_range(what: str, value: int | None, low: int, high: int) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} is a number, not {value!r}")
    if not low <= value <= high:
        raise ValueError(f"{what} lies between {low} and {high}, {value} does not")
