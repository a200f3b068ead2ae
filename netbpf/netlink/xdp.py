"""Whether a device has an XDP program, as rtnetlink tells it."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from netbpf.netlink.attributes import number_in, unpack
from netbpf.netlink.refusals import refusals
from netbpf.netlink.rtnl import Rtnl

_RTM_GETLINK = 18
_IFINFO = struct.Struct("=BxHiII")
# include/uapi/linux/if_link.h
_IFLA_XDP = 43
_XDP_ATTACHED = 2
# IFLA_XDP_PROG_ID, where there is one; else those of the driver's, generic and hardware mode.
_PROG_IDS = (4, 5, 6, 7)


def attached(rtnl: Rtnl, ifindex: int) -> bool:
    """Whether an XDP program is attached to a device, in whichever mode."""
    return number_in(_about(rtnl, ifindex).get(_XDP_ATTACHED)) != 0


def program_ids(rtnl: Rtnl, ifindex: int) -> set[int]:
    """The ids of the XDP programs at a device, of every mode."""
    told = _about(rtnl, ifindex)
    return {number for each in _PROG_IDS if (number := number_in(told.get(each)))}


def _about(rtnl: Rtnl, ifindex: int) -> Mapping[int, bytes]:
    with refusals("look up XDP programs"):
        (answer,) = rtnl.request(_RTM_GETLINK, _IFINFO.pack(0, 0, ifindex, 0, 0))
    return unpack(unpack(answer, _IFINFO.size).get(_IFLA_XDP, b""))
