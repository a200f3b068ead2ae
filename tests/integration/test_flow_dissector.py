"""Flow dissectors: what they make of a packet without traffic, and where packets go for it."""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from netbpf import NetNS, loader, tcx
from netbpf.netns import entered, links
from tests.integration.test_cli_run import capture
from tests.netns_fixtures import devices, namespaces
from tests.netns_fixtures.cli import netbpf, ok
from tests.netns_fixtures.devices import End
from tests.netns_fixtures.namespaces import run
from tests.netns_fixtures.packets import Sniffer, socket_in

GRE, UDP = 47, 17
CONTINUE = 129
"""include/uapi/linux/bpf.h: BPF_FLOW_DISSECTOR_CONTINUE."""
MARKER = b"dissect me"


def ip(src: str, dst: str, protocol: int, payload: bytes) -> bytes:
    ends = b"".join(bytes(map(int, end.split("."))) for end in (src, dst))
    size = 20 + len(payload)
    header = struct.pack("!BBHHHBBH", 0x45, 0, size, 1, 0, 64, protocol, 0) + ends
    total = sum(struct.unpack("!10H", header))
    total = (total & 0xFFFF) + (total >> 16)
    return header[:10] + struct.pack("!H", 0xFFFF - total) + header[12:] + payload


def udp(sport: int) -> bytes:
    return struct.pack("!HHHH", sport, 53, 8 + len(MARKER), 0) + MARKER


def gre(sport: int) -> bytes:
    """A datagram in GRE: one tunnel, whatever the port inside of it."""
    inner = ip("192.168.0.1", "192.168.0.2", UDP, udp(sport))
    return ip("10.0.0.2", "203.0.113.1", GRE, struct.pack("!HH", 0, 0x0800) + inner)


def framed(packet: bytes, *, macs: bytes = bytes(12), vlan: int | None = None) -> bytes:
    tag = b"" if vlan is None else struct.pack("!HH", 0x8100, vlan)
    return macs + tag + b"\x08\x00" + packet


KEYS = {
    "nhoff": 14,
    "thoff": 34,
    "n_proto": 0x0800,
    "addr_proto": 0x0800,
    "ip_proto": UDP,
    "src": "10.0.0.1",
    "dst": "10.0.0.2",
    "sport": 4000,
    "dport": 53,
    "is_frag": False,
    "is_first_frag": False,
    "is_encap": False,
    "flags": 0,
    "flow_label": 0,
}
INNER = {"src": "192.168.0.1", "dst": "192.168.0.2", "is_encap": True}
OUTER = {"src": "10.0.0.2", "dst": "203.0.113.1", "ip_proto": GRE, "sport": 0, "dport": 0}
PLAIN = ip("10.0.0.1", "10.0.0.2", UDP, udp(4000))


@pytest.mark.parametrize(
    ("packet", "setting", "wanted"),
    [
        (framed(PLAIN), "inside=1", {}),
        (framed(PLAIN, vlan=7), "inside=1", {"nhoff": 18, "thoff": 38}),
        (framed(gre(4000)), "inside=1", {"thoff": 58, **INNER}),
        (framed(gre(4000)), "inside=0", OUTER),
        (framed(gre(4000), vlan=7), "inside=1", {"nhoff": 18, "thoff": 62, **INNER}),
    ],
    ids=["plain", "vlan", "gre", "gre-outside", "gre-in-vlan"],
)
def test_what_it_makes_of_a_packet(
    compiled: Callable[[str], Path], packet: bytes, setting: str, wanted: dict[str, object]
) -> None:
    arguments = ("prog", "run", compiled("dissect"), "--set", setting, "--data", packet.hex())
    (told,) = ok(*arguments)["runs"]
    assert (told["verdict"], told["retval"]) == ("ok", 0)
    assert told["flow_keys"] == {**KEYS, **wanted}
    assert len(told["data_out"]) == 2 * 56

    row = netbpf(*arguments).out.splitlines()[1]
    assert f"{told['flow_keys']['src']} > {told['flow_keys']['dst']}, ip_proto" in row
    assert row.endswith("is_encap") == bool(told["flow_keys"]["is_encap"])


@pytest.mark.parametrize(("answer", "word"), [(2, "drop"), (129, "continue"), (77, "77")])
def test_its_verdict_has_a_word(
    compiled: Callable[[str], Path], tmp_path: Path, answer: int, word: str
) -> None:
    source = capture(tmp_path / "in.pcap", [framed(PLAIN), b"short", framed(gre(1))])
    result = netbpf(
        "--json", "prog", "run", compiled("dissect"), "--pcap", source, "--set", f"answer={answer}"
    )
    assert result.status == 1, "a packet without an Ethernet header is not run"
    told = result.json["runs"]
    assert [each["verdict"] for each in told] == [word, None, word]
    assert [each["flow_keys"] and each["flow_keys"]["thoff"] for each in told] == [14, None, 14]
    assert "shorter than an Ethernet header" in told[1]["error"]


