"""Structs of the kernel that are made of programs: loaded, filled and registered."""

from __future__ import annotations

import re
import socket
import struct
import subprocess
from pathlib import Path

import pytest

from netbpf import loader
from netbpf.bpf import link_create
from netbpf.bpf.fd import FD
from netbpf.bpf.prog import Program
from netbpf.btf import types as t
from netbpf.errors import BpfError, ObjectFileError
from netbpf.loader import kernel_types
from netbpf.plumbing import attach
from tests.netns_fixtures import programs
from tests.netns_fixtures.objects import build

AVAILABLE = Path("/proc/sys/net/ipv4/tcp_available_congestion_control")
PROGRAMS = ["my_cong_avoid", "my_ssthresh", "my_undo_cwnd"]


def source(*flags: str, section: str = ".struct_ops.link") -> Path:
    text = (programs.SOURCES / "struct_ops.c").read_text()
    return build(text, f'-DONE="{section}"', *flags, name="struct_ops", head="")


def known(name: str) -> bool:
    return name in AVAILABLE.read_text().split()


def member(name: str) -> t.Member:
    """A member of the kernel's struct, looked up in its types."""
    types = kernel_types.running()
    type_id = types.main.find("tcp_congestion_ops", t.KIND_STRUCT)
    assert type_id is not None
    found = types.btf.type(type_id)
    assert isinstance(found, t.Struct)
    return next(m for m in found.members if m.name == name)


def test_programs_are_those_of_libbpf(bpffs: Path) -> None:
    file = source("-DONLY", section=".struct_ops")
    subprocess.run(["bpftool", "prog", "loadall", file, bpffs / "peer"], check=True)
    with loader.open(file) as obj:
        obj.load()
        assert sorted(obj.programs) == PROGRAMS
        for name, program in obj.programs.items():
            with Program.from_pin(str(bpffs / "peer" / name)) as peer:
                assert program.info().tag == peer.info().tag, name
                assert program.info().type_name == "struct_ops"
        assert not known("nb_mine"), "without a link nothing is registered by loading"


def test_the_value_has_what_the_kernel_wants() -> None:
    with loader.open(source("-DONLY")) as obj:
        obj.load()
        value = obj.struct_value("mine")
        assert len(value) == obj.maps["mine"].info().value_size
        # The kernel's struct lies behind a head of its own, aligned to a cache line.
        start = value.index(b"nb_mine\0") - member("name").offset
        assert start % 64 == 0
        for name, program in (("ssthresh", "my_ssthresh"), ("cong_avoid", "my_cong_avoid")):
            (fd,) = struct.unpack_from("=Q", value, start + member(name).offset)
            assert fd == obj.programs[program].fileno()


def test_registered_by_a_link_and_used() -> None:
    with loader.open(source()) as obj:
        obj.load()
        assert sorted(obj.programs) == PROGRAMS
        assert sorted(obj.maps) == ["mine", "newer"]
        assert not known("nb_mine") and not known("nb_newer")
        for name in ("mine", "newer"):
            with FD(link_create.struct_ops(obj.maps[name].fileno())):
                assert known(f"nb_{name}")
                with socket.socket() as sock:
                    sock.setsockopt(socket.SOL_TCP, socket.TCP_CONGESTION, f"nb_{name}".encode())
        assert not known("nb_mine") and not known("nb_newer")


@pytest.mark.parametrize("section", [".struct_ops", ".struct_ops.link"])
def test_registered_with_all_that_says_where(section: str) -> None:
    with loader.open(source("-DONLY", section=section)) as obj:
        obj.load()
        with attach.attach_all(obj) as made:
            assert list(made) == ["mine"]
            # Without a link the map stands for it, and cannot be pinned to that end.
            assert (made["mine"].link is None) == (section == ".struct_ops")
            assert known("nb_mine")
            with socket.socket() as sock:
                sock.setsockopt(socket.SOL_TCP, socket.TCP_CONGESTION, b"nb_mine")
        assert not known("nb_mine")
        if section == ".struct_ops":
            with pytest.raises(BpfError, match="registered before, which it can be once"):
                attach.attach_all(obj)
            return
        with attach.attach_all(obj):
            assert known("nb_mine")
    assert not known("nb_mine")


