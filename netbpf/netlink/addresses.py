"""Addresses of devices over rtnetlink."""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct

from netbpf.netlink.attributes import attribute, s32, unpack
from netbpf.netlink.refusals import refusals
from netbpf.netlink.rtnl import NLM_F_CREATE, NLM_F_EXCL, Refusal, Rtnl

RTM_NEWADDR = 20
RTM_DELADDR = 21
RTM_GETADDR = 22

Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface

_IFADDR = struct.Struct("=BBBBI")
"""struct ifaddrmsg: family, prefixlen, flags, scope, index."""
_IFA_ADDRESS, _IFA_LOCAL, _IFA_TARGET_NETNSID = 1, 2, 10


def parse(text: str) -> Interface:
    """The address and prefix length written as ``text``: ``10.0.0.1/24``, or one address alone.

    :raises ValueError: it is no address.
    """
    try:
        return ipaddress.ip_interface(text)
    except ValueError as error:
        raise ValueError(
            f"{text!r} is no address: write it as 10.0.0.1/24 or fd00::1/64"
        ) from error


def add(rtnl: Rtnl, ifindex: int, address: Interface) -> None:
    """Give a device an address.

    :raises Refusal: EEXIST: it has it already; for the caller to explain.
    """
    rtnl.request(RTM_NEWADDR, body(ifindex, address), NLM_F_CREATE | NLM_F_EXCL)


def delete(rtnl: Rtnl, ifindex: int, address: Interface) -> None:
    """Take an address from a device.

    :raises Refusal: EADDRNOTAVAIL: it does not have it; for the caller to explain.
    """
    rtnl.request(RTM_DELADDR, body(ifindex, address))


def by_device(rtnl: Rtnl, ifindex: int = 0, *, nsid: int | None = None) -> dict[int, list[str]]:
    """The addresses of all devices of the socket's namespace, or of one, by ifindex.

    :param nsid: of the namespace that has this id in the socket's, instead of that one.
    """
    wanted = _IFADDR.pack(0, 0, 0, 0, ifindex)
    if nsid is not None:
        wanted += attribute(_IFA_TARGET_NETNSID, s32(nsid))
    found: dict[int, list[str]] = {}
    with refusals("list addresses"):
        try:
            answers = rtnl.dump(RTM_GETADDR, wanted)
        except Refusal as error:
            if error.errno == errno.ENODEV:
                # The device went after it was looked up.
                return {}
            raise
    for answer in answers:
        family, length, _, _, index = _IFADDR.unpack_from(answer)
        attributes = unpack(answer, _IFADDR.size)
        # On a point-to-point device IFA_ADDRESS is the other end's.
        address = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS)
        if address and family in (socket.AF_INET, socket.AF_INET6):
            written = f"{socket.inet_ntop(family, address)}/{length}"
            found.setdefault(index, []).append(written)
    return found


def body(ifindex: int, address: Interface) -> bytes:
    """What RTM_NEWADDR and RTM_DELADDR say of an address."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    packed = address.ip.packed
    return (
        _IFADDR.pack(family, address.network.prefixlen, 0, 0, ifindex)
        + attribute(_IFA_LOCAL, packed)
        + attribute(_IFA_ADDRESS, packed)
    )
