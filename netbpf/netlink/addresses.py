"""Addresses of devices over rtnetlink."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg

from netbpf.netlink.refusals import refusals
from netbpf.netlink.rtnl import NLM_F_CREATE, NLM_F_EXCL, Rtnl

RTM_NEWADDR = 20
RTM_DELADDR = 21
RTM_GETADDR = 22

Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface


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
    rtnl.request(RTM_NEWADDR, _message(ifindex, address), NLM_F_CREATE | NLM_F_EXCL)


def delete(rtnl: Rtnl, ifindex: int, address: Interface) -> None:
    """Take an address from a device.

    :raises Refusal: EADDRNOTAVAIL: it does not have it; for the caller to explain.
    """
    rtnl.request(RTM_DELADDR, _message(ifindex, address))


def by_device(rtnl: Rtnl, ifindex: int = 0) -> dict[int, list[str]]:
    """The addresses of all devices of the socket's namespace, or of one, by ifindex."""
    message = ifaddrmsg()
    message["index"] = ifindex
    found: dict[int, list[str]] = {}
    with refusals("list addresses"):
        answers = rtnl.dump(RTM_GETADDR, message)
    for answer in answers:
        # On a point-to-point device IFA_ADDRESS is the other end's.
        address = answer.get_attr("IFA_LOCAL") or answer.get_attr("IFA_ADDRESS")
        found.setdefault(answer["index"], []).append(f"{address}/{answer['prefixlen']}")
    return found


def _message(ifindex: int, address: Interface) -> Any:
    message = ifaddrmsg()
    message["family"] = socket.AF_INET if address.version == 4 else socket.AF_INET6
    message["prefixlen"] = address.network.prefixlen
    message["index"] = ifindex
    message["attrs"] = [("IFA_LOCAL", str(address.ip)), ("IFA_ADDRESS", str(address.ip))]
    return message
