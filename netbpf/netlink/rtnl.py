"""A rtnetlink socket: one request, its answers, and the kernel's own words when it refuses.

pyroute2's sockets each run an asyncio loop: they cannot be used from code that runs in one already,
and drop the kernel's text of a request that went well. So netbpf asks by itself, in the thread and
the namespace of its caller. A message is bytes (`netbpf.netlink.attributes`), or one of pyroute2.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, overload

from netbpf.closing import Closing

NLM_F_REQUEST = 0x001
NLM_F_MULTI = 0x002
NLM_F_ACK = 0x004
NLM_F_ECHO = 0x008
NLM_F_DUMP_INTR = 0x010
NLM_F_CAPPED = 0x100
NLM_F_ACK_TLVS = 0x200
NLM_F_DUMP = 0x300
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400

_NLMSG_NOOP = 1
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_NLMSGERR_ATTR_MSG = 1
_SOL_NETLINK = 270
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_NETLINK_GET_STRICT_CHK = 12

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_INT = struct.Struct("=i")

_BUFFER = 1 << 16
"""The kernel fills at most 32 KiB of a dump at once (netlink_dump in net/netlink/af_netlink.c)."""

_DUMP_TRIES = 10
"""How often a dump is asked again when the kernel says that it changed underneath."""


class Refusal(OSError):
    """The kernel refused a request; ``extack`` is its own text, when it gave one."""

    def __init__(self, number: int, extack: str | None = None) -> None:
        super().__init__(number, extack or os.strerror(number))
        self.extack = extack


class Rtnl(Closing):
    """A NETLINK_ROUTE socket of the namespace in which the calling thread is when it is opened.

    It stays with that namespace: a thread may enter one, open, return, and go on asking there.
    Extended acknowledgements and strict checking of dump requests are on.
    """

    protocol: ClassVar[int] = socket.NETLINK_ROUTE

    def __init__(self) -> None:
        self._sequence = 0
        self._torn = False
        self._buffer = bytearray(_BUFFER)
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, self.protocol
        )
        try:
            for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK):
                self._socket.setsockopt(_SOL_NETLINK, option, 1)
            self._socket.bind((0, 0))
        except BaseException:
            self._socket.close()
            raise

    @overload
    def request(self, kind: int, message: bytes, flags: int = 0) -> list[bytes]: ...
    @overload
    def request(self, kind: int, message: Any, flags: int = 0) -> list[Any]: ...

    def request(self, kind: int, message: Any, flags: int = 0) -> list[Any]:
        """Send ``message`` and return the answers: bytes for bytes, else decoded, of its class.

        :param kind: the message type (RTM_…); NLM_F_REQUEST and NLM_F_ACK are added to ``flags``.
        :raises Refusal: the kernel refused.
        """
        return self._ask(kind, message, flags | NLM_F_ACK)

    @overload
    def dump(self, kind: int, message: bytes) -> list[bytes]: ...
    @overload
    def dump(self, kind: int, message: Any) -> list[Any]: ...

    def dump(self, kind: int, message: Any) -> list[Any]:
        """Send ``message`` as a dump request and return all that the kernel lists.

        Asked again when the list changed while it was read; after several tries the last is taken.

        :raises Refusal: the kernel refused.
        """
        answers: list[Any] = []
        for _ in range(_DUMP_TRIES):
            answers = self._ask(kind, message, NLM_F_DUMP)
            if not self._torn:
                break
        return answers

    def batch(
        self, kind: int, bodies: Sequence[bytes], flags: int = 0
    ) -> list[list[bytes] | Refusal]:
        """Send several requests at once and return what each was answered, or why it was refused.

        The kernel goes through them in order, and on after one that it refuses. Answers wait in
        the socket's buffer: with NLM_F_ECHO a dozen at once, else a hundred.
        """
        first = self._sequence + 1
        last = self._sequence = self._sequence + len(bodies)
        # Only the last is acknowledged: an answer to it means that all were gone through.
        self._socket.send(
            b"".join(
                _packed(kind, flags | (NLM_F_ACK if number == last else 0), number, body)
                for number, body in enumerate(bodies, first)
            )
        )
        outcomes: list[list[bytes] | Refusal] = [[] for _ in bodies]
        while True:
            datagram = self._receive()
            for number, what, its_flags, start, end in _split(datagram, first, last):
                outcome = outcomes[number - first]
                if what != _NLMSG_ERROR:
                    if isinstance(outcome, list):
                        outcome.append(datagram[start:end])
                    continue
                try:
                    _check(datagram, what, its_flags, start, end)
                except Refusal as refusal:
                    outcomes[number - first] = refusal
                if number == last:
                    return outcomes

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _ask(self, kind: int, message: Any, flags: int) -> list[Any]:
        self._sequence += 1
        flags |= NLM_F_REQUEST
        self._torn = False
        if isinstance(message, bytes):
            self._socket.send(_packed(kind, flags, self._sequence, message))
            return list(self._answers(_as_bytes))
        header = message["header"]
        header["type"] = kind
        header["flags"] = flags
        header["sequence_number"] = self._sequence
        header["pid"] = 0
        message.reset()
        message.encode()
        self._socket.send(message.data)
        return list(self._answers(_decoder(type(message))))

    def _answers(self, taken: Callable[[bytes, int, int], Any]) -> Iterator[Any]:
        number = self._sequence
        while True:
            datagram = self._receive()
            for _, kind, flags, start, end in _split(datagram, number, number):
                if flags & NLM_F_DUMP_INTR:
                    self._torn = True
                if kind in (_NLMSG_ERROR, _NLMSG_DONE):
                    _check(datagram, kind, flags, start, end)
                    return
                if kind != _NLMSG_NOOP:
                    yield taken(datagram, start, end)

    def _receive(self) -> bytes:
        # With MSG_TRUNC the kernel says how long the answer was, also when it did not fit.
        length = self._socket.recv_into(self._buffer, 0, socket.MSG_TRUNC)
        if length > len(self._buffer):
            raise OSError(errno.EMSGSIZE, f"a netlink answer of {length} bytes")
        return bytes(memoryview(self._buffer)[:length])


def _packed(kind: int, flags: int, number: int, body: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(body), kind, flags | NLM_F_REQUEST, number, 0) + body


def _as_bytes(datagram: bytes, start: int, end: int) -> bytes:
    return datagram[start:end]


def _decoder(message_class: Any) -> Callable[[bytes, int, int], Any]:
    def decoded(datagram: bytes, start: int, end: int) -> Any:
        answer = message_class(datagram[start - _HEADER.size : end])
        answer.decode()
        return answer

    return decoded


def _split(datagram: bytes, first: int, last: int) -> Iterator[tuple[int, int, int, int, int]]:
    """Number, type, flags, start and end of the payload of each message that answers a request.

    :param first: of the requests whose answers are wanted, to ``last``.
    """
    offset = 0
    while offset + _HEADER.size <= len(datagram):
        length, kind, flags, number, _ = _HEADER.unpack_from(datagram, offset)
        if length < _HEADER.size or offset + length > len(datagram):
            raise OSError(errno.EBADMSG, "a netlink answer is cut short")
        # An answer of an earlier request, whose reading was interrupted, is passed over.
        if first <= number <= last:
            yield number, kind, flags, offset + _HEADER.size, offset + length
        offset += (length + 3) & ~3


def _check(datagram: bytes, kind: int, flags: int, start: int, end: int) -> None:
    """Raise what an error or the end of a dump says, if it is not "done"."""
    if end - start < _INT.size:
        return
    number = -_INT.unpack_from(datagram, start)[0]
    if number == 0:
        return
    extack = None
    if flags & NLM_F_ACK_TLVS:
        at = start + _INT.size
        if kind == _NLMSG_ERROR:
            # The request follows: its header only, as CAP_ACK is on.
            (length,) = struct.unpack_from("=I", datagram, at)
            at += _HEADER.size if flags & NLM_F_CAPPED else (length + 3) & ~3
        extack = _extack(datagram, at, end)
    raise Refusal(number, extack)


def _extack(datagram: bytes, at: int, end: int) -> str | None:
    while at + _ATTRIBUTE.size <= end:
        length, kind = _ATTRIBUTE.unpack_from(datagram, at)
        if length < _ATTRIBUTE.size:
            break
        if kind & 0x3FFF == _NLMSGERR_ATTR_MSG:
            text = datagram[at + _ATTRIBUTE.size : at + length]
            return text.split(b"\0", 1)[0].decode(errors="replace") or None
        at += (length + 3) & ~3
    return None
