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

from netbpf import BpfError, NetNS, Program, loader
from netbpf.bpf.test_lookup import Lookup
from netbpf.netns import links
from tests.netns_fixtures.cli import netbpf, ok
from tests.netns_fixtures.connections import REFUSED, Load, ask, connected, server
from tests.netns_fixtures.devices import End
from tests.netns_fixtures.packets import socket_in
from tests.netns_fixtures.programs import load_returning

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


def cookie(listener: socket.socket) -> int:
    """What the kernel calls a socket (include/uapi/asm-generic/socket.h: SO_COOKIE)."""
    (found,) = struct.unpack("=Q", listener.getsockopt(socket.SOL_SOCKET, 57, 8))
    return int(found)


@pytest.mark.parametrize(
    ("settings", "verdict", "slot"),
    [
        ({"slot": 0}, "pass", 0),
        ({"slot": 1}, "pass", 1),
        (NONE, "pass", None),
        (REFUSING, "drop", None),
        ({"slot": 0, "verdict": DROP}, "drop", None),
    ],
)
def test_asked_without_traffic(
    steering: Steering,
    veth: tuple[End, End],
    settings: dict[str, int],
    verdict: str,
    slot: int | None,
) -> None:
    prog = steering.program(**settings)
    wanted = cookie(steering.listeners[slot]) if slot is not None else None
    arguments = ("prog", "run", f"id:{prog.id}", "--lookup", f"{veth[0].address}:{PORT}")
    told = ok(*arguments, "--repeat", 3)["lookup"]
    assert told.pop("duration_ns") >= 0
    assert told == {
        "protocol": "tcp",
        "local": f"{veth[0].address}:{PORT}",
        "remote": None,
        "retval": int(verdict == "pass"),
        "verdict": verdict,
        "socket": wanted,
    }
    assert steering.runs() == [3]
    chosen = "no socket" if wanted is None else f"the socket with cookie {wanted}"
    assert netbpf(*arguments).out.startswith(f"tcp {veth[0].address}:{PORT}: {verdict}, {chosen} (")
    # Traffic gets the same answer.
    steering.attach(prog)
    said = ask(veth[1].ns, veth[0].address, PORT)
    assert said == (REFUSED if slot is None else ("zero", "one")[slot])


@pytest.mark.parametrize(
    ("local", "remote", "protocol"),
    [("10.1.2.3", "10.4.5.6", "tcp"), ("2001:db8::1", "fe80::2", "udp")],
)
def test_what_it_is_asked_about(steering: Steering, local: str, remote: str, protocol: str) -> None:
    prog = steering.program(slot=-1)
    ends = [f"[{each}]" if ":" in each else each for each in (local, remote)]
    told = ok(
        *("prog", "run", f"id:{prog.id}", "--lookup", f"{ends[0]}:{PORT}"),
        *("--from", f"{ends[1]}:4000", "--protocol", protocol),
    )["lookup"]
    assert (told["local"], told["remote"]) == (f"{ends[0]}:{PORT}", f"{ends[1]}:4000")
    (obj,) = steering.objects
    assert obj.get("protocol") == socket.getprotobyname(protocol)
    assert socket.ntohs(obj.get("remote_port")) == 4000
    family = socket.AF_INET6 if ":" in local else socket.AF_INET
    assert obj.get("family") == family
    if family == socket.AF_INET:
        seen = struct.pack("=2I", *obj.get("ip4"))
        assert seen == socket.inet_aton(local) + socket.inet_aton(remote)
    else:
        seen = struct.pack("=8I", *obj.get("ip6"))
        assert seen == socket.inet_pton(family, local) + socket.inet_pton(family, remote)


def test_one_of_a_group_is_not_told(steering: Steering, veth: tuple[End, End]) -> None:
    with socket_in(steering.ns, socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("0.0.0.0", 0))
        listener.listen()
        steering.listeners[:] = [listener]
        prog = steering.program(slot=0)
        result = netbpf("--json", "prog", "run", f"id:{prog.id}", "--lookup", f"10.0.0.1:{PORT}")
        assert result.status == 1
        assert "SO_REUSEPORT" in result.error["message"]
        assert result.error["errno"] == "EOPNOTSUPP"


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--lookup", "2001:db8::1:7000"], 2, "[ADDRESS]:PORT"),
        (["--lookup", "10.0.0.1"], 2, "ADDRESS:PORT"),
        (["--lookup", "10.0.0.1:70000"], 2, "between 0 and 65535"),
        (["--lookup", "10.0.0.1:70", "--from", "[::1]:70"], 2, "or both IPv6"),
        (["--lookup", "10.0.0.1:70", "--protocol", "icmp"], 2, "it is tcp or udp"),
        (["--lookup", "10.0.0.1:70", "--data", "00"], 2, "there is no packet"),
        (["--from", "10.0.0.1:70", "--data", "00"], 2, "go with --lookup"),
        (["--protocol", "udp", "--data", "00"], 2, "go with --lookup"),
        (
            ["--data", "00" * 60],
            1,
            "sk_lookup are not run over a packet (EINVAL): `netbpf prog run --l",
        ),
    ],
)
def test_what_cannot_be_asked(
    steering: Steering, arguments: list[str], status: int, words: str
) -> None:
    result = netbpf("prog", "run", f"id:{steering.program().id}", *arguments)
    assert (result.status, words in result.err) == (status, True), result.err


def test_only_sk_lookup_is_asked_for_a_socket() -> None:
    with load_returning(0) as prog:
        result = netbpf("prog", "run", f"id:{prog.id}", "--lookup", "10.0.0.1:70")
        assert result.status == 1
        assert "sk_lookup" in result.err
        with pytest.raises(BpfError, match="sched_cls are not asked for a socket"):
            prog.test_lookup(Lookup(("10.0.0.1", 70)))