def test_it_lets_no_packet_pass(compiled: Callable[[str], Path], tmp_path: Path) -> None:
    out = tmp_path / "out.pcap"
    result = netbpf("prog", "run", compiled("dissect"), "--data", framed(PLAIN).hex(), "--out", out)
    assert result.status == 2
    assert "lets none pass" in result.err
    assert not out.exists()


@dataclass(frozen=True)
class Router:
    """A namespace that sends on what comes in by one device by either of two others."""

    ns: NetNS
    macs: bytes
    sender: socket.socket
    sinks: tuple[Sniffer, Sniffer]

    def ways(self) -> list[set[int]]:
        """Send tunnelled packets that differ in the port inside; which ports took which way."""
        for port in PORTS:
            self.sender.send(framed(gre(port), macs=self.macs))
        seen: list[set[int]] = [set(), set()]
        deadline = time.monotonic() + 5
        while sum(map(len, seen)) < len(PORTS):
            assert time.monotonic() < deadline, "each comes, by one way"
            for ports, sink in zip(seen, self.sinks, strict=True):
                # Ethernet, IP, GRE, IP; then the source port.
                frames = sink.receive(len(PORTS), timeout=0.01)
                ports |= {int.from_bytes(frame[58:60], "big") for frame in frames}
        assert sorted(seen[0] | seen[1]) == list(PORTS)
        return seen

    def spread(self) -> bool:
        """Whether packets of the one tunnel take both ways; the next time, each the same again."""
        first = self.ways()
        assert self.ways() == first
        return bool(first[0] and first[1])


PORTS = range(4000, 4064)


@pytest.fixture
def router() -> Iterator[Router]:
    """A router with one route over two devices, which it chooses among by a packet's flow keys."""
    with namespaces.namespaces(4) as (at, source, one, two), ExitStack() as stack:
        names = [("in", "eth0"), ("out1", "eth0"), ("out2", "eth0")]
        pairs = [
            stack.enter_context(
                devices.veth_pair(
                    at, ns, names=name, addrs=(f"10.{number}.0.1/24", f"10.{number}.0.2/24")
                )
            )
            for number, (ns, name) in enumerate(zip((source, one, two), names, strict=True))
        ]
        with entered(at):
            for name, value in (
                ("ip_forward", 1),
                # The addresses, the protocol and the ports; of the outer packet, says the kernel.
                ("fib_multipath_hash_policy", 1),
                ("conf/all/rp_filter", 0),
                ("conf/in/rp_filter", 0),
            ):
                Path(f"/proc/sys/net/ipv4/{name}").write_text(f"{value}\n")
        macs = {end: mac(end) for pair in pairs for end in pair}
        for near, far in pairs[1:]:
            neighbour = f"neigh replace {far.address} lladdr {macs[far]} dev {near.name}"
            run(at, ["ip", *neighbour.split()])
        hops = [w for _, far in pairs[1:] for w in ("nexthop", "via", far.address, "weight", "1")]
        run(at, ["ip", "route", "add", "203.0.113.0/24", *hops])
        near, far = pairs[0]
        sender = stack.enter_context(socket_in(far.ns, socket.AF_PACKET, socket.SOCK_RAW))
        sender.bind((far.name, 0))
        first, second = (stack.enter_context(Sniffer(b.ns, b.name, MARKER)) for _, b in pairs[1:])
        both = bytes.fromhex((macs[near] + macs[far]).replace(":", ""))
        yield Router(at, both, sender, (first, second))


def mac(end: End) -> str:
    (found,) = json.loads(run(end.ns, ["ip", "-j", "link", "show", "dev", end.name]).stdout)
    return str(found["address"])


@pytest.fixture
def dissectors(compiled: Callable[[str], Path]) -> Iterator[Callable[..., loader.Object]]:
    """tests/bpf/dissect.c, loaded with the settings that are asked for; closed at the end."""
    with ExitStack() as stack:

        def made(**settings: int) -> loader.Object:
            obj = stack.enter_context(loader.open(compiled("dissect")))
            for name, value in settings.items():
                obj.set(name, value)
            obj.load()
            return obj

        yield made


def test_it_decides_which_way_packets_take(
    router: Router, dissectors: Callable[..., loader.Object]
) -> None:
    assert not router.spread(), "the kernel looks at the tunnel only"
    inside, outside = dissectors(inside=1), dissectors(inside=0)
    pairs = dissectors(inside=1, port_mask=0xFFFE)
    placed = links.attach(router.ns, "flow_dissector", inside.programs["dissect"])
    assert placed.link is not None

    def exchange(obj: loader.Object) -> None:
        links.update(router.ns, "flow_dissector", f"link:{placed.link_id}", obj.programs["dissect"])

    with placed.link:
        assert router.spread(), "each flow in the tunnel goes its way"
        ran = inside.get("runs")
        assert ran >= 2 * len(PORTS)
        exchange(outside)
        assert not router.spread()
        assert (outside.get("runs") >= 2 * len(PORTS), inside.get("runs")) == (True, ran)
        exchange(pairs)
        assert router.spread()
        for ports in router.ways():
            assert {port ^ 1 for port in ports} == ports, "two neighbours are one flow to it"
    assert not router.spread(), "detached, it is as before"


