"""Whether a device has an XDP program, as rtnetlink tells it."""

from __future__ import annotations

import struct

from netbpf.netlink.attributes import number_in, unpack
from netbpf.netlink.refusals import refusals
from netbpf.netlink.rtnl import Rtnl

_RTM_GETLINK = 18
_IFINFO = struct.Struct("=BxHiII")
# include/uapi/linux/if_link.h
_IFLA_XDP = 43
_XDP_ATTACHED = 2


def attached(rtnl: Rtnl, ifindex: int) -> bool:
    """Whether an XDP program is attached to a device, in whichever mode."""
    with refusals("look up XDP programs"):
        (answer,) = rtnl.request(_RTM_GETLINK, _IFINFO.pack(0, 0, ifindex, 0, 0))
    nest = unpack(answer, _IFINFO.size).get(_IFLA_XDP, b"")
    return number_in(unpack(nest).get(_XDP_ATTACHED)) != 0
