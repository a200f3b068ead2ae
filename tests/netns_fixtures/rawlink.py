"""What the kernel tells of a device, read without netbpf and without pyroute2.

A second pair of eyes for the netlink room: rtnetlink messages taken apart by hand.
"""

from __future__ import annotations

import socket
import struct

from netbpf.netns import NetNS, entered

_RTM_GETLINK = 18
_NLMSG_ERROR = 2
_IFLA_LINKINFO = 18
_IFLA_INFO_KIND = 1
_IFLA_INFO_DATA = 2

PRIMARY, POLICY, PEER_POLICY, MODE, SCRUB, PEER_SCRUB, HEADROOM, TAILROOM, PAIRING = range(2, 11)
"""IFLA_NETKIT_… of include/uapi/linux/if_link.h."""


def attributes(data: bytes) -> dict[int, bytes]:
    """The attributes of one level, by number."""
    found = {}
    offset = 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        found[kind & 0x3FFF] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def link(ns: NetNS, ifindex: int) -> dict[int, bytes]:
    """The attributes of a device (IFLA_…), by number.

    :raises OSError: the kernel's errno.
    """
    request = struct.pack("=IHHIIBxHiII", 32, _RTM_GETLINK, 1, 1, 0, 0, 0, ifindex, 0, 0)
    with entered(ns):
        asking = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    with asking:
        asking.send(request)
        answer = asking.recv(65536)
    length, kind = struct.unpack_from("=IH", answer)
    if kind == _NLMSG_ERROR:
        raise OSError(-struct.unpack_from("=i", answer, 16)[0], "RTM_GETLINK")
    return attributes(answer[32:length])


def netkit(ns: NetNS, ifindex: int) -> dict[int, int]:
    """The netkit attributes of a device (IFLA_NETKIT_…), by number."""
    info = attributes(link(ns, ifindex)[_IFLA_LINKINFO])
    assert info[_IFLA_INFO_KIND] == b"netkit\0"
    data = attributes(info[_IFLA_INFO_DATA])
    return {kind: int.from_bytes(value, "little") for kind, value in data.items()}