def test_a_name_that_is_registered_already() -> None:
    file = source("-DONLY", section=".struct_ops")
    with loader.open(file) as one, loader.open(file) as other:
        one.load()
        other.load()
        with attach.attach_all(one):
            with pytest.raises(BpfError, match=r"register mine \(tcp_congestion_ops\): .*EEXIST"):
                attach.attach_all(other)
            assert known("nb_mine")
        with attach.attach_all(other):
            assert known("nb_mine")


def test_one_that_is_optional() -> None:
    with loader.open(source()) as obj:
        obj.load(only=["lonely"])
        # A struct is made whole, with all that it is made of; what else these make comes along.
        assert {"lonely", "my_cong_avoid", "my_undo_cwnd"} <= set(obj.programs)
        assert "optional" in obj.maps


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("-DTOO_NEW", "has no member no_such_value, which the value there is for"),
        ("-DNO_PLACE", "has no member no_such_member, which program unknown is for"),
    ],
)
def test_what_the_kernel_has_no_place_for(flag: str, message: str, bpffs: Path) -> None:
    before = set(Program.ids())
    file = source(flag)
    with (
        loader.open(file) as obj,
        pytest.raises(ObjectFileError, match=f"newer: struct tcp_congestion_ops .* {message}"),
    ):
        obj.load()
    assert not set(Program.ids()) - before
    peer = subprocess.run(["bpftool", "prog", "loadall", file, bpffs / "p"], capture_output=True)
    assert peer.returncode, "libbpf refuses it too"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("struct netbpf_ops { int (*one)(void); };", "this kernel has no struct netbpf_ops"),
        ("struct file { int (*one)(void); };", "struct file of this kernel cannot be made of"),
        (
            "struct tcp_congestion_ops { int (*ssthresh)(void); char name[8]; };",
            "member name has 8 bytes, and 16 in this kernel",
        ),
        (
            "struct tcp_congestion_ops { int (*ssthresh)(void); int name; };",
            "member name is of another kind in this kernel",
        ),
        (
            "struct tcp_congestion_ops { int (*owner)(void); };",
            "member owner is no function in this kernel",
        ),
    ],
)
def test_structs_that_do_not_fit(text: str, message: str) -> None:
    name = text.split()[1]
    member = re.search(r"\(\*(\w+)\)", text)
    assert member is not None
    text += f"""
    SEC("struct_ops") int program(unsigned long long *ctx) {{ return 0; }}
    SEC(".struct_ops.link") struct {name} made = {{ .{member[1]} = (void *)program }};
    char _license[] SEC("license") = "GPL";
    """
    with loader.open(build(text)) as obj, pytest.raises(ObjectFileError, match=message):
        obj.load()


def test_a_program_that_is_in_no_struct() -> None:
    text = """
    SEC("struct_ops") int program(unsigned long long *ctx) { return 0; }
    char _license[] SEC("license") = "GPL";
    """
    with (
        loader.open(build(text)) as obj,
        pytest.raises(ObjectFileError, match="program program: no struct to be made names it"),
    ):
        obj.load()


def test_a_pointer_to_no_program() -> None:
    text = """
    struct tcp_congestion_ops { int (*ssthresh)(void); };
    SEC(".struct_ops.link") struct tcp_congestion_ops made = { .ssthresh = (void *)4711 };
    char _license[] SEC("license") = "GPL";
    """
    with (
        loader.open(build(text)) as obj,
        pytest.raises(ObjectFileError, match="made: member ssthresh points to no program"),
    ):
        obj.load()
