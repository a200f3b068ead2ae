"""One packet of a capture, and what becomes of packets that are no Ethernet frames."""

from __future__ import annotations

from dataclasses import dataclass

MOST = 262144
"""The longest packet that capture programs write (libpcap: MAXIMUM_SNAPLEN)."""

ETHERNET = 1

# https://www.tcpdump.org/linktypes.html: RAW, IPV4, IPV6; 12 and 14 are RAW as some systems say it.
_IP = {12: None, 14: None, 101: None, 228: b"\x08\x00", 229: b"\x86\xdd"}
LINK_TYPES = frozenset({ETHERNET, *_IP})
"""What can be read."""

_NAMES = {
    0: "BSD loopback",
    9: "PPP",
    105: "802.11",
    108: "OpenBSD loopback",
    113: "Linux cooked",
    127: "radiotap",
    276: "Linux cooked v2",
}


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet: an Ethernet frame, when it was seen, and how long it was then.

    ``number`` counts from 0, ``time`` is in nanoseconds since 1970 (0 where the capture holds
    none), ``length`` is that of the frame before the capture cut it.
    """

    number: int
    time: int
    data: bytes
    length: int

    @property
    def cut(self) -> bool:
        """Whether the capture holds less than there was (tcpdump -s, a snaplen)."""
        return len(self.data) < self.length


def link_type_name(link_type: int) -> str:
    """The name of a link type that is not read, where it is a common one."""
    name = _NAMES.get(link_type)
    return f"link type {link_type} ({name})" if name else f"link type {link_type}"


def ethernet_header(link_type: int, data: bytes) -> bytes:
    """The header that makes an Ethernet frame of a packet; empty where it is one.

    Both addresses are zero, as on a netkit device in mode l3.
    """
    if link_type == ETHERNET:
        return b""
    kind = _IP[link_type]
    if kind is None:
        kind = b"\x86\xdd" if data[:1] and data[0] >> 4 == 6 else b"\x08\x00"
    return bytes(12) + kind
