"""Packets for a test: sent, counted, and pinged, always inside namespaces of the test."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from netbpf.netns import NetNS, entered
from tests.netns_fixtures.namespaces import run

_ETH_P_ALL = 0x0003


def ping(ns: NetNS, address: str, *, count: int = 1, timeout: float = 1.0) -> int:
    """Ping ``address`` from ``ns`` and return how many answers came."""
    wait = str(max(1, round(timeout)))
    argv = ["ping", "-n", "-q", "-i", "0.02", "-c", str(count), "-W", wait, address]
    result = run(ns, argv, check=False)
    match = re.search(r"(\d+) received", result.stdout)
    assert match is not None, f"ping said: {result.stdout}{result.stderr}"
    return int(match[1])


def send_udp(
    ns: NetNS, address: str, port: int, payload: bytes = b"netbpf", count: int = 1
) -> None:
    """Send datagrams from ``ns``."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket_in(ns, family, socket.SOCK_DGRAM) as sender:
        for _ in range(count):
            sender.sendto(payload, (address, port))


def send_frames(ns: NetNS, device: str, frame: bytes, count: int = 1) -> None:
    """Send raw frames out of ``device`` of ``ns``."""
    with socket_in(ns, socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind((device, 0))
        for _ in range(count):
            sender.send(frame)


def counters(ns: NetNS, device: str) -> dict[str, int]:
    """The device's own counters, as ``ip -s`` reads them: rx_packets, tx_dropped and so on."""
    found = json.loads(run(ns, ["ip", "-s", "-j", "link", "show", "dev", device]).stdout)[0]
    return {
        f"{way}_{what}": number
        for way, numbers in found["stats64"].items()
        for what, number in numbers.items()
    }


@contextmanager
def socket_in(ns: NetNS, family: int, kind: int, protocol: int = 0) -> Iterator[socket.socket]:
    """A socket of ``ns``."""
    with entered(ns):
        made = socket.socket(family, kind, protocol)
    with made:
        yield made


class UdpSink:
    """Receives datagrams inside a namespace and counts them."""

    def __init__(self, ns: NetNS, address: str = "0.0.0.0", port: int = 0) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with entered(ns):
            self._socket = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self._socket.bind((address, port))
        except BaseException:
            self._socket.close()
            raise
        self.port: int = self._socket.getsockname()[1]

    def receive(self, count: int, *, timeout: float = 2.0) -> list[bytes]:
        """Up to ``count`` payloads that come within ``timeout`` seconds."""
        return _receive(self._socket, count, timeout, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


class Sniffer:
    """Sees the frames of a device (both directions) and keeps those that hold ``marker``."""

    def __init__(self, ns: NetNS, device: str, marker: bytes = b"") -> None:
        with entered(ns):
            self._socket = socket.socket(
                socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL)
            )
        try:
            self._socket.bind((device, _ETH_P_ALL))
        except BaseException:
            self._socket.close()
            raise
        self._marker = marker

    def receive(self, count: int, *, timeout: float = 2.0) -> list[bytes]:
        """Up to ``count`` marked frames that come within ``timeout`` seconds."""
        return _receive(self._socket, count, timeout, self._marker)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


def _receive(
    source: socket.socket, count: int, timeout: float, marker: bytes | None
) -> list[bytes]:
    found: list[bytes] = []
    deadline = time.monotonic() + timeout
    while len(found) < count:
        left = deadline - time.monotonic()
        if left <= 0:
            break
        source.settimeout(left)
        try:
            data = source.recv(65536)
        except TimeoutError:
            break
        if marker is None or marker in data:
            found.append(data)
    return found
