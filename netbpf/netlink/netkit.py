"""The attributes of the netkit link kind.

include/uapi/linux/if_link.h of Linux 7.2 and drivers/net/netkit.c.
"""

from __future__ import annotations

from netbpf.netlink.attributes import number_in, u8, u16, u32, unpack

KIND = "netkit"

L2, L3 = 0, 1
PASS, DROP = 0, 2
SCRUB_NONE, SCRUB_DEFAULT = 0, 1
PAIR, SINGLE = 0, 1

PEER_INFO = ("IFLA_NETKIT_PEER_INFO", 1)
"""Holds an ifinfomsg and the peer's own link attributes."""

NUMBERS = {
    "IFLA_NETKIT_PRIMARY": (2, u8),
    "IFLA_NETKIT_POLICY": (3, u32),
    "IFLA_NETKIT_PEER_POLICY": (4, u32),
    "IFLA_NETKIT_MODE": (5, u32),
    "IFLA_NETKIT_SCRUB": (6, u32),
    "IFLA_NETKIT_PEER_SCRUB": (7, u32),
    "IFLA_NETKIT_HEADROOM": (8, u16),
    "IFLA_NETKIT_TAILROOM": (9, u16),
    "IFLA_NETKIT_PAIRING": (10, u32),
}

_NAMES = {number: name for name, (number, _) in NUMBERS.items()}


def data_in(payload: bytes) -> dict[str, int]:
    """What IFLA_INFO_DATA of a netkit device says, by name; what is newer than this is left out."""
    return {
        _NAMES[number]: number_in(value)
        for number, value in unpack(payload).items()
        if number in _NAMES
    }
