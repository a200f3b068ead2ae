"""Running without traffic: what a test run says is what traffic does, and every refusal is told."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from netbpf import loader, netkit, tcx
from netbpf.bpf import chain_run, prog, test_run, uapi
from netbpf.bpf.prog import Program
from netbpf.bpf.test_run import SkbContext, XdpContext
from netbpf.errors import BpfError, NetbpfError, NotFoundError
from netbpf.netns import NetNS, entered
from tests.netns_fixtures import devices, programs
from tests.netns_fixtures.hooks import Site
from tests.netns_fixtures.namespaces import run
from tests.netns_fixtures.packets import UdpSink, send_udp

Load = Callable[..., Program]
CODES = range(8)
PAYLOAD_AT = 42


def mac(ns: NetNS, device: str) -> bytes:
    (found,) = json.loads(run(ns, ["ip", "-j", "link", "show", "dev", device]).stdout)
    return bytes.fromhex(found["address"].replace(":", ""))


def payload(code: int) -> bytes:
    return bytes([code]) + bytes(99)


def frame(site: Site, data: bytes) -> bytes:
    """A datagram to the receiver's port 9 as it passes the site's hook, made by hand."""
    ends = (site.sender, site.receiver)
    addresses = b"".join(bytes(map(int, end.address.split("."))) for end in ends)
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 28 + len(data), 1, 0, 64, 17, 0) + addresses
    total = sum(struct.unpack("!10H", ip))
    ip = ip[:10] + struct.pack("!H", 0xFFFF - total % 0xFFFF) + ip[12:]
    udp = struct.pack("!HHHH", 9999, 9, 8 + len(data), 0)
    ethernet = mac(site.receiver.ns, site.receiver.name) + mac(site.sender.ns, site.sender.name)
    return ethernet + b"\x08\x00" + ip + udp + data


@pytest.fixture
def chain(compiled: Callable[[str], Path]) -> Iterator[loader.Object]:
    """tests/bpf/run.c, loaded."""
    with loader.open(compiled("run")) as obj:
        obj.load()
        yield obj


def attach(site: Site, obj: loader.Object) -> None:
    for name in ("stamp", "judge", "seal"):
        site.attach(obj.programs[name], link=False)


def run_all(site: Site) -> list[chain_run.ChainResult]:
    with entered(site.ns), chain_run.opened(site.hooks, site.ifindex, site.hook) as runner:
        return [runner.run(frame(site, payload(code))) for code in CODES]


def test_a_run_says_what_traffic_does(site: Site, chain: loader.Object) -> None:
    attach(site, chain)
    results = run_all(site)
    said = [result.data_out[PAYLOAD_AT:] for result in results if result.passes]
    with UdpSink(site.receiver.ns, port=9) as sink:
        for code in CODES:
            send_udp(site.sender.ns, site.receiver.address, 9, payload(code))
        arrived = sink.receive(len(CODES), timeout=1.0)
    assert sorted(arrived) == sorted(said)

    words = [result.verdict for result in results]
    if site.noun == "tcx":
        assert words == ["next", "pass", "drop", "next", "next", "next", "next", "next"]
    else:
        assert words == ["pass", "pass", "drop", "drop", "drop", "drop", "drop", "pass"]
    assert [len(result.steps) for result in results] == [3, 2, 2, 2, 2, 2, 2, 3]
    judged = [result.steps[1].verdict for result in results]
    assert judged == ["next", "pass", "drop", "pipe", "stolen", "reclassify", "99", "next"]
    assert [result.steps[1].retval for result in results] == [-1, 0, 2, 3, 4, 1, 99, -1]
    for code, result in enumerate(results):
        assert result.context.mark == 1000 + code
        assert result.context.priority == 5
        assert result.context.cb[3] == 7 * code
        assert result.data_out[PAYLOAD_AT + 1] == 255 - code
        assert result.data_out[PAYLOAD_AT + 2] == (0x77 if len(result.steps) == 3 else 0)
    # Runs and traffic count alike.
    assert chain.get("stamped") == chain.get("judged") == 2 * len(CODES)
    assert chain.get("sealed") == 4


def test_the_packet_is_at_the_device_of_the_chain(site: Site, chain: loader.Object) -> None:
    attach(site, chain)
    run_all(site)
    said = (chain.get("ifindex"), chain.get("ingress_ifindex"))
    chain.set("ifindex", 0)
    assert site.arrived(1) == 1
    seen = chain.get("ifindex")
    if site.hook == "primary":
        # The peer is in another namespace, where a test run cannot be.
        assert (seen, said) == (site.receiver.ifindex, (1, 0))
        return
    assert (seen, said[0]) == (site.ifindex, site.ifindex)
    assert said[1] == (site.ifindex if site.hook == "ingress" else 0)


def test_the_chain_is_read_once_and_its_programs_are_held(site: Site, load: Load) -> None:
    with load(programs.DROP, "wall") as wall:
        site.attach(wall, link=False)
        with entered(site.ns), chain_run.opened(site.hooks, site.ifindex, site.hook) as runner:
            site.call("detach", wall)
            wall.close()
            assert site.ids() == []
            assert runner.run(bytes(60)).verdict == "drop"
            assert [info.name for info in runner.infos] == ["wall"]


def test_an_empty_chain(site: Site) -> None:
    with entered(site.ns), chain_run.opened(site.hooks, site.ifindex, site.hook) as runner:
        result = runner.run(bytes(60))
    assert result.verdict == ("next" if site.noun == "tcx" else "policy")
    assert (result.steps, result.data_out) == ((), bytes(60))
    room = tcx if site.noun == "tcx" else netkit
    with entered(site.ns), room.runner(site.ifindex, site.hook) as runner:
        assert runner.run(bytes(60)).verdict == ("next" if site.noun == "tcx" else "pass")


@pytest.mark.needs("tcx")
def test_a_program_that_went_while_the_chain_was_opened(
    ns: NetNS, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    went = [True, True]

    def from_id(number: int) -> Program:
        if went:
            went.pop()
            raise NotFoundError("program", f"with id {number}")
        return found(number)

    found = Program.from_id
    with devices.device(ns) as ifindex, entered(ns), load(programs.PASS) as one:
        tcx.attach(ifindex, "ingress", one, link=False)
        monkeypatch.setattr(Program, "from_id", from_id)
        with chain_run.opened(tcx.HOOKS, ifindex, "ingress") as runner:
            assert runner.run(bytes(60)).verdict == "pass"


def test_the_whole_context_comes_back(load: Load) -> None:
    given = SkbContext(
        mark=2**32 - 1,
        priority=7,
        ingress_ifindex=1,
        ifindex=1,
        cb=(1, 2, 3, 4, 2**32 - 1),
        tstamp=2**63,
        wire_len=100,
        gso_segs=3,
        hwtstamp=99,
    )
    result = load(programs.NEXT).test_run(bytes(60), context=given)
    assert result.context == given
    assert load(programs.NEXT).test_run(bytes(60)).context is None


def test_a_packet_that_grows_is_given_back_whole(chain: loader.Object) -> None:
    data = bytes(range(200))
    result = chain.programs["grow"].test_run(data)
    assert result.data_out == data + bytes(1000)


def test_repeat_runs_over_what_the_run_before_left(chain: loader.Object) -> None:
    result = chain.programs["grow"].test_run(bytes(60), repeat=3)
    assert len(result.data_out) == 3060


def test_xdp_context(chain: loader.Object, ns: NetNS) -> None:
    queue = chain.programs["queue"]
    assert queue.test_run(bytes(60)).retval == uapi.XDP_PASS
    result = queue.test_run(bytes(60), context=XdpContext(meta=8))
    assert (result.retval, result.context) == (uapi.XDP_REDIRECT, XdpContext(meta=8))
    with devices.device(ns) as ifindex, entered(ns):
        there = XdpContext(ingress_ifindex=ifindex)
        assert queue.test_run(bytes(60), context=there).retval == uapi.XDP_TX
        with pytest.raises(BpfError, match="no such rx queue"):
            queue.test_run(bytes(60), context=XdpContext(ifindex, rx_queue_index=4095))
    with pytest.raises(NotFoundError, match="ifindex 4095"):
        queue.test_run(bytes(60), context=XdpContext(4095))
    for context, words in (
        (XdpContext(rx_queue_index=1), "without ingress_ifindex"),
        (XdpContext(meta=3), "multiple of 4"),
        (XdpContext(meta=256), "more than the kernel takes"),
    ):
        with pytest.raises(BpfError, match=words):
            queue.test_run(bytes(400), context=context)


IPV4 = bytes(12) + b"\x08\x00"
IPV6 = bytes(12) + b"\x86\xdd"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "0 bytes is shorter than an Ethernet header"),
        (bytes(13), "13 bytes is shorter than an Ethernet header"),
        (IPV4 + bytes(19), "announces IPv4, and 33 bytes have no room"),
        (IPV6 + bytes(39), "announces IPv6, and 53 bytes have no room"),
        (bytes(80_000), "80000 bytes"),
        (bytes(1 << 21), "2097152 bytes is more than the kernel"),
    ],
)
def test_packets_that_are_not_taken(load: Load, data: bytes, words: str) -> None:
    with pytest.raises(BpfError, match=words) as caught:
        load(programs.NEXT, "name").test_run(data)
    assert caught.value.code == "unfit_packet"
    assert caught.value.operation == "run program name"


@pytest.mark.parametrize("data", [bytes(14), IPV4 + bytes(20), IPV6 + bytes(40), bytes(3600)])
def test_packets_that_are(load: Load, data: bytes) -> None:
    assert load(programs.NEXT).test_run(data).data_out == data


@pytest.mark.parametrize(
    ("context", "words"),
    [
        (SkbContext(ifindex=4095), "no device ifindex 4095 in this network namespace"),
        (SkbContext(wire_len=59), "wire_len 59 is less than the packet's 60 bytes"),
        (SkbContext(wire_len=70_000), "more than 64 KiB"),
        (SkbContext(gso_segs=70_000), "more than 65535"),
        (XdpContext(), "sched_cls have another context than XdpContext"),
    ],
)
def test_contexts_that_are_not_taken(load: Load, context: test_run.Context, words: str) -> None:
    with pytest.raises(NetbpfError, match=words):
        load(programs.NEXT).test_run(bytes(60), context=context)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("kprobe", "of type kprobe are not run over a packet"),
        ("raw_tracepoint", "of type raw_tracepoint are not run over a packet"),
        ("sock_ops", "of type sock_ops are not run over a packet"),
    ],
)
def test_types_that_are_not_run(name: str, words: str) -> None:
    number = getattr(uapi, f"BPF_PROG_TYPE_{name.upper()}")
    with prog.load(number, programs.returning(1)) as program:
        with pytest.raises(BpfError, match=words) as caught:
            program.test_run(bytes(60))
        assert caught.value.code == "wrong_program_type"


@pytest.mark.parametrize(
    "name", ["sched_act", "socket_filter", "cgroup_skb", "lwt_in", "lwt_out", "lwt_xmit"]
)
def test_other_types_that_are(name: str) -> None:
    number = getattr(uapi, f"BPF_PROG_TYPE_{name.upper()}")
    with prog.load(number, programs.returning(0)) as program:
        result = program.test_run(bytes(60), context=SkbContext())
        assert (result.retval, len(result.data_out)) == (0, 60)
        assert isinstance(result.context, SkbContext)


def test_a_callers_mistakes(load: Load) -> None:
    one = load(programs.NEXT)
    for error, call in (
        (TypeError, lambda: one.test_run("60 bytes")),  # type: ignore[arg-type]
        (ValueError, lambda: one.test_run(bytes(60), repeat=0)),
        (ValueError, lambda: one.test_run(bytes(60), repeat=2**32)),
        (ValueError, lambda: SkbContext(mark=-1)),
        (ValueError, lambda: SkbContext(mark=2**32)),
        (TypeError, lambda: SkbContext(mark="1")),  # type: ignore[arg-type]
        (ValueError, lambda: SkbContext(cb=(1, 2))),  # type: ignore[arg-type]
    ):
        with pytest.raises(error):
            call()


def test_words_for_verdicts() -> None:
    assert test_run.verdict(uapi.BPF_PROG_TYPE_XDP, 3) == "tx"
    assert test_run.verdict(uapi.BPF_PROG_TYPE_XDP, 9) == "9"
    assert test_run.verdict(uapi.BPF_PROG_TYPE_SCHED_CLS, 8) == "trap"
    assert test_run.verdict(uapi.BPF_PROG_TYPE_SOCKET_FILTER, 0) == "0"
