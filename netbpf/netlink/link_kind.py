"""The netkit link kind for pyroute2, so that who uses both sees the same attributes.

netbpf packs and reads its own messages (`netbpf.netlink.attributes`); this is for code beside it,
and for tests, in which pyroute2 is the second witness of what netbpf packs.
"""

from __future__ import annotations

from typing import Any

from pyroute2.netlink import nla
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg, ifinfveth

from netbpf.netlink.attributes import u8, u16
from netbpf.netlink.netkit import KIND, NUMBERS, PEER_INFO

_WIDTHS = {u8: "uint8", u16: "uint16"}


class netkit(nla):  # type: ignore[misc]
    """IFLA_INFO_DATA of a netkit device (include/uapi/linux/if_link.h)."""

    prefix = "IFLA_"
    nla_map = (
        ("IFLA_NETKIT_UNSPEC", "none"),
        (PEER_INFO[0], "peer_info"),
        *((name, _WIDTHS.get(pack, "uint32")) for name, (_, pack) in NUMBERS.items()),
    )

    @staticmethod
    def peer_info(self: Any, *args: Any, **kwargs: Any) -> Any:
        """The class of the peer's nest: an ifinfomsg and its attributes, as for veth."""
        return ifinfveth


def register() -> None:
    """Teach pyroute2 the kind; harmless when done twice."""
    ifinfmsg.ifinfo.register_link_kind(module={KIND: netkit})
