"""Hearing of devices: rtnetlink's group for links, of one namespace."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from netbpf.closing import Closing
from netbpf.netlink.attributes import find, number_in, text_in
from netbpf.netlink.links import RTM_DELLINK, RTM_NEWLINK
from netbpf.netlink.listing import NETKIT, Listed

_RTMGRP_LINK = 1
_HEADER = struct.Struct("=IHHII")
_IFINFO = struct.Struct("=BxHiII")
_IFF_UP = 1
_SO_RCVBUFFORCE = 33

# include/uapi/linux/if_link.h
_IFNAME, _NEW_NETNSID, _NEW_IFINDEX = 3, 45, 49

_BUFFER = 1 << 16
_QUEUE = 4 << 20
"""What may wait unread: some 2000 messages, for when a thousand devices go at once."""


class Lost(Exception):
    """More happened than the socket could keep: what there is has to be listed anew."""


@dataclass(frozen=True, slots=True)
class Heard:
    """One message about a device: it is there as ``device`` tells, or it has ``gone``.

    A device that moved to another namespace has gone with ``nsid``, that namespace's id in this
    one, and its number there, or 0 where it stayed the same and the kernel does not tell it.
    """

    device: Listed
    gone: bool
    nsid: int | None = None
    new_ifindex: int = 0


class Monitor(Closing):
    """Hears of the devices of the namespace in which the calling thread is when it is opened."""

    def __init__(self, queue: int = _QUEUE) -> None:
        """Begin to listen.

        :param queue: the bytes that may wait unread.
        """
        self._buffer = bytearray(_BUFFER)
        self._socket = socket.socket(
            socket.AF_NETLINK,
            socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK,
            socket.NETLINK_ROUTE,
        )
        try:
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, queue)
            except PermissionError:
                # Without CAP_NET_ADMIN as much as the system lets.
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, queue)
            self._socket.bind((0, _RTMGRP_LINK))
        except BaseException:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """The socket's descriptor, readable when there is something to hear."""
        return self._socket.fileno()

    def heard(self) -> Iterator[Heard]:
        """What came since the last time; does not wait.

        :raises Lost: something is missing.
        """
        while True:
            try:
                length = self._socket.recv_into(self._buffer)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    raise Lost from error
                raise
            yield from _parsed(bytes(memoryview(self._buffer)[:length]))

    def skip(self) -> None:
        """Forget what is waiting."""
        while True:
            try:
                for _ in self.heard():
                    pass
                return
            except Lost:
                continue

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def _parsed(datagram: bytes) -> Iterator[Heard]:
    at, end = 0, len(datagram)
    while at + _HEADER.size + _IFINFO.size <= end:
        length, kind, _, _, _ = _HEADER.unpack_from(datagram, at)
        if length < _HEADER.size:
            raise OSError(errno.EBADMSG, "a netlink message is cut short")
        start, at = at, at + ((length + 3) & ~3)
        if length < _HEADER.size + _IFINFO.size or kind not in (RTM_NEWLINK, RTM_DELLINK):
            continue
        family, _, ifindex, flags, _ = _IFINFO.unpack_from(datagram, start + _HEADER.size)
        message = datagram[start : start + length]
        attributes = find(message, _HEADER.size + _IFINFO.size, _IFNAME, _NEW_NETNSID, _NEW_IFINDEX)
        # A bridge tells of its ports here too, and that a port left is no end of a device
        # (br_ifinfo_notify in net/bridge/br_netlink.c); a wireless event comes without a name.
        if family != socket.AF_UNSPEC or _IFNAME not in attributes:
            continue
        name, up = text_in(attributes[_IFNAME]), bool(flags & _IFF_UP)
        moved = attributes.get(_NEW_NETNSID)
        yield Heard(
            Listed(ifindex, name, NETKIT in message, up),
            kind == RTM_DELLINK,
            None if moved is None else number_in(moved),
            number_in(attributes.get(_NEW_IFINDEX)),
        )
