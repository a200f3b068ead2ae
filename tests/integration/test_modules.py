"""What kernel modules have for programs: functions, types, and places to be attached to."""

from __future__ import annotations

import errno
import re
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from netbpf import loader
from netbpf.bpf import link_create, syscall, uapi
from netbpf.bpf.fd import FD
from netbpf.bpf.prog import Program
from netbpf.errors import ObjectFileError
from netbpf.loader.object import Object
from netbpf.netns import NetNS, entered
from netbpf.plumbing import attach as attaching
from tests.netns_fixtures import devices, namespaces, packets, programs
from tests.netns_fixtures.cli import netbpf
from tests.netns_fixtures.objects import build

FRAME = bytes.fromhex("020000000002 020000000001 0800") + bytes(50)
TUPLE = struct.Struct("!4s4sHH")
PORT = 4711
CONFIRMED, SEEN_REPLY = 1 << 3, 1 << 1


def source(*flags: str) -> Path:
    return build(
        (programs.SOURCES / "modules.c").read_text(),
        *(f"-D{flag}" for flag in flags),
        name="modules",
        head="",
    )


@pytest.fixture
def tracked() -> Iterator[tuple[devices.End, devices.End]]:
    """Two ends; what comes in at the second is tracked there, by the action of tc."""
    with ExitStack() as stack:
        one, other = stack.enter_context(namespaces.namespaces(2))
        ends = stack.enter_context(devices.veth_pair(one, other))
        for words in (
            "qdisc add dev veth-b clsact",
            "filter add dev veth-b ingress protocol ip matchall action ct commit",
        ):
            namespaces.run(other, ["tc", *words.split()])
        yield ends


def table(ns: NetNS) -> str:
    """The connections of a namespace, as the module itself tells them."""
    with entered(ns):
        return Path("/proc/thread-self/net/nf_conntrack").read_text()