def test_one_that_hands_on_changes_nothing(
    router: Router, dissectors: Callable[..., loader.Object]
) -> None:
    handing_on = dissectors(answer=CONTINUE)
    before = router.ways()
    placed = links.attach(router.ns, "flow_dissector", handing_on.programs["dissect"])
    assert placed.link is not None
    with placed.link:
        assert router.ways() == before
        assert handing_on.get("runs") >= len(PORTS)


def test_directly_and_by_the_command_line(router: Router, compiled: Callable[[str], Path]) -> None:
    at = (router.ns.name, "flow_dissector")
    ok("netns", "attach", *at, compiled("dissect"), "--no-link")
    assert router.spread()
    ok("netns", "update", *at, "name:dissect", compiled("dissect"), "--set", "inside=0")
    assert not router.spread()
    ok("netns", "detach", *at, "name:dissect")
    assert not router.spread()


@pytest.mark.needs("tcx")
def test_it_decides_by_what_packets_are_hashed(
    veth: tuple[End, End],
    compiled: Callable[[str], Path],
    dissectors: Callable[..., loader.Object],
) -> None:
    near, far = veth
    macs = bytes.fromhex((mac(near) + mac(far)).replace(":", ""))
    with loader.open(compiled("hash")) as looking, ExitStack() as stack:
        looking.load()
        with entered(near.ns):
            attached = tcx.attach(near.ifindex, "ingress", looking.programs["hash"])
        assert attached.link is not None
        stack.enter_context(attached.link)
        sender = stack.enter_context(socket_in(far.ns, socket.AF_PACKET, socket.SOCK_RAW))
        sender.bind((far.name, 0))

        def hashes() -> set[int]:
            """Send one flow in eight VLANs: the hashes of its packets."""
            looking.set("hashes", [0] * 16)
            for vlan in range(1, 9):
                sender.send(framed(PLAIN, macs=macs, vlan=vlan))
            deadline = time.monotonic() + 5
            while not all(seen := looking.get("hashes")[1:9]):
                assert time.monotonic() < deadline, seen
            return set(seen)

        assert len(hashes()) == 8, "the kernel tells VLANs apart"
        placed = links.attach(near.ns, "flow_dissector", dissectors().programs["dissect"])
        assert placed.link is not None
        with placed.link:
            assert len(hashes()) == 1, "a program has no key for a VLAN"
            handing_on = dissectors(answer=CONTINUE).programs["dissect"]
            links.update(near.ns, "flow_dissector", f"link:{placed.link_id}", handing_on)
            assert len(hashes()) == 8
            links.update(
                near.ns, "flow_dissector", f"id:{handing_on.id}", dissectors().programs["dissect"]
            )
            assert len(hashes()) == 1
        assert len(hashes()) == 8, "detached, it is as before"


@pytest.mark.needs("flower")
def test_it_decides_what_flower_matches(
    veth: tuple[End, End], dissectors: Callable[..., loader.Object]
) -> None:
    near, far = veth
    rule = "protocol ip flower ip_proto udp src_ip 192.168.0.1 dst_port 53 action pass"
    run(near.ns, ["tc", "qdisc", "add", "dev", near.name, "clsact"])
    run(near.ns, ["tc", "filter", "add", "dev", near.name, "ingress", *rule.split()])
    shown = ["tc", "-s", "-j", "filter", "show", "dev", near.name, "ingress"]
    frame = framed(gre(4000), macs=bytes.fromhex((mac(near) + mac(far)).replace(":", "")))
    with socket_in(far.ns, socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind((far.name, 0))

        def matched() -> int:
            """Send five datagrams in a tunnel: how many of them the filter matches."""
            before = count()
            with Sniffer(near.ns, near.name, MARKER) as sniffer:
                for _ in range(5):
                    sender.send(frame)
                assert len(sniffer.receive(5)) == 5
            return count() - before

        def count() -> int:
            found = json.loads(run(near.ns, shown).stdout)
            options = next(each["options"] for each in found if "actions" in str(each))
            return int(options["actions"][0]["stats"]["packets"])

        assert matched() == 0, "the kernel looks at the tunnel only"
        inside, outside = (dissectors(inside=inside).programs["dissect"] for inside in (1, 0))
        placed = links.attach(near.ns, "flow_dissector", inside)
        assert placed.link is not None
        with placed.link:
            assert matched() == 5
            links.update(near.ns, "flow_dissector", f"link:{placed.link_id}", outside)
            assert matched() == 0
            links.update(near.ns, "flow_dissector", f"link:{placed.link_id}", inside)
            assert matched() == 5
        assert matched() == 0, "detached, it is as before"
