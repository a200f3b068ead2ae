"""TCP connections from inside a namespace, and what becomes of them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from netbpf.netns import NetNS
from tests.netns_fixtures.packets import socket_in

REFUSED = "refused"


@contextmanager
def connected(ns: NetNS, address: str, port: int) -> Iterator[socket.socket]:
    """A connection from ``ns``; ConnectionRefusedError where nobody listens."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket_in(ns, family, socket.SOCK_STREAM) as client:
        client.settimeout(10)
        client.connect((address, port))
        yield client


def ask(ns: NetNS, address: str, port: int) -> str:
    """All that the server sends to a connection from ``ns``, or ``refused``."""
    try:
        with connected(ns, address, port) as client:
            return b"".join(iter(lambda: client.recv(4096), b"")).decode()
    except ConnectionRefusedError:
        return REFUSED