def send(ends: tuple[devices.End, devices.End], count: int = 1) -> int:
    """Send datagrams to the second end, where they arrive; the port that they come from."""
    one, other = ends
    with (
        packets.socket_in(other.ns, socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        packets.socket_in(one.ns, socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        receiver.bind((other.address, PORT))
        receiver.settimeout(10)
        sender.bind((one.address, 0))
        for _ in range(count):
            sender.sendto(b"netbpf", (other.address, PORT))
        for _ in range(count):
            receiver.recv(64)
        port: int = sender.getsockname()[1]
        return port


def wanted(obj: Object, source: str, destination: str, port: int) -> None:
    """Let the programs want a connection."""
    raw = TUPLE.pack(socket.inet_aton(source), socket.inet_aton(destination), port, PORT)
    at = next(g.offset for g in obj.spec.globals() if g.name == "tuple")
    obj.write_data("modules.bss", at, raw)


@pytest.mark.needs("act-ct")
@pytest.mark.parametrize("name", ["looks_up", "looks_up_early"])
def test_a_connection_is_found(name: str, tracked: tuple[devices.End, devices.End]) -> None:
    port = send(tracked)
    one, other = tracked
    listed = table(other.ns)
    assert re.search(rf"src={one.address} dst={other.address} sport={port} dport={PORT} ", listed)
    with loader.open(source("LOOKUP")) as obj:
        obj.load()
        program = obj.programs[name]
        wanted(obj, one.address, other.address, port)
        with entered(other.ns):
            assert program.test_run(FRAME).retval == 1
        assert obj.get("status") & (CONFIRMED | SEEN_REPLY) == CONFIRMED
        assert "[UNREPLIED]" in listed
        wanted(obj, one.address, other.address, port ^ 1)
        with entered(other.ns):
            assert program.test_run(FRAME).retval == 0
        assert obj.get("error") == -errno.ENOENT
        # It is the other namespace's.
        wanted(obj, one.address, other.address, port)
        with entered(one.ns):
            assert program.test_run(FRAME).retval == 0


@pytest.mark.needs("act-ct", "xfrm-interface")
def test_functions_of_two_modules_in_one_program(bpffs: Path) -> None:
    file = source("ALLOC")
    with namespaces.namespace() as ns, loader.open(file) as obj:
        obj.load()
        wanted(obj, "10.99.0.1", "10.99.0.2", 5555)
        with entered(ns):
            assert obj.programs["makes"].test_run(FRAME).retval == 1, obj.get("error")
        assert re.search(rf"src=10.99.0.1 dst=10.99.0.2 sport=5555 dport={PORT} ", table(ns))
        # The other module has seen that the packet came in by no such interface.
        assert obj.get("status") == -errno.EINVAL
        subprocess.run(["bpftool", "prog", "load", file, bpffs / "peer"], check=True)
        with Program.from_pin(str(bpffs / "peer")) as peer:
            assert peer.info().tag == obj.programs["makes"].info().tag


@pytest.mark.needs("act-ct")
def test_types_that_only_a_module_has() -> None:
    shown = netbpf("btf", "show", "struct bpf_ct_opts")
    assert shown.status == 1, "the kernel itself has it not"
    with loader.open(source("TYPES")) as obj:
        obj.load()
        assert obj.programs["measures"].test_run(FRAME).retval == 1
        assert obj.get("offset") == 8
        assert obj.get("size") >= 12


@pytest.mark.needs("act-ct", "fentry", "kprobe")
def test_functions_of_a_module_are_seen_entered_and_left(
    tracked: tuple[devices.End, devices.End],
) -> None:
    send(tracked)
    other = tracked[1].ns
    with loader.open(source("FUNCTIONS")) as obj:
        obj.set("namespace", other.inode)
        obj.load()
        for name in ("on_entry", "on_exit"):
            info = syscall.obj_get_info(obj.programs[name].fileno(), uapi.ProgInfo())
            shown = subprocess.run(
                ["bpftool", "btf", "show", "id", str(info.attach_btf_obj_id)],
                check=True,
                capture_output=True,
                text=True,
            )
            assert "name [nf_conntrack]" in shown.stdout
        with (
            FD(link_create.raw_tracepoint(obj.programs["on_entry"].fileno(), None)),
            FD(link_create.raw_tracepoint(obj.programs["on_exit"].fileno(), None)),
            attaching.attach(obj.spec.program("on_probe"), obj.programs["on_probe"]),
        ):
            send(tracked, 5)
        send(tracked, 3)
        assert (obj.get("entered"), obj.get("left")) == (5, 5)
        assert obj.get("probed") >= 5


@pytest.fixture
def interfaces() -> Iterator[None]:
    """The module xfrm_interface is not there; afterwards as it was."""
    there = Path("/sys/module/xfrm_interface").exists()
    subprocess.run(["modprobe", "-r", "xfrm_interface"], check=True)
    yield
    subprocess.run(["modprobe", *([] if there else ["-r"]), "xfrm_interface"], check=True)


@pytest.mark.needs("xfrm-interface")
def test_a_weak_function_comes_with_its_module(interfaces: None) -> None:
    file = source("WEAK")
    for loaded, result in ((False, 77), (True, 1), (False, 77)):
        subprocess.run(["modprobe", *([] if loaded else ["-r"]), "xfrm_interface"], check=True)
        with loader.open(file) as obj:
            obj.load()
            assert obj.programs["asks"].test_run(FRAME).retval == result


@pytest.mark.needs("xfrm-interface")
def test_a_function_whose_module_is_not_loaded_is_named(interfaces: None) -> None:
    file = source("STRONG")
    with loader.open(file) as obj, pytest.raises(ObjectFileError) as caught:
        obj.load()
    assert "program asks: bpf_skb_get_xfrm_info is no function that" in str(caught.value)
    assert "modprobe" in str(caught.value)
    subprocess.run(["modprobe", "xfrm_interface"], check=True)
    with loader.open(file) as obj:
        obj.load()


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("netbpf_none:vfs_read", "module netbpf_none is not loaded, or tells of no types"),
        ("xfrmi_no_such_function", "this kernel has no function xfrmi_no_such_function"),
    ],
)
def test_a_target_whose_module_is_not_loaded(target: str, message: str) -> None:
    text = f"""
    SEC("fentry/{target}") int p(unsigned long long *ctx) {{ return 0; }}
    char _license[] SEC("license") = "GPL";
    """
    with loader.open(build(text)) as obj, pytest.raises(ObjectFileError, match=message) as caught:
        obj.load()
    assert "modprobe" in str(caught.value)
