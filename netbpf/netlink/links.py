"""Devices over rtnetlink: list, look up, make, change, delete; of any kind."""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from netbpf.errors import NotFoundError
from netbpf.netlink import netkit
from netbpf.netlink.attributes import (
    Attributes,
    Table,
    attribute,
    find,
    mac,
    number_in,
    pack,
    s32,
    text,
    text_in,
    u32,
    unpack,
)
from netbpf.netlink.refusals import refusals
from netbpf.netlink.rtnl import NLM_F_CREATE, NLM_F_ECHO, NLM_F_EXCL, Refusal, Rtnl

RTM_NEWLINK = 16
RTM_DELLINK = 17
RTM_GETLINK = 18

IFF_UP = 0x1
CREATE = NLM_F_CREATE | NLM_F_EXCL | NLM_F_ECHO
_RTEXT_FILTER_SKIP_STATS = 1 << 3

_IFINFO = struct.Struct("=BxHiII")
"""struct ifinfomsg: family, type, index, flags, change."""
_NO_DEVICE = bytes(_IFINFO.size)

# include/uapi/linux/if_link.h
_LINK, _MTU, _ADDRESS, _IFNAME, _OPERSTATE, _LINKINFO, _IFALIAS, _GROUP = 5, 4, 1, 3, 16, 18, 20, 27
_NUM_TX_QUEUES, _NUM_RX_QUEUES, _LINK_NETNSID = 31, 32, 37
_INFO_KIND, _INFO_DATA = 1, 2

OPERSTATES = ("unknown", "notpresent", "down", "lowerlayerdown", "testing", "dormant", "up")
"""IF_OPER_… of include/uapi/linux/if.h, by number."""


def _alias(value: str) -> bytes:
    # Without a NUL: the kernel counts it in, and an empty one takes the alias away.
    return value.encode(errors="surrogateescape")


_TABLE: Table = {
    "IFLA_ADDRESS": (_ADDRESS, mac),
    "IFLA_IFNAME": (_IFNAME, text),
    "IFLA_MTU": (_MTU, u32),
    "IFLA_IFALIAS": (_IFALIAS, _alias),
    "IFLA_GROUP": (_GROUP, u32),
    "IFLA_NET_NS_FD": (28, u32),
    "IFLA_EXT_MASK": (29, u32),
    "IFLA_NUM_TX_QUEUES": (_NUM_TX_QUEUES, u32),
    "IFLA_NUM_RX_QUEUES": (_NUM_RX_QUEUES, u32),
    "IFLA_IF_NETNSID": (46, s32),
}


def _peer(nest: Mapping[str, Attributes]) -> bytes:
    return _NO_DEVICE + pack(_TABLE, nest["attrs"])


_DATA_TABLE: Table = {
    **netkit.NUMBERS,
    netkit.PEER_INFO[0]: (netkit.PEER_INFO[1], _peer),
    "VETH_INFO_PEER": (1, _peer),
}


@dataclass(frozen=True)
class Link:
    """A device as the kernel lists it."""

    ifindex: int
    name: str
    kind: str | None
    """The rtnl link kind (``netkit``, ``veth`` …); None for a device of a driver without one."""
    up: bool
    mtu: int
    mac: str | None
    rx_queues: int
    tx_queues: int
    group: int
    peer_ifindex: int | None
    """IFLA_LINK: the other end of a pair, or the device below."""
    peer_nsid: int | None
    """IFLA_LINK_NETNSID: the id, in this namespace, of the one the other end is in, if another."""
    state: str = "unknown"
    """One of `OPERSTATES`."""
    alias: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    """A netkit device's own attributes, by their UAPI names; empty for other kinds."""


@dataclass(frozen=True)
class Template:
    """The RTM_NEWLINK of devices that differ by name: all else in it is packed once."""

    head: bytes
    general: bytes
    kind: bytes
    data: bytes
    peer: bytes | None
    """The attributes of the other end; None: nothing is said of one."""

    def body(self, name: str, peer: str | None) -> bytes:
        """The message for these names; without one for the peer, the kernel finds one."""
        data = self.data
        if self.peer is not None:
            named = b"" if peer is None else attribute(_IFNAME, text(peer))
            data += attribute(netkit.PEER_INFO[1], _NO_DEVICE + named + self.peer)
        info = attribute(_LINKINFO, self.kind + attribute(_INFO_DATA, data))
        return self.head + attribute(_IFNAME, text(name)) + self.general + info


