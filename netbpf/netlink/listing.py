"""The devices of a namespace in one dump, for what looks at thousands of them.

A list of chains needs names and numbers, not `links.Link`: 1000 devices take 6 ms here, and what
`rtnl` imports would cost as much again.
"""

from __future__ import annotations

import _socket
import errno
import os
import struct

# _socket is the C half of socket, which takes 5 ms of CPU to import, for enums and selectors.

_AF_NETLINK, _SOCK_RAW, _SOCK_CLOEXEC = 16, 3, 0o2000000
_SOL_NETLINK, _NETLINK_GET_STRICT_CHK = 270, 12
_NLM_F_REQUEST, _NLM_F_DUMP, _NLM_F_DUMP_INTR = 0x1, 0x300, 0x10
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_RTM_GETLINK, _RTM_GETQDISC = 18, 38
_TRIES = 10

_HEADER = struct.Struct("=IHHII")
_INT = struct.Struct("=i")
# struct ifinfomsg, and the extended mask that leaves the counters out (RTEXT_FILTER_SKIP_STATS)
_LINKS = struct.pack("=BxHiII", 0, 0, 0, 0, 0) + struct.pack("=HHI", 8, 29, 1 << 3)
_QDISCS = struct.pack("=BxxxiIII", 0, 0, 0, 0, 0)
# From the start of a message: a device's number, flags and first attribute; a qdisc's device and
# parent.
_LINK = struct.Struct("=20xiI4xHH")
_QDISC = struct.Struct("=20xi4xI")
_IFLA_IFNAME, _IFF_UP = 3, 1
_CLSACT = 0xFFFFFFF1
NETKIT = struct.pack("=HH", 11, 1) + b"netkit\0"
"""IFLA_INFO_KIND with this value, as it stands in a message about a device."""


class Listed:
    """A device: its number, its name, whether it looks like one of netkit's, and whether it is up.

    That it looks like one of netkit's can be wrong, that it does not cannot.
    """

    __slots__ = ("ifindex", "name", "netkit", "up")

    def __init__(self, ifindex: int, name: str, netkit: bool = False, up: bool = False) -> None:
        self.ifindex = ifindex
        self.name = name
        self.netkit = netkit
        self.up = up


def devices() -> list[Listed]:
    """The devices of the namespace of the calling thread, by ifindex.

    :raises OSError: the kernel refused.
    """
    found = []
    unpack, least = _LINK.unpack_from, _LINK.size
    for datagram, at, length in _dump(_RTM_GETLINK, _LINKS):
        if length < least:
            continue
        ifindex, flags, size, number = unpack(datagram, at)
        # rtnl_fill_ifinfo in net/core/rtnetlink.c begins with the name.
        if number == _IFLA_IFNAME:
            name = datagram[at + least : at + least - 5 + size]
            netkit = datagram.find(NETKIT, at, at + length) > 0
            up = bool(flags & _IFF_UP)
            found.append(Listed(ifindex, name.decode(errors="surrogateescape"), netkit, up))
    # The kernel lists them by a hash of their numbers or by number, as the release has it.
    found.sort(key=lambda device: device.ifindex)
    return found


def with_clsact() -> set[int]:
    """The devices of the calling thread's namespace that have a clsact or ingress qdisc.

    :raises OSError: the kernel refused.
    """
    found = set()
    unpack, least = _QDISC.unpack_from, _QDISC.size
    for datagram, at, length in _dump(_RTM_GETQDISC, _QDISCS):
        if length >= least:
            ifindex, parent = unpack(datagram, at)
            if parent == _CLSACT:
                found.add(ifindex)
    return found


def _dump(kind: int, body: bytes) -> list[tuple[bytes, int, int]]:
    """The messages of a dump, each as its datagram, where it begins there, and its length.

    Asked again while the list changes underneath; after several tries the last is taken.
    """
    asking = _socket.socket(_AF_NETLINK, _SOCK_RAW | _SOCK_CLOEXEC, 0)
    try:
        asking.bind((0, 0))
        asking.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)
        for number in range(_TRIES):
            flags = _NLM_F_REQUEST | _NLM_F_DUMP
            asking.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, number, 0) + body)
            found, torn = _received(asking)
            if not torn:
                break
        return found
    finally:
        asking.close()


def _received(asking: _socket.socket) -> tuple[list[tuple[bytes, int, int]], bool]:
    """The messages up to the end of the dump, and whether the list changed meanwhile."""
    found: list[tuple[bytes, int, int]] = []
    all_flags = 0
    buffer = bytearray(1 << 16)
    unpack = _HEADER.unpack_from
    while True:
        datagram = bytes(memoryview(buffer)[: asking.recv_into(buffer)])
        at, end = 0, len(datagram)
        while at < end:
            length, kind, flags, _, _ = unpack(datagram, at)
            if length < _HEADER.size:
                raise OSError(errno.EBADMSG, "a netlink answer is cut short")
            all_flags |= flags
            if kind in (_NLMSG_DONE, _NLMSG_ERROR):
                (number,) = _INT.unpack_from(datagram, at + _HEADER.size)
                if number:
                    raise OSError(-number, os.strerror(-number))
                return found, bool(all_flags & _NLM_F_DUMP_INTR)
            found.append((datagram, at, length))
            at += (length + 3) & ~3
