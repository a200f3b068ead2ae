"""Devices over rtnetlink: list, look up, make, change, delete; of any kind."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from netbpf.errors import NotFoundError
from netbpf.netlink import netkit
from netbpf.netlink.refusals import refusals
from netbpf.netlink.rtnl import NLM_F_CREATE, NLM_F_ECHO, NLM_F_EXCL, Refusal, Rtnl

RTM_NEWLINK = 16
RTM_DELLINK = 17
RTM_GETLINK = 18

IFF_UP = 0x1
_RTEXT_FILTER_SKIP_STATS = 1 << 3

Attributes = Iterable[tuple[str, Any]]

netkit.register()


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
    data: Mapping[str, Any] = field(default_factory=dict)
    """The kind's own attributes, by their UAPI names."""


def dump(rtnl: Rtnl, *, kind: str | None = None) -> list[Link]:
    """All devices of the socket's namespace, or those of one ``kind``, by ifindex."""
    message = ifinfmsg()
    message["attrs"] = [("IFLA_EXT_MASK", _RTEXT_FILTER_SKIP_STATS)]
    if kind is not None:
        message["attrs"].append(("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", kind)]}))
    with refusals("list devices"):
        found = [_link(answer) for answer in rtnl.dump(RTM_GETLINK, message)]
    # The kernel passes over a filter for a kind whose module is not loaded.
    return sorted(
        (link for link in found if kind is None or link.kind == kind), key=lambda link: link.ifindex
    )


def get(rtnl: Rtnl, device: int | str, *, nsid: int | None = None) -> Link:
    """One device, by ifindex or name.

    :param nsid: look in the namespace that has this id in the socket's, instead of in that one.
    :raises NotFoundError: there is none.
    """
    message = ifinfmsg()
    message["attrs"] = [("IFLA_EXT_MASK", _RTEXT_FILTER_SKIP_STATS)]
    if isinstance(device, int):
        message["index"] = device
    else:
        message["attrs"].append(("IFLA_IFNAME", device))
    if nsid is not None:
        message["attrs"].append(("IFLA_IF_NETNSID", nsid))
    label = f"with ifindex {device}" if isinstance(device, int) else device
    with refusals(f"look up device {label}"):
        try:
            answers = rtnl.request(RTM_GETLINK, message)
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
    message = ifinfmsg()
    message["attrs"] = [] if name is None else [("IFLA_IFNAME", name)]
    message["attrs"] += list(attributes)
    message["attrs"].append(_link_info(kind, data))
    answers = rtnl.request(RTM_NEWLINK, message, NLM_F_CREATE | NLM_F_EXCL | NLM_F_ECHO)
    for answer in answers:
        return int(answer["index"])
    # Before Linux 6.2 rtnetlink does not echo.
    if name is None:
        raise OSError(errno.EOPNOTSUPP, "this kernel does not tell what it called the new device")
    return get(rtnl, name).ifindex


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
    message = ifinfmsg()
    message["index"] = ifinfo_index(ifindex)
    if up is not None:
        message["flags"] = IFF_UP if up else 0
        message["change"] = IFF_UP
    message["attrs"] = list(attributes)
    if kind is not None:
        message["attrs"].append(_link_info(kind, data))
    rtnl.request(RTM_NEWLINK, message)


def delete(rtnl: Rtnl, ifindex: int) -> None:
    """Delete a device.

    :raises Refusal: the kernel refused; ENODEV: it is gone already.
    """
    message = ifinfmsg()
    message["index"] = ifinfo_index(ifindex)
    rtnl.request(RTM_DELLINK, message)


def ifinfo_index(ifindex: int) -> int:
    """``ifindex`` if it can name a device: 0 would mean "by name" to the kernel."""
    if ifindex <= 0:
        raise ValueError(f"{ifindex} is no ifindex")
    return ifindex


def _link_info(kind: str, data: Attributes) -> tuple[str, Any]:
    info: list[tuple[str, Any]] = [("IFLA_INFO_KIND", kind)]
    listed = list(data)
    if listed:
        info.append(("IFLA_INFO_DATA", {"attrs": listed}))
    return ("IFLA_LINKINFO", {"attrs": info})


def _link(message: Any) -> Link:
    attributes = _by_name(message)
    info = _by_name(attributes.get("IFLA_LINKINFO", ("", {}))[1])

    def value(name: str) -> Any:
        found = attributes.get(name)
        return None if found is None else found[1]

    data = info["IFLA_INFO_DATA"][1] if "IFLA_INFO_DATA" in info else None
    return Link(
        ifindex=message["index"],
        name=value("IFLA_IFNAME"),
        kind=info["IFLA_INFO_KIND"][1] if "IFLA_INFO_KIND" in info else None,
        up=bool(message["flags"] & IFF_UP),
        mtu=value("IFLA_MTU") or 0,
        mac=value("IFLA_ADDRESS"),
        rx_queues=value("IFLA_NUM_RX_QUEUES") or 0,
        tx_queues=value("IFLA_NUM_TX_QUEUES") or 0,
        group=value("IFLA_GROUP") or 0,
        peer_ifindex=value("IFLA_LINK") or None,
        peer_nsid=value("IFLA_LINK_NETNSID"),
        # A kind that pyroute2 does not know comes as text, not as attributes.
        data={}
        if isinstance(data, str)
        else {name: slot[1] for name, slot in _by_name(data).items()},
    )


def _by_name(message: Any) -> dict[str, Any]:
    """The attributes of a message by name, still undecoded: ``[1]`` of each decodes its value.

    pyroute2's ``get_attr`` walks the whole list for every name.
    """
    return {slot[0]: slot for slot in (message or {}).get("attrs", ())}