class Made(NamedTuple):
    """A new device, as the kernel's answer to the message that made it tells."""

    name: str
    ifindex: int
    peer_ifindex: int | None
    """The other end of a pair; None: there is none, or it went already."""


def dump(rtnl: Rtnl, *, kind: str | None = None, nsid: int | None = None) -> list[Link]:
    """All devices of the socket's namespace, or those of one ``kind``, by ifindex.

    :param nsid: of the namespace that has this id in the socket's, instead of that one.
    """
    wanted: list[tuple[str, Any]] = [("IFLA_EXT_MASK", _RTEXT_FILTER_SKIP_STATS)]
    if nsid is not None:
        wanted.append(("IFLA_IF_NETNSID", nsid))
    body = _body(0, wanted)
    if kind is not None:
        body += _link_info(kind, ())
    with refusals("list devices"):
        found = [_link(answer) for answer in rtnl.dump(RTM_GETLINK, body)]
    # The kernel passes over a filter for a kind whose module is not loaded.
    return sorted(
        (link for link in found if kind is None or link.kind == kind), key=lambda link: link.ifindex
    )


def get(rtnl: Rtnl, device: int | str, *, nsid: int | None = None) -> Link:
    """One device, by ifindex or name.

    :param nsid: look in the namespace that has this id in the socket's, instead of in that one.
    :raises NotFoundError: there is none.
    """
    wanted: list[tuple[str, Any]] = [("IFLA_EXT_MASK", _RTEXT_FILTER_SKIP_STATS)]
    if isinstance(device, str):
        wanted.append(("IFLA_IFNAME", device))
    if nsid is not None:
        wanted.append(("IFLA_IF_NETNSID", nsid))
    label = f"with ifindex {device}" if isinstance(device, int) else device
    with refusals(f"look up device {label}"):
        try:
            answers = rtnl.request(
                RTM_GETLINK, _body(device if isinstance(device, int) else 0, wanted)
            )
        except Refusal as error:
            if error.errno == errno.ENODEV:
                raise NotFoundError("device", label) from error
            raise
    return _link(answers[0])


def add(
    rtnl: Rtnl, name: str | None, kind: str, *, data: Attributes = (), attributes: Attributes = ()
) -> int:
    """Make a device and return its ifindex.

    :param data: the kind's own attributes (IFLA_INFO_DATA).
    :param attributes: the general ones (IFLA_MTU …).
    :raises Refusal: the kernel refused; for the caller to explain.
    """
    body = new_body(name, kind, data=data, attributes=attributes)
    for answer in rtnl.request(RTM_NEWLINK, body, CREATE):
        return made_in(answer).ifindex
    # Before Linux 6.2 rtnetlink does not echo.
    if name is None:
        raise OSError(errno.EOPNOTSUPP, "this kernel does not tell what it called the new device")
    return get(rtnl, name).ifindex


def new_body(
    name: str | None, kind: str, *, data: Attributes = (), attributes: Attributes = ()
) -> bytes:
    """The RTM_NEWLINK that makes a device; for many that differ by name there is `Template`."""
    named = [] if name is None else [("IFLA_IFNAME", name)]
    return _NO_DEVICE + pack(_TABLE, [*named, *attributes]) + _link_info(kind, data)


def netkit_template(
    data: Attributes, peer: Attributes | None, attributes: Attributes, *, up: bool
) -> Template:
    """The template of netkit devices.

    :param data: the kind's own attributes (IFLA_INFO_DATA).
    :param peer: the general ones of the other end, but its name; None: of none.
    :param attributes: the general ones (IFLA_MTU …), but the name.
    """
    flags = IFF_UP if up else 0
    return Template(
        head=_IFINFO.pack(0, 0, 0, flags, flags),
        general=pack(_TABLE, attributes),
        kind=attribute(_INFO_KIND, text(netkit.KIND)),
        data=pack(_DATA_TABLE, data),
        peer=None if peer is None else pack(_TABLE, peer),
    )


def create(rtnl: Rtnl, body: bytes) -> Made:
    """Make a device as ``body`` (`new_body`) says.

    :raises Refusal: the kernel refused; for the caller to explain.

    Since Linux 6.2, which tells what it made.
    """
    return made_in(rtnl.request(RTM_NEWLINK, body, CREATE)[0])


