"""Namespace ids over rtnetlink: the numbers by which one namespace calls another."""

from __future__ import annotations

import struct

from netbpf.netlink.attributes import attribute, s32, u32, unpack
from netbpf.netlink.refusals import Meaning, refusals
from netbpf.netlink.rtnl import Rtnl
from netbpf.netns import NetNS

RTM_NEWNSID = 88
RTM_GETNSID = 90

_NOT_ASSIGNED = -1
_NETNSA_NSID, _NETNSA_FD = 1, 3
_RTGEN = bytes(4)
"""struct rtgenmsg: a family, and padding."""


def get(rtnl: Rtnl, ns: NetNS) -> int | None:
    """The id that the socket's namespace has for ``ns``, if it has one."""
    with refusals(f"look up the id of namespace {ns}"):
        answers = rtnl.request(RTM_GETNSID, _RTGEN + attribute(_NETNSA_FD, u32(ns.fileno())))
    number: int = struct.unpack("=i", unpack(answers[0], len(_RTGEN))[_NETNSA_NSID])[0]
    return None if number == _NOT_ASSIGNED else number


def assign(rtnl: Rtnl, ns: NetNS, nsid: int | None = None) -> int:
    """Give ``ns`` an id in the socket's namespace, the next free one unless named, and return it.

    :raises NetlinkError: EEXIST: it has one already, or the number is another's.
    """
    number = _NOT_ASSIGNED if nsid is None else nsid
    body = _RTGEN + attribute(_NETNSA_NSID, s32(number)) + attribute(_NETNSA_FD, u32(ns.fileno()))
    meanings = {17: Meaning("it has an id already, or the id is another's")}
    with refusals(f"assign an id to namespace {ns}", meanings):
        rtnl.request(RTM_NEWNSID, body)
    given = get(rtnl, ns)
    if given is None:
        raise RuntimeError(f"namespace {ns} has no id after it was given one")
    return given


def ensure(rtnl: Rtnl, ns: NetNS) -> int:
    """The id that the socket's namespace has for ``ns``, assigned now if there was none."""
    known = get(rtnl, ns)
    return assign(rtnl, ns) if known is None else known
