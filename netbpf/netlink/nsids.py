"""Namespace ids over rtnetlink: the numbers by which one namespace calls another."""

from __future__ import annotations

from pyroute2.netlink.rtnl.nsidmsg import nsidmsg

from netbpf.netlink.refusals import Meaning, refusals
from netbpf.netlink.rtnl import Rtnl
from netbpf.netns import NetNS

RTM_NEWNSID = 88
RTM_GETNSID = 90

_NOT_ASSIGNED = -1


def get(rtnl: Rtnl, ns: NetNS) -> int | None:
    """The id that the socket's namespace has for ``ns``, if it has one."""
    message = nsidmsg()
    message["attrs"] = [("NETNSA_FD", ns.fileno())]
    with refusals(f"look up the id of namespace {ns}"):
        answers = rtnl.request(RTM_GETNSID, message)
    # The kernel's number is signed, pyroute2 decodes it unsigned.
    number = int(answers[0].get_attr("NETNSA_NSID")) & 0xFFFFFFFF
    return None if number == _NOT_ASSIGNED & 0xFFFFFFFF else number


def assign(rtnl: Rtnl, ns: NetNS, nsid: int | None = None) -> int:
    """Give ``ns`` an id in the socket's namespace, the next free one unless named, and return it.

    :raises NetlinkError: EEXIST: it has one already, or the number is another's.
    """
    message = nsidmsg()
    number = (_NOT_ASSIGNED if nsid is None else nsid) & 0xFFFFFFFF
    message["attrs"] = [("NETNSA_NSID", number), ("NETNSA_FD", ns.fileno())]
    meanings = {17: Meaning("it has an id already, or the id is another's")}
    with refusals(f"assign an id to namespace {ns}", meanings):
        rtnl.request(RTM_NEWNSID, message)
    given = get(rtnl, ns)
    if given is None:
        raise RuntimeError(f"namespace {ns} has no id after it was given one")
    return given


def ensure(rtnl: Rtnl, ns: NetNS) -> int:
    """The id that the socket's namespace has for ``ns``, assigned now if there was none."""
    known = get(rtnl, ns)
    return assign(rtnl, ns) if known is None else known