def create_many(rtnl: Rtnl, bodies: Sequence[bytes]) -> list[Made | Refusal]:
    """Make devices, at most a dozen at once; what each became, or why it was refused.

    Since Linux 6.2, as `create`.
    """
    return [
        outcome if isinstance(outcome, Refusal) else made_in(outcome[0])
        for outcome in rtnl.batch(RTM_NEWLINK, bodies, CREATE)
    ]


def made_in(answer: bytes) -> Made:
    """The new device that an RTM_NEWLINK of the kernel is about."""
    found = find(answer, _IFINFO.size, _IFNAME, _LINK)
    return Made(
        name=text_in(found[_IFNAME]),
        ifindex=_IFINFO.unpack_from(answer)[2],
        peer_ifindex=number_in(found.get(_LINK)) or None,
    )


def change(
    rtnl: Rtnl,
    ifindex: int,
    *,
    up: bool | None = None,
    attributes: Attributes = (),
    kind: str | None = None,
    data: Attributes = (),
) -> None:
    """Change a device; what is not named stays.

    :raises Refusal: the kernel refused; for the caller to explain.
    """
    rtnl.request(RTM_NEWLINK, change_body(ifindex, up, attributes, kind, data))


def change_body(
    ifindex: int,
    up: bool | None = None,
    attributes: Attributes = (),
    kind: str | None = None,
    data: Attributes = (),
) -> bytes:
    """The RTM_NEWLINK that changes a device; see `change`."""
    body = _body(ifinfo_index(ifindex), attributes, up=up)
    return body if kind is None else body + _link_info(kind, data)


def delete(rtnl: Rtnl, ifindex: int) -> None:
    """Delete a device.

    :raises Refusal: the kernel refused; ENODEV: it is gone already.
    """
    rtnl.request(RTM_DELLINK, _body(ifinfo_index(ifindex), ()))


def delete_group(rtnl: Rtnl, group: int) -> None:
    """Delete all devices of a group, with one wait for the grace period that each costs alone.

    All or nothing: one that cannot be deleted keeps all (rtnl_group_dellink in
    net/core/rtnetlink.c).

    :raises Refusal: the kernel refused; ENODEV: the group is empty.
    """
    if group <= 0:
        raise ValueError(f"{group} is no group to delete: 0 is that of all other devices")
    rtnl.request(RTM_DELLINK, _body(0, [("IFLA_GROUP", group)]))


def ifinfo_index(ifindex: int) -> int:
    """``ifindex`` if it can name a device: 0 would mean "by name" to the kernel."""
    if ifindex <= 0:
        raise ValueError(f"{ifindex} is no ifindex")
    return ifindex


def _body(ifindex: int, attributes: Attributes, *, up: bool | None = None) -> bytes:
    flags, changed = (IFF_UP if up else 0), (0 if up is None else IFF_UP)
    return _IFINFO.pack(0, 0, ifindex, flags, changed) + pack(_TABLE, attributes)


def _link_info(kind: str, data: Attributes) -> bytes:
    packed = pack(_DATA_TABLE, data)
    info = attribute(_INFO_KIND, text(kind))
    return attribute(_LINKINFO, info + attribute(_INFO_DATA, packed) if packed else info)


def _link(answer: bytes) -> Link:
    _, _, ifindex, flags, _ = _IFINFO.unpack_from(answer)
    found = unpack(answer, _IFINFO.size)
    info = unpack(found[_LINKINFO]) if _LINKINFO in found else {}
    kind = text_in(info[_INFO_KIND]) if _INFO_KIND in info else None
    state = number_in(found.get(_OPERSTATE))
    return Link(
        ifindex=ifindex,
        name=text_in(found[_IFNAME]),
        kind=kind,
        up=bool(flags & IFF_UP),
        mtu=number_in(found.get(_MTU)),
        mac=found[_ADDRESS].hex(":") if _ADDRESS in found else None,
        rx_queues=number_in(found.get(_NUM_RX_QUEUES)),
        tx_queues=number_in(found.get(_NUM_TX_QUEUES)),
        group=number_in(found.get(_GROUP)),
        peer_ifindex=number_in(found.get(_LINK)) or None,
        peer_nsid=number_in(found[_LINK_NETNSID]) if _LINK_NETNSID in found else None,
        state=OPERSTATES[state] if state < len(OPERSTATES) else "unknown",
        alias=text_in(found[_IFALIAS]) if _IFALIAS in found else None,
        data=netkit.data_in(info[_INFO_DATA]) if kind == netkit.KIND and _INFO_DATA in info else {},
    )
