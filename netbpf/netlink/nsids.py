"""Namespace ids over rtnetlink: the numbers by which one namespace calls another."""

from __future__ import annotations

import errno
import struct

from netbpf.errors import NetlinkError
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
_MEANINGS = {errno.EEXIST: Meaning("it has an id already, or the id is another's")}


def get(rtnl: Rtnl, ns: NetNS) -> int | None:
    """The id that the socket's namespace has for ``ns``, if it has one."""
    with refusals(f"look up the id of namespace {ns}"):
        answers = rtnl.request(RTM_GETNSID, _RTGEN + attribute(_NETNSA_FD, u32(ns.fileno())))
    number = _s32_in(unpack(answers[0], len(_RTGEN))[_NETNSA_NSID])
    return None if number == _NOT_ASSIGNED else number


def assign(rtnl: Rtnl, ns: NetNS, nsid: int | None = None) -> int:
    """Give ``ns`` an id in the socket's namespace, the next free one unless named, and return it.

    An id stays until either namespace ends; the kernel neither changes nor takes it.

    :raises NetlinkError: EEXIST: it has one already, or the number is another's.
    """
    number = _NOT_ASSIGNED if nsid is None else nsid
    body = _RTGEN + attribute(_NETNSA_NSID, s32(number)) + attribute(_NETNSA_FD, u32(ns.fileno()))
    try:
        with refusals(_operation(ns), _MEANINGS):
            rtnl.request(RTM_NEWNSID, body)
    except NetlinkError as error:
        if error.errno == errno.EEXIST:
            # Found out afterwards: which of the two conditions of rtnl_net_newid it was.
            error.hint = _hint(get(rtnl, ns), nsid)
        raise
    given = get(rtnl, ns)
    if given is None:
        raise RuntimeError(f"namespace {ns} has no id after it was given one")
    return given


def check_assignable(rtnl: Rtnl, ns: NetNS, nsid: int | None = None) -> None:
    """What `assign` would refuse, as far as it can be told before.

    :raises NetlinkError: EEXIST: it has one already, or the number is another's.
    """
    own = get(rtnl, ns)
    if own is not None or (nsid is not None and nsid in _taken(rtnl)):
        reason = _MEANINGS[errno.EEXIST].reason
        raise NetlinkError(_operation(ns), errno.EEXIST, reason, hint=_hint(own, nsid))


def _taken(rtnl: Rtnl) -> set[int]:
    with refusals("list the ids of namespaces"):
        answers = rtnl.dump(RTM_GETNSID, _RTGEN)
    return {_s32_in(unpack(answer, len(_RTGEN))[_NETNSA_NSID]) for answer in answers}


def _s32_in(payload: bytes) -> int:
    number: int = struct.unpack("=i", payload)[0]
    return number


def _operation(ns: NetNS) -> str:
    return f"assign an id to namespace {ns}"


def _hint(own: int | None, wanted: int | None) -> str:
    if own is not None:
        return f"its id here is {own}, and stays so until it ends"
    return f"another namespace has id {wanted}: choose another, or `auto`"


def ensure(rtnl: Rtnl, ns: NetNS) -> int:
    """The id that the socket's namespace has for ``ns``, assigned now if there was none."""
    known = get(rtnl, ns)
    return assign(rtnl, ns) if known is None else known
