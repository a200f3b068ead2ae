"""Routes through a device, over rtnetlink."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator

from netbpf.netlink.attributes import attribute, number_in, u32, unpack
from netbpf.netlink.refusals import refusals
from netbpf.netlink.rtnl import Refusal, Rtnl

RTM_GETROUTE = 26

_RTMSG = struct.Struct("=BBBBBBBBI")
"""struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags."""
_RTNEXTHOP = struct.Struct("=HBBI")
"""struct rtnexthop: len, flags, hops, ifindex."""

# include/uapi/linux/rtnetlink.h: RTA_…, RTPROT_KERNEL, RT_TABLE_MAIN, RTN_…
_DST, _OIF, _GATEWAY, _PRIORITY, _MULTIPATH, _TABLE, _VIA = 1, 4, 5, 6, 9, 15, 18
_OF_THE_KERNEL = 2
_MAIN = 254
_KINDS = {1: "", 2: "local ", 3: "broadcast ", 4: "anycast ", 5: "multicast "}
_METRICS = {socket.AF_INET: 0, socket.AF_INET6: 1024}
"""What a route has when nobody says it: include/net/ip6_route.h: IP6_RT_PRIO_USER."""


def through(rtnl: Rtnl, ifindex: int) -> list[str]:
    """The routes through a device that somebody made, as ``ip route`` has them without ``dev``.

    Those that the kernel makes of an address by itself are left out.

    :raises NetlinkError: not listed.
    """
    found: list[str] = []
    for family in (socket.AF_INET, socket.AF_INET6):
        wanted = _RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0) + attribute(_OIF, u32(ifindex))
        with refusals("list routes"):
            try:
                answers = rtnl.dump(RTM_GETROUTE, wanted)
            except Refusal as error:
                if error.errno == errno.ENODEV:
                    # The device went after it was looked up.
                    return []
                raise
        for answer in answers:
            # Without IPv6 the kernel answers with what it has.
            if answer[0] == family:
                found += _written(answer, ifindex)
    return found


def _written(answer: bytes, ifindex: int) -> Iterator[str]:
    family, length, _, _, table, protocol, _, kind, _ = _RTMSG.unpack_from(answer)
    if protocol == _OF_THE_KERNEL:
        return
    attributes = unpack(answer, _RTMSG.size)
    to = "default"
    if length:
        to = f"{socket.inet_ntop(family, attributes[_DST])}/{length}"
    metric = number_in(attributes.get(_PRIORITY))
    table = number_in(attributes.get(_TABLE), table)
    rest = f" metric {metric}" if metric != _METRICS[family] else ""
    rest += f" table {table}" if table != _MAIN else ""
    for index, way in _ways(attributes):
        if index == ifindex:
            yield f"{_KINDS.get(kind, '')}{to}{_gateway(family, way)}{rest}"


def _ways(attributes: dict[int, bytes]) -> Iterator[tuple[int, dict[int, bytes]]]:
    """The device of each way that a route may take, with what is said of that way."""
    if _OIF in attributes:
        yield number_in(attributes[_OIF]), attributes
    ways = attributes.get(_MULTIPATH, b"")
    while len(ways) >= _RTNEXTHOP.size:
        length, _, _, index = _RTNEXTHOP.unpack_from(ways)
        yield index, unpack(ways[:length], _RTNEXTHOP.size)
        ways = ways[max((length + 3) & ~3, _RTNEXTHOP.size) :]


def _gateway(family: int, way: dict[int, bytes]) -> str:
    if gateway := way.get(_GATEWAY):
        return f" via {socket.inet_ntop(family, gateway)}"
    if other := way.get(_VIA):
        # struct rtvia: the gateway of an IPv4 route may have an IPv6 address.
        return f" via inet6 {socket.inet_ntop(socket.AF_INET6, other[2:])}"
    return ""
