"""What sk_lookup programs do to connections: while they are exchanged under load, and in order."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from netbpf import NetNS, Program, loader
from netbpf.netns import links
from tests.netns_fixtures.connections import REFUSED, Load, ask, connected, server
from tests.netns_fixtures.devices import End
from tests.netns_fixtures.packets import socket_in

PORT = 7000
CONNECTIONS, EXCHANGES, CLIENTS = 2000, 50, 2
PASS, DROP = 1, 0
REPLACE = 1
"""include/uapi/linux/bpf.h: BPF_SK_LOOKUP_F_REPLACE."""


@dataclass
class Steering:
    """Servers in a namespace, and programs that select among them."""

    ns: NetNS
    source: Path
    listeners: list[socket.socket]
    stack: ExitStack
    objects: list[loader.Object] = field(default_factory=list)

    def program(self, **settings: int) -> Program:
        """One more program: ``slot`` of the server that it selects, ``flags``, ``verdict``."""
        obj = self.stack.enter_context(loader.open(self.source))
        for name, value in settings.items():
            obj.set(name, value)
        obj.load()
        for number, listener in enumerate(self.listeners):
            value = struct.pack("=Q", listener.fileno())
            obj.maps["servers"].update(struct.pack("=I", number), value)
        self.objects.append(obj)
        return obj.programs["steer"]

    def attach(self, prog: Program) -> links.Placed:
        """Attach the program, until the end of the test."""
        placed = links.attach(self.ns, "sk_lookup", prog)
        assert placed.link is not None
        self.stack.enter_context(placed.link)
        return placed

    def runs(self) -> list[int]:
        """How often each program has run."""
        return [obj.get("runs") for obj in self.objects]


@pytest.fixture
def steering(veth: tuple[End, End], compiled: Callable[[str], Path]) -> Iterator[Steering]:
    with ExitStack() as stack:
        listeners = [stack.enter_context(server(veth[0].ns, word)) for word in ("zero", "one")]
        yield Steering(veth[0].ns, compiled("sk_lookup"), listeners, stack)


def load(ends: tuple[End, End]) -> Load:
    """2,000 connections to the server, from processes beside this one."""
    at, client = ends
    return Load(client.ns, at.address, PORT, count=CONNECTIONS, clients=CLIENTS)


def test_update_under_load(steering: Steering, veth: tuple[End, End]) -> None:
    a, b = steering.program(slot=0), steering.program(slot=1)
    placed = steering.attach(a)
    with load(veth) as clients:
        for number in range(EXCHANGES):
            clients.wait(number * CONNECTIONS // EXCHANGES)
            links.update(steering.ns, "sk_lookup", f"link:{placed.link_id}", a if number % 2 else b)
    assert clients.answers.total() == CONNECTIONS
    assert set(clients.answers) == {"zero", "one"}, clients.answers
    # Either has run as often as its server has answered, by the programs' own counters.
    assert steering.runs() == [clients.answers["zero"], clients.answers["one"]]


def test_a_gap_would_be_seen(steering: Steering, veth: tuple[End, End]) -> None:
    a, b = steering.program(slot=0), steering.program(slot=1)
    placed = steering.attach(a)
    with load(veth) as clients:
        for number in range(EXCHANGES):
            clients.wait(number * CONNECTIONS // EXCHANGES)
            links.detach(steering.ns, "sk_lookup", f"link:{placed.link_id}")
            if not number:
                # On a busy machine no client may get to run meanwhile: wait for what came after it.
                clients.wait(clients.answers.total() + CLIENTS + 1)
            placed = steering.attach(a if number % 2 else b)
    assert clients.answers.keys() == {"zero", "one", REFUSED}, clients.answers


def test_detach_under_load(steering: Steering, veth: tuple[End, End]) -> None:
    placed = steering.attach(steering.program(slot=0))
    with load(veth) as clients:
        clients.wait(CONNECTIONS // 2)
        links.detach(steering.ns, "sk_lookup", f"link:{placed.link_id}")
    # Each connection is answered or refused: none hangs, none is cut off.
    assert clients.answers.keys() == {"zero", REFUSED}, clients.answers
    assert clients.answers["zero"] >= CONNECTIONS // 2


def test_what_is_established_stays(steering: Steering, veth: tuple[End, End]) -> None:
    with socket_in(steering.ns, socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind(("0.0.0.0", 0))
        listener.listen()
        steering.listeners[:] = [listener]
        placed = steering.attach(steering.program(slot=0))
        with connected(veth[1].ns, veth[0].address, PORT) as client:
            links.detach(steering.ns, "sk_lookup", f"link:{placed.link_id}")
            accepted, _ = listener.accept()
            with accepted:
                assert accepted.getsockname() == (veth[0].address, PORT)
                client.sendall(b"there")
                assert accepted.recv(9) == b"there"
                accepted.sendall(b"back")
                assert client.recv(9) == b"back"
        assert ask(veth[1].ns, veth[0].address, PORT) == REFUSED


NONE = {"slot": -1}
REFUSING = {"slot": -1, "verdict": DROP}
ZERO = {"slot": 0}
ORDERS = [
    ([NONE], "own"),
    ([ZERO], "zero"),
    # The first selection counts, unless a later program insists.
    ([ZERO, {"slot": 1}], "zero"),
    ([ZERO, {"slot": 1, "flags": REPLACE}], "one"),
    ([ZERO, {"slot": 1, "flags": REPLACE}, {"slot": 0, "flags": REPLACE}], "zero"),
    ([NONE, ZERO, NONE], "zero"),
    # One refusal is enough where none is selected, and nothing where one is.
    ([REFUSING], REFUSED),
    ([NONE, REFUSING, NONE], REFUSED),
    ([REFUSING, ZERO], "zero"),
    ([ZERO, REFUSING], "zero"),
    # A selection counts with SK_PASS only.
    ([{"slot": 0, "verdict": DROP}], REFUSED),
    ([ZERO, {"slot": 1, "flags": REPLACE, "verdict": DROP}], "zero"),
    ([{"slot": 0, "verdict": DROP}, {"slot": 1}], "one"),
]


@pytest.mark.parametrize(("programs", "wanted"), ORDERS)
def test_several_in_order(
    steering: Steering, veth: tuple[End, End], programs: list[dict[str, int]], wanted: str
) -> None:
    with server(steering.ns, "own", PORT):
        for settings in programs:
            steering.attach(steering.program(**settings))
        assert ask(veth[1].ns, veth[0].address, PORT) == wanted
    assert steering.runs() == [1] * len(programs), "all of them run, whatever the others say"


def test_a_second_selection_is_told(steering: Steering, veth: tuple[End, End]) -> None:
    for slot in (0, 1):
        steering.attach(steering.program(slot=slot))
    assert ask(veth[1].ns, veth[0].address, PORT) == "zero"
    assert [obj.get("assigned") for obj in steering.objects] == [0, -errno.EEXIST]


def test_the_place_is_that_of_the_attach(steering: Steering, veth: tuple[End, End]) -> None:
    zero, one = steering.program(slot=0), steering.program(slot=1)
    first = steering.attach(zero)
    second = steering.attach(one)
    assert ask(veth[1].ns, veth[0].address, PORT) == "zero"
    links.detach(steering.ns, "sk_lookup", f"link:{first.link_id}")
    assert ask(veth[1].ns, veth[0].address, PORT) == "one"
    # Again, it is the last; exchanged, the first stays the first.
    steering.attach(zero)
    assert ask(veth[1].ns, veth[0].address, PORT) == "one"
    none = steering.program(slot=-1)
    links.update(steering.ns, "sk_lookup", f"link:{second.link_id}", none)
    assert ask(veth[1].ns, veth[0].address, PORT) == "zero"
    links.update(steering.ns, "sk_lookup", f"link:{second.link_id}", one)
    assert ask(veth[1].ns, veth[0].address, PORT) == "one"
