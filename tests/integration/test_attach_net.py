"""Programs of every networking type at their places: packets and sockets tell whether they run."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from netbpf import loader, tcx
from netbpf import netkit as netkits
from netbpf.bpf import syscall, uapi
from netbpf.errors import BpfError, NetbpfError
from netbpf.loader import Object
from netbpf.netns import NetNS, entered
from netbpf.plumbing import attach as attaching
from netbpf.plumbing.attachment import Attachment
from tests.netns_fixtures import packets
from tests.netns_fixtures.cgroups import inside
from tests.netns_fixtures.devices import End
from tests.netns_fixtures.objects import build

Pair = tuple[End, End]


@contextmanager
def loaded(source: str) -> Iterator[Object]:
    with loader.open(build(source)) as obj:
        obj.load()
        yield obj


def attach(obj: Object, name: str, **where: Any) -> Attachment:
    return attaching.attach(obj.spec.program(name), obj.programs[name], **where)


def bpftool(*args: object) -> Any:
    done = subprocess.run(
        ["bpftool", "-j", *map(str, args)], check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout)


def link_of(attachment: Attachment) -> dict[str, Any]:
    assert attachment.link is not None
    found: dict[str, Any] = bpftool("link", "show", "id", attachment.link.id)
    return found


def reaches(veth: Pair) -> bool:
    return packets.ping(veth[1].ns, veth[0].address, timeout=0.3) == 1


def soon(veth: Pair) -> bool:
    """Whether packets pass again: who was not answered asks anew for the address first."""
    return any(reaches(veth) for _ in range(5))


@pytest.mark.parametrize("section", ["tc/ingress", "tcx/ingress", "tc", "classifier"])
@pytest.mark.needs("tcx")
def test_tcx(section: str, veth: Pair) -> None:
    hook = {} if "/" in section else {"hook": "ingress"}
    with loaded(f'SEC("{section}") int p(void *c) {{ return 2; }}') as obj, entered(veth[0].ns):
        with attach(obj, "p", ifindex=veth[0].ifindex, **hook) as made:
            (entry,) = tcx.chain(veth[0].ifindex, "ingress").entries
            assert entry.prog_id == link_of(made)["prog_id"] == obj.programs["p"].id
            assert not reaches(veth)
        assert soon(veth)


@pytest.mark.needs("netkit")
@pytest.mark.parametrize("section", ["netkit/primary", "tc"])
def test_netkit(section: str, netkit: Pair) -> None:
    hook = {} if "/" in section else {"hook": "primary"}
    with loaded(f'SEC("{section}") int p(void *c) {{ return 2; }}') as obj, entered(netkit[0].ns):
        with attach(obj, "p", ifindex=netkit[0].ifindex, **hook) as made:
            (entry,) = netkits.chain(netkit[0].ifindex, "primary").entries
            assert entry.prog_id == link_of(made)["prog_id"] == obj.programs["p"].id
            assert not reaches(netkit)
        assert soon(netkit)


@pytest.mark.parametrize(("mode", "seen"), [(None, 1), ("native", 1), ("generic", 2)])
def test_xdp(mode: str | None, seen: int, veth: Pair) -> None:
    with loaded('SEC("xdp") int p(void *c) { return XDP_DROP; }') as obj, entered(veth[0].ns):
        with attach(obj, "p", ifindex=veth[0].ifindex, mode=mode) as made:
            command = ["ip", "-j", "-n", str(veth[0].ns.name), "link", "show", veth[0].name]
            (shown,) = json.loads(subprocess.check_output(command))
            assert (shown["xdp"]["mode"], shown["xdp"]["prog"]["id"]) == (
                seen,
                obj.programs["p"].info().id,
            )
            assert not reaches(veth)
            with pytest.raises(BpfError, match="EBUSY"):
                attach(obj, "p", ifindex=veth[0].ifindex, mode=mode)
            assert made.link is not None
        assert soon(veth)


def test_xdp_refusals(veth: Pair) -> None:
    source = 'SEC("xdp") int p(void *c) { return 2; } SEC("xdp/devmap") int d(void *c) { return 2;}'
    with loaded(source) as obj, entered(veth[0].ns):
        with pytest.raises(BpfError, match="no such device"):
            attach(obj, "p", ifindex=2**31 - 1)
        with pytest.raises(BpfError, match=r"offload|EINVAL|EOPNOTSUPP"):
            attach(obj, "p", ifindex=veth[0].ifindex, mode="offload")
        with pytest.raises(ValueError, match="no mode fast"):
            attach(obj, "p", ifindex=1, mode="fast")
        with pytest.raises(ValueError, match="ifindex"):
            attach(obj, "p")
        with pytest.raises(NetbpfError, match="devmap"):
            attach(obj, "d", ifindex=veth[0].ifindex)


DISSECTOR = """
__u64 dissected;
SEC("flow_dissector") int dissect(void *c) { dissected++; return 129; }
SEC("tc") int hash(struct __sk_buff *skb) { bpf_get_hash_recalc(skb); return 0; }
"""


@pytest.mark.needs("tcx")
@pytest.mark.parametrize("named", [True, False])
def test_flow_dissector(named: bool, veth: Pair) -> None:
    with loaded(DISSECTOR) as obj, entered(veth[0].ns):
        there = {"netns": veth[0].ns} if named else {}
        with attach(obj, "hash", ifindex=veth[0].ifindex, hook="ingress"):
            assert (reaches(veth), obj.get("dissected")) == (True, 0)
            with attach(obj, "dissect", **there) as made:
                assert soon(veth)
                before = obj.get("dissected")
                assert before > 0
                assert link_of(made)["netns_ino"] == os.stat("/proc/thread-self/ns/net").st_ino
                with pytest.raises(BpfError, match=r"E2BIG|EEXIST"):
                    attach(obj, "dissect", **there)
            assert soon(veth)
            assert obj.get("dissected") == before


def connects(ns: NetNS, port: int) -> bool:
    with packets.socket_in(ns, socket.AF_INET, socket.SOCK_STREAM) as trying:
        trying.settimeout(1)
        try:
            trying.connect(("127.0.0.1", port))
        except ConnectionRefusedError:
            return False
    return True


def up(ns: NetNS) -> None:
    subprocess.run(["ip", "-n", str(ns.name), "link", "set", "lo", "up"], check=True)


def test_sk_lookup(ns: NetNS) -> None:
    up(ns)
    source = 'SEC("sk_lookup") int p(struct bpf_sk_lookup *c) { return c->local_port != 7007; }'
    with loaded(source) as obj, packets.socket_in(ns, socket.AF_INET, socket.SOCK_STREAM) as server:
        server.bind(("127.0.0.1", 7007))
        server.listen()
        assert connects(ns, 7007)
        with attach(obj, "p", netns=ns) as made:
            assert link_of(made)["attach_type"] == "sk_lookup"
            assert not connects(ns, 7007)
        assert connects(ns, 7007)


UDP = "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)"
SEND = f"{UDP}; s.sendto(b'x', ('127.0.0.1', 9))"
CONNECT = f"{UDP}; s.connect(('127.0.0.1', 9))"
CGROUPS = [
    ("cgroup_skb/egress", SEND, "1"),
    ("cgroup/skb", SEND, "1"),
    ("cgroup/sock_create", UDP, "1"),
    ("cgroup/sock", UDP, "1"),
    ("cgroup/post_bind4", f"{UDP}; s.bind(('127.0.0.1', 0))", "1"),
    ("cgroup/bind4", f"{UDP}; s.bind(('127.0.0.1', 0))", "1"),
    ("cgroup/connect4", CONNECT, "1"),
    ("cgroup/sendmsg4", SEND, "1"),
    ("cgroup/connect_unix", "socket.socket(socket.AF_UNIX).connect('\\0none')", "1"),
    ("cgroup/sysctl", "open('/proc/sys/net/ipv4/ip_forward').read()", "1"),
    ("cgroup/dev", "open('/dev/null')", "1"),
    ("cgroup/setsockopt", f"{UDP}; s.setsockopt(0, 1, 0)", "1"),
    ("cgroup/getsockopt", f"{UDP}; s.getsockopt(0, 1)", "1"),
]


@pytest.mark.parametrize(("section", "code", "refused"), CGROUPS, ids=[c[0] for c in CGROUPS])
def test_cgroup(section: str, code: str, refused: str, cgroup: Path) -> None:
    hook = {"hook": "egress"} if section == "cgroup/skb" else {}
    without = inside(cgroup, code)
    assert without != refused
    with loaded(f'SEC("{section}") int p(void *c) {{ return 0; }}') as obj:
        with attach(obj, "p", cgroup=str(cgroup), **hook) as made:
            assert inside(cgroup, code) == refused
            assert link_of(made)["cgroup_id"] == cgroup.stat().st_ino
        assert inside(cgroup, code) == without
        folder = os.open(cgroup, os.O_RDONLY)
        try:
            with attach(obj, "p", cgroup=folder, **hook):
                assert inside(cgroup, code) == refused
        finally:
            os.close(folder)


def test_sockops(cgroup: Path) -> None:
    source = '__u64 met; SEC("sockops") int p(void *c) { met++; return 1; }'
    code = "socket.create_connection(socket.create_server(('127.0.0.1', 0)).getsockname())"
    code = f"l = socket.create_server(('127.0.0.1', 0)); {code.replace(code, '')}"
    code += "socket.create_connection(l.getsockname())"
    with loaded(source) as obj:
        with attach(obj, "p", cgroup=str(cgroup)):
            assert inside(cgroup, code) == "done"
            met = obj.get("met")
            assert met > 0
        assert inside(cgroup, code) == "done"
        assert obj.get("met") == met


def test_cgroup_refusals(cgroup: Path, tmp_path: Path) -> None:
    with loaded('SEC("cgroup/connect4") int p(void *c) { return 1; }') as obj:
        with pytest.raises(BpfError, match="no folder of cgroup2"):
            attach(obj, "p", cgroup=str(tmp_path))
        with pytest.raises(BpfError, match="ENOENT"):
            attach(obj, "p", cgroup=str(cgroup / "none"))
        with pytest.raises(ValueError, match="say cgroup"):
            attach(obj, "p")
        with pytest.raises(ValueError, match="ifindex says nothing"):
            attach(obj, "p", cgroup=str(cgroup), ifindex=1)


SOCKMAP = """
struct {
    __uint(type, BPF_MAP_TYPE_SOCKMAP);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u64);
} socks SEC(".maps");
SEC("sk_msg") int msg(void *c) { return SK_DROP; }
SEC("sk_skb/verdict") int skb(void *c) { return SK_DROP; }
SEC("sk_skb") int plain(void *c) { return SK_DROP; }
"""


@contextmanager
def connected(ns: NetNS) -> Iterator[tuple[socket.socket, socket.socket]]:
    up(ns)
    with packets.socket_in(ns, socket.AF_INET, socket.SOCK_STREAM) as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        with packets.socket_in(ns, socket.AF_INET, socket.SOCK_STREAM) as client:
            client.connect(server.getsockname())
            other, _ = server.accept()
            with other:
                client.settimeout(0.3)
                other.settimeout(0.3)
                yield client, other


@pytest.mark.parametrize("link", [True, False])
@pytest.mark.parametrize(
    ("name", "where"), [("msg", {}), ("skb", {}), ("plain", {"hook": "verdict"})]
)
def test_sockmap(
    name: str, where: dict[str, str], link: bool, ns: NetNS, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not link:
        # As before Linux 6.10: the attach is that of the program itself.
        def refused(attr: object) -> int:
            raise OSError(22, "Invalid argument")

        monkeypatch.setattr(syscall, "link_create", refused)
    with loaded(SOCKMAP) as obj, connected(ns) as (client, other):
        socks = obj.maps["socks"]
        made = attach(obj, name, map=socks, **where)
        assert (made.link is not None) == link
        with made:
            key, value = bytes(4), client.fileno().to_bytes(8, sys.byteorder)
            if name == "msg":
                socks.update(key, value)
                with pytest.raises(PermissionError):
                    client.send(b"x")
            else:
                socks.update(key, other.fileno().to_bytes(8, sys.byteorder))
                client.send(b"x")
                with pytest.raises(TimeoutError):
                    other.recv(1)
            socks.delete(key)
        with connected(ns) as (client, other):
            socks.update(key, client.fileno().to_bytes(8, sys.byteorder))
            client.send(b"y")
            assert other.recv(1) == b"y"


def test_sockmap_refusals() -> None:
    with loaded(SOCKMAP) as obj, loaded(DISSECTOR) as others:
        with pytest.raises(ValueError, match="the sockmap"):
            attach(obj, "msg")
        with pytest.raises(ValueError, match="stream_parser, stream_verdict, verdict"):
            attach(obj, "plain", map=obj.maps["socks"])
        with pytest.raises(BpfError, match="it is no sockmap"):
            attach(obj, "msg", map=next(iter(others.maps.values())))


@pytest.mark.parametrize(("family", "hook"), [("ipv4", "input"), ("ipv4", "prerouting")])
def test_netfilter(family: str, hook: str, veth: Pair) -> None:
    source = 'SEC("netfilter") int p(void *c) { return 0; }'
    with loaded(source) as obj, entered(veth[0].ns):
        with attach(obj, "p", family=family, hook=hook, priority=-5) as made:
            assert made.link is not None
            assert made.link.info().type_name == "netfilter"
            assert not reaches(veth)
            with pytest.raises(BpfError, match=r"EBUSY|EEXIST"):
                attach(obj, "p", family=family, hook=hook, priority=-5)
        assert soon(veth)
        with pytest.raises(ValueError, match="family"):
            attach(obj, "p", hook=hook, priority=0)
        with pytest.raises(BpfError, match=r"ERANGE|EINVAL"):
            attach(obj, "p", family=family, hook=hook, priority=-(2**31))
        with pytest.raises(ValueError, match="32 bits"):
            attach(obj, "p", family=family, hook=hook, priority=2**31)


def test_socket_filter(ns: NetNS) -> None:
    up(ns)
    with (
        loaded('SEC("socket") int p(void *c) { return 0; }') as obj,
        packets.socket_in(ns, socket.AF_INET, socket.SOCK_DGRAM) as listening,
        packets.socket_in(ns, socket.AF_INET, socket.SOCK_DGRAM) as sending,
    ):
        listening.bind(("127.0.0.1", 0))
        listening.settimeout(0.3)
        with attach(obj, "p", socket=listening.fileno()):
            sending.sendto(b"x", listening.getsockname())
            with pytest.raises(TimeoutError):
                listening.recv(1)
        sending.sendto(b"y", listening.getsockname())
        assert listening.recv(1) == b"y"


def test_sk_reuseport(ns: NetNS) -> None:
    up(ns)
    source = 'SEC("sk_reuseport") int p(void *c) { return SK_DROP; }'
    with (
        loaded(source) as obj,
        packets.socket_in(ns, socket.AF_INET, socket.SOCK_DGRAM) as listening,
        packets.socket_in(ns, socket.AF_INET, socket.SOCK_DGRAM) as sending,
    ):
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind(("127.0.0.1", 0))
        listening.settimeout(0.3)
        with attach(obj, "p", socket=listening.fileno()):
            with suppress(ConnectionRefusedError):
                sending.sendto(b"x", listening.getsockname())
            with pytest.raises(TimeoutError):
                listening.recv(1)
        with pytest.raises(ValueError, match="say socket"):
            attach(obj, "p")
        with suppress(ConnectionRefusedError):
            sending.sendto(b"y", listening.getsockname())
        sending.sendto(b"y", listening.getsockname())
        assert listening.recv(1) == b"y"


@pytest.mark.parametrize("hook", ["stream_parser", "stream_verdict"])
def test_sk_skb_of_a_stream(hook: str, ns: NetNS) -> None:
    with loaded(SOCKMAP) as obj, connected(ns) as (client, other):
        socks = obj.maps["socks"]
        with attach(obj, "plain", map=socks, hook=hook) as made:
            assert made.link is not None
            info = uapi.LinkInfo()
            syscall.obj_get_info(made.link.fileno(), info)
            assert uapi.ATTACH_TYPE_NAMES[info.sockmap.attach_type] == f"sk_skb_{hook}"
            assert info.sockmap.map_id == socks.id
            if hook == "stream_verdict":
                socks.update(bytes(4), other.fileno().to_bytes(8, sys.byteorder))
                client.send(b"x")
                with pytest.raises(TimeoutError):
                    other.recv(1)


def test_lwt_is_refused_with_the_line_that_works(veth: Pair, bpffs: Path) -> None:
    source = 'SEC("lwt_out") int p(void *c) { return 2; }'
    with loaded(source) as obj:
        with pytest.raises(NetbpfError, match="by a route") as refusal:
            attach(obj, "p")
        obj.programs["p"].pin(str(bpffs / "p"))
    assert refusal.value.hint is not None
    line = refusal.value.hint.partition("then: ")[2]
    assert soon((veth[1], veth[0]))
    line = line.replace("PREFIX", f"{veth[1].address}/32").replace("DEV", veth[0].name)
    words = line.replace("PIN", str(bpffs / "p")).split()
    subprocess.run([words[0], "-n", str(veth[0].ns.name), *words[1:]], check=True)
    assert not reaches((veth[1], veth[0]))


@pytest.mark.parametrize(
    ("section", "words"),
    [("action", "sched_act"), ("perf_event", "perf_event"), ("syscall", "syscall")],
)
def test_types_that_have_no_place_are_refused_by_name(section: str, words: str) -> None:
    with (
        loaded(f'SEC("{section}") int p(void *c) {{ return 0; }}') as obj,
        pytest.raises(NetbpfError, match=words),
    ):
        attach(obj, "p")


def test_a_pinned_attachment_stays_when_it_is_closed(veth: Pair, bpffs: Path) -> None:
    with loaded('SEC("xdp") int p(void *c) { return XDP_DROP; }') as obj, entered(veth[0].ns):
        with attach(obj, "p", ifindex=veth[0].ifindex) as made:
            made.pin(str(bpffs / "link"))
        assert not reaches(veth)
        (bpffs / "link").unlink()
        # The kernel lets go of what a pin held a moment later (kernel/bpf/syscall.c: bpf_link_put).
        assert any(reaches(veth) for _ in range(20))


def test_every_section_has_an_answer() -> None:
    from netbpf.elf import sections

    for name in sections.names():
        base = name.removesuffix("+")
        for section in (base, f"{base}/x") if name.endswith("+") else (base,):
            says = sections.meaning(section)
            known = says.attach in attaching._BY_SECTION or says.type in attaching._BY_TYPE
            assert known or says.type in {
                uapi.BPF_PROG_TYPE_SCHED_ACT,
                uapi.BPF_PROG_TYPE_SYSCALL,
                uapi.BPF_PROG_TYPE_PERF_EVENT,
                uapi.BPF_PROG_TYPE_LIRC_MODE2,
                # Registered with their map: attach_struct_ops.
                uapi.BPF_PROG_TYPE_STRUCT_OPS,
            }, section
            assert says.attach == "" or says.attach in attaching._BY_SECTION, section
