"""The netkit link kind, as pyroute2 encodes and decodes it.

include/uapi/linux/if_link.h of Linux 7.2 and drivers/net/netkit.c.
"""

from __future__ import annotations

from typing import Any

from pyroute2.netlink import nla
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg, ifinfveth

KIND = "netkit"

L2, L3 = 0, 1
PASS, DROP = 0, 2
SCRUB_NONE, SCRUB_DEFAULT = 0, 1
PAIR, SINGLE = 0, 1


class netkit(nla):  # type: ignore[misc]
    """IFLA_INFO_DATA of a netkit device."""

    prefix = "IFLA_"
    nla_map = (
        ("IFLA_NETKIT_UNSPEC", "none"),
        ("IFLA_NETKIT_PEER_INFO", "peer_info"),
        ("IFLA_NETKIT_PRIMARY", "uint8"),
        ("IFLA_NETKIT_POLICY", "uint32"),
        ("IFLA_NETKIT_PEER_POLICY", "uint32"),
        ("IFLA_NETKIT_MODE", "uint32"),
        ("IFLA_NETKIT_SCRUB", "uint32"),
        ("IFLA_NETKIT_PEER_SCRUB", "uint32"),
        ("IFLA_NETKIT_HEADROOM", "uint16"),
        ("IFLA_NETKIT_TAILROOM", "uint16"),
        ("IFLA_NETKIT_PAIRING", "uint32"),
    )

    @staticmethod
    def peer_info(self: Any, *args: Any, **kwargs: Any) -> Any:
        """The class of the peer's nest: an ifinfomsg and its attributes, as for veth."""
        return ifinfveth


def register() -> None:
    """Teach pyroute2 the kind; harmless when done twice."""
    ifinfmsg.ifinfo.register_link_kind(module={KIND: netkit})
