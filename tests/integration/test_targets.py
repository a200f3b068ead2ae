"""What programs are loaded for by BTF id, held against what bpftool loads of the same file."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from netbpf import loader
from netbpf.bpf import link_create
from netbpf.bpf.fd import FD
from netbpf.bpf.prog import Program
from netbpf.errors import NetbpfError, NotFoundError, ObjectFileError
from tests.netns_fixtures.objects import build

PACKET = bytes(64)
LICENSE = '\nchar _license[] SEC("license") = "GPL";\n'

BY_NAME = """
unsigned long long count;
SEC("fentry/bpf_prog_test_run_skb") int entered(unsigned long long *ctx)
{ __sync_fetch_and_add(&count, 1); return 0; }
SEC("fexit/bpf_prog_test_run_skb") int left(unsigned long long *ctx)
{ __sync_fetch_and_add(&count, 100); return 0; }
"""
TRACEPOINT = """
SEC("tp_btf/sched_switch") int switched(unsigned long long *ctx) { return 0; }
SEC("iter/task") int walked(void *ctx) { return 0; }
SEC("iter.s/bpf_map") int maps(void *ctx) { return 0; }
"""
DECIDES = """
SEC("fmod_ret/security_socket_create") int changed(unsigned long long *ctx) { return 0; }
"""
SECURITY = """
SEC("lsm/socket_create") int asked(unsigned long long *ctx) { return 0; }
SEC("lsm_cgroup/socket_create") int grouped(unsigned long long *ctx) { return 1; }
"""
REPLACED = """
__attribute__((noinline)) int verdict(struct __sk_buff *skb)
{ volatile int two = 2; return two + (skb->len > 100000); }
SEC("tc") int outer(struct __sk_buff *skb) { return verdict(skb) + 10; }
"""
REPLACES = """
SEC("freplace/verdict") int other(struct __sk_buff *skb) { return 5; }
"""
WATCHES = """
int seen;
SEC("fentry/verdict") int watches(unsigned long long *ctx) { seen++; return 0; }
"""


def made(text: str, name: str = "targets") -> Path:
    return build(text + LICENSE, name=name)


def check_against_libbpf(text: str, folder: Path) -> None:
    """The same programs by tag, attached to the same thing."""
    file = made(text)
    subprocess.run(["bpftool", "prog", "loadall", file, folder], check=True)
    with loader.open(file) as obj:
        obj.load()
        assert sorted(obj.programs) == sorted(p.name for p in folder.iterdir())
        for name, program in obj.programs.items():
            with Program.from_pin(str(folder / name)) as peer:
                ours, theirs = program.info(), peer.info()
                assert (ours.tag, ours.type) == (theirs.tag, theirs.type), name
                assert target(program) == target(peer) != (0, 0), name


def target(program: Program) -> tuple[int, int]:
    """What the kernel says a program is loaded for: the BTF's id and the type's."""
    from netbpf.bpf import syscall, uapi

    info = syscall.obj_get_info(program.fileno(), uapi.ProgInfo())
    return info.attach_btf_obj_id, info.attach_btf_id


@pytest.mark.needs("fentry")
def test_functions(bpffs: Path) -> None:
    check_against_libbpf(BY_NAME, bpffs / "peer")
    with loader.open(made(BY_NAME)) as obj, loader.open(made(REPLACED)) as runs:
        obj.load()
        runs.load()
        with (
            FD(link_create.raw_tracepoint(obj.programs["entered"].fileno(), None)),
            FD(link_create.raw_tracepoint(obj.programs["left"].fileno(), None)),
        ):
            runs.programs["outer"].test_run(PACKET)
        assert obj.get("count") == 101


def test_tracepoints_and_iterators(bpffs: Path) -> None:
    check_against_libbpf(TRACEPOINT, bpffs / "peer")


@pytest.mark.needs("fmod_ret")
def test_functions_whose_result_is_changed(bpffs: Path) -> None:
    check_against_libbpf(DECIDES, bpffs / "peer")


@pytest.mark.needs("lsm")
def test_hooks_of_security_modules(bpffs: Path) -> None:
    check_against_libbpf(SECURITY, bpffs / "peer")


@pytest.mark.needs("fentry")
def test_a_function_of_another_program() -> None:
    with loader.open(made(REPLACED)) as old, loader.open(made(REPLACES)) as new:
        old.load()
        outer = old.programs["outer"]
        assert outer.test_run(PACKET).retval == 12
        new.load(attach_to={"other": outer})
        with FD(link_create.raw_tracepoint(new.programs["other"].fileno(), None)):
            assert outer.test_run(PACKET).retval == 15
        assert outer.test_run(PACKET).retval == 12
        shown = subprocess.run(
            ["bpftool", "-j", "prog", "show", "id", str(new.programs["other"].id)],
            check=True,
            capture_output=True,
        )
        assert json.loads(shown.stdout)["type"] == "ext"


@pytest.mark.needs("fentry")
def test_the_entry_of_another_program() -> None:
    with loader.open(made(REPLACED)) as old, loader.open(made(WATCHES)) as new:
        old.load()
        new.load(attach_to={"watches": old.programs["outer"]})
        with FD(link_create.raw_tracepoint(new.programs["watches"].fileno(), None)):
            old.programs["outer"].test_run(PACKET, repeat=3)
        assert new.get("seen") == 3


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("fentry/netbpf_no_such", "program p: this kernel has no function netbpf_no_such"),
        ("fexit/vmlinux:netbpf_no_such", "this kernel has no function netbpf_no_such"),
        ("fentry/netbpf_none:vfs_read", "module netbpf_none is not loaded, or tells of no types"),
        ("tp_btf/netbpf_no_such", "this kernel has no tracepoint netbpf_no_such"),
        ("lsm/netbpf_no_such", "this kernel has no hook of security modules netbpf_no_such"),
        ("iter/netbpf_no_such", "this kernel has no iterator netbpf_no_such"),
        ("fentry", "does not say which function it is for"),
        ("freplace/verdict", "nobody said of which loaded program it replaces the function"),
    ],
)
def test_what_is_not_there_is_named(section: str, message: str, bpffs: Path) -> None:
    file = made(f'SEC("{section}") int p(unsigned long long *ctx) {{ return 0; }}')
    with loader.open(file) as obj, pytest.raises(ObjectFileError, match=message):
        obj.load()
    peer = subprocess.run(["bpftool", "prog", "load", file, bpffs / "p"], capture_output=True)
    assert peer.returncode, "libbpf refuses it too"


def test_a_program_without_such_a_function() -> None:
    before = set(Program.ids())
    plain = 'SEC("tc") int plain(struct __sk_buff *skb) { return 0; }'
    with loader.open(made(plain)) as old, loader.open(made(REPLACES)) as new:
        old.load()
        with pytest.raises(NotFoundError, match=r"no function verdict in program plain \(id:"):
            new.load(attach_to={"other": old.programs["plain"]})
    with (
        loader.open(build(plain + LICENSE, "-g0")) as old,
        loader.open(made(REPLACES)) as new,
    ):
        old.load()
        with pytest.raises(NetbpfError, match="was loaded without BTF"):
            new.load(attach_to={"other": old.programs["plain"]})
    assert not set(Program.ids()) - before
