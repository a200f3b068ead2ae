"""The rules by which a NIC sends flows to queues, as ``ethtool -N`` makes them.

There is no netlink for them: they are read and changed by ioctl(SIOCETHTOOL). struct ethtool_rxnfc
in include/uapi/linux/ethtool.h, net/ethtool/ioctl.c.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import ipaddress
import socket
import struct
from dataclasses import dataclass

from netbpf.closing import Closing

_SIOCETHTOOL = 0x8946
_COUNT, _RULE, _ALL, _DELETE, _INSERT = 0x2E, 0x2F, 0x30, 0x31, 0x32
"""ETHTOOL_GRXCLSRLCNT, GRXCLSRULE, GRXCLSRLALL, SRXCLSRLDEL, SRXCLSRLINS."""

_LOCATION_SPECIAL = 0x80000000
_LOCATION_ANY = 0xFFFFFFFF

_RXNFC = struct.Struct("=IIQI52s20s52s20s4xQI4xI4x")
"""Command, flow type, data; the rule: flow type, values and masks (each with an extension that has
VLAN and MAC), ring cookie, location; how many rules."""
_IFREQ = struct.Struct("=16sQ16x")

TCP4, UDP4, TCP6, UDP6 = 0x01, 0x02, 0x05, 0x06
"""TCP_V4_FLOW and its kin."""

_V4 = struct.Struct("=4s4s2s2sB")
_V6 = struct.Struct("=16s16s2s2sB")
_NO_EXTENSION = bytes(20)

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class Rule:
    """What arrives at ``port``, and at ``address`` if there is one, goes to ``queue``."""

    kind: int
    """TCP4 or one of its kin."""
    address: IPAddress | None
    port: int
    queue: int

    def packed(self, command: int, location: int) -> bytes:
        """The rule as struct ethtool_rxnfc."""
        layout = _V4 if self.kind in (TCP4, UDP4) else _V6
        size = 4 if layout is _V4 else 16
        address = self.address.packed if self.address else bytes(size)
        asked = b"\xff" * size if self.address else bytes(size)
        values = layout.pack(bytes(size), address, b"\0\0", self.port.to_bytes(2, "big"), 0)
        masks = layout.pack(bytes(size), asked, b"\0\0", b"\xff\xff", 0)
        rule = (values, _NO_EXTENSION, masks, _NO_EXTENSION, self.queue, location)
        return _RXNFC.pack(command, 0, 0, self.kind, *rule, 0)


@dataclass(frozen=True)
class Found:
    """A rule that a NIC has: where, and what it says, compared as bytes."""

    location: int
    kind: int
    values: bytes
    masks: bytes
    cookie: int

    def says(self, rule: Rule) -> bool:
        """Whether it is ``rule``: the same packets, to the same queue."""
        _, _, _, kind, values, _, masks, _, cookie, *_ = _RXNFC.unpack(rule.packed(0, 0))
        return (self.kind, self.masks, self.cookie) == (kind, masks, cookie) and (
            self.values == values
        )


class Ntuple(Closing):
    """A socket that asks for the rules of one NIC, in the namespace of the calling thread."""

    def __init__(self, name: str) -> None:
        self._name = name.encode(errors="surrogateescape")
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def count(self) -> int | None:
        """How many rules the NIC has; None: its driver has no such rules.

        :raises OSError: the kernel refused.
        """
        counted = self._counted()
        return None if counted is None else counted[0]

    def rules(self) -> list[Found]:
        """The rules that the NIC has; none where its driver has no such thing.

        :raises OSError: the kernel refused.
        """
        return [found for location in self._locations()[0] if (found := self._rule(location))]

    def insert(self, rule: Rule) -> None:
        """Add a rule, where the driver wants it, or else at the last free place.

        :raises OSError: the kernel or the driver refused; ENOSPC: no place is left.
        """
        counted = self._counted()
        if counted is None:
            raise OSError(errno.EOPNOTSUPP, "no rules for flows")
        location = _LOCATION_ANY
        if not counted[1] & _LOCATION_SPECIAL:
            taken, size = self._locations()
            # The last has the lowest priority: whoever made rules by hand comes first.
            free = next((n for n in range(size - 1, -1, -1) if n not in set(taken)), None)
            if free is None:
                raise OSError(errno.ENOSPC, "no place for another rule")
            location = free
        self._ask(bytearray(rule.packed(_INSERT, location)))

    def delete(self, location: int) -> None:
        """Delete the rule at ``location``.

        :raises OSError: the kernel or the driver refused; ENOENT: there is none.
        """
        fields = (0, b"", b"", b"", b"", 0, location)
        self._ask(bytearray(_RXNFC.pack(_DELETE, 0, 0, *fields, 0)))

    def _counted(self) -> tuple[int, int] | None:
        """How many rules there are, and what the driver says of their places."""
        try:
            answer = self._ask(_query(_COUNT))
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                return None
            raise
        fields = _RXNFC.unpack_from(answer)
        return int(fields[-1]), int(fields[2])

    def _locations(self) -> tuple[list[int], int]:
        """Where there are rules, and how many places there are."""
        count = self.count()
        if count is None:
            return [], 0
        buffer = _query(_ALL, count=count) + bytes(4 * count)
        answer = self._ask(buffer)
        fields = _RXNFC.unpack_from(answer)
        # rule_locs begins within the padding at the end of the structure.
        found = struct.unpack_from(f"={min(int(fields[-1]), count)}I", answer, _RXNFC.size - 4)
        return list(found), int(fields[2]) & ~_LOCATION_SPECIAL

    def _rule(self, location: int) -> Found | None:
        try:
            answer = self._ask(_query(_RULE, location=location))
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINVAL):
                return None  # somebody deleted it meanwhile
            raise
        _, _, _, kind, values, _, masks, _, cookie, *_ = _RXNFC.unpack_from(answer)
        return Found(location, kind, values, masks, cookie)

    def _ask(self, request: bytearray) -> bytes:
        buffer = (ctypes.c_char * len(request)).from_buffer(request)
        pointer = ctypes.addressof(buffer)
        fcntl.ioctl(self._socket, _SIOCETHTOOL, _IFREQ.pack(self._name, pointer))
        return bytes(buffer)


def _query(command: int, *, location: int = 0, count: int = 0) -> bytearray:
    fields = (0, b"", b"", b"", b"", 0, location)
    return bytearray(_RXNFC.pack(command, 0, 0, *fields, count))
