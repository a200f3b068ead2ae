"""TCP connections from inside a namespace, and what becomes of them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from netbpf.netns import NetNS, entered
from tests.netns_fixtures.packets import socket_in

REFUSED = "refused"

# Processes of their own: threads would wait for one another, and for what the test does meanwhile.
_SERVE = """
import socket, sys
listener = socket.socket(fileno=int(sys.argv[1]))
while True:
    try:
        connection, _ = listener.accept()
    except OSError:
        break
    with connection:
        connection.sendall(sys.argv[2].encode())
"""
_ASK = """
import socket, sys
for _ in range(int(sys.argv[3])):
    try:
        with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=20) as client:
            said = b"".join(iter(lambda: client.recv(4096), b"")).decode()
    except ConnectionRefusedError:
        said = "refused"
    except OSError as error:
        said = repr(error)
    print(said, flush=True)
"""


@contextmanager
def server(ns: NetNS, word: str, port: int = 0) -> Iterator[socket.socket]:
    """A server that says its word to each client; without ``port`` at one that nobody is told."""
    with socket_in(ns, socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind(("0.0.0.0", port))
        listener.listen(1024)
        number = listener.fileno()
        with subprocess.Popen(_python(_SERVE, number, word), pass_fds=[number]) as process:
            try:
                yield listener
            finally:
                listener.shutdown(socket.SHUT_RDWR)
        assert process.returncode == 0


@contextmanager
def connected(ns: NetNS, address: str, port: int) -> Iterator[socket.socket]:
    """A connection from ``ns``; ConnectionRefusedError where nobody listens."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket_in(ns, family, socket.SOCK_STREAM) as client:
        client.settimeout(20)
        client.connect((address, port))
        yield client


def ask(ns: NetNS, address: str, port: int) -> str:
    """All that the server sends to a connection from ``ns``, or ``refused``."""
    try:
        with connected(ns, address, port) as client:
            return b"".join(iter(lambda: client.recv(4096), b"")).decode()
    except ConnectionRefusedError:
        return REFUSED


class Load:
    """Clients that connect one after the other, each with an answer, ``refused`` or an error."""

    def __init__(self, ns: NetNS, address: str, port: int, *, count: int, clients: int) -> None:
        self._ns = ns
        self._argv = _python(_ASK, address, port, count // clients)
        self._clients = clients
        self._processes: list[subprocess.Popen[bytes]] = []
        self.answers: Counter[str] = Counter()

    def wait(self, done: int) -> None:
        """Until it is known what became of so many connections."""
        while self.answers.total() < done and (line := self._lines.readline()):
            self.answers[line.rstrip("\n")] += 1

    def __enter__(self) -> Load:
        # They share a pipe: a line goes into it as a whole, and it has room for all of them.
        reader, writer = os.pipe()
        self._lines = open(reader)
        try:
            with entered(self._ns):
                for _ in range(self._clients):
                    self._processes.append(subprocess.Popen(self._argv, stdout=writer))
        finally:
            os.close(writer)
        return self

    def __exit__(self, *_: object) -> None:
        with self._lines:
            self.wait(sys.maxsize)
        assert [process.wait() for process in self._processes] == [0] * self._clients


def _python(script: str, *arguments: object) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", script, *map(str, arguments)]
