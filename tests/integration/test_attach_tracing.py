"""Programs at functions, tracepoints and iterators: how often they ran, as bpftool counts it."""

from __future__ import annotations

import ctypes
import errno
import functools
import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from netbpf import loader
from netbpf.bpf import link_create, perf_event, prog, syscall, uapi
from netbpf.bpf.fd import FD
from netbpf.bpf.map import Map
from netbpf.bpf.map import create as create_map
from netbpf.bpf.prog import Program
from netbpf.btf import functions
from netbpf.btf import types as t
from netbpf.elf import sections, symbols
from netbpf.elf.object import open_object
from netbpf.elf.spec import Function, MapSpec, ProgramSpec, StructOps
from netbpf.errors import (
    BpfError,
    NetbpfError,
    NotFoundError,
    NotSupportedError,
    ObjectFileError,
)
from netbpf.loader import btf as kernel_btf
from netbpf.loader import kernel_types, relocate
from netbpf.plumbing import attach as attaching
from netbpf.plumbing import attach_tracing
from netbpf.plumbing.attachment import Attachment
from tests.netns_fixtures.cgroups import inside
from tests.netns_fixtures.objects import build
from tests.netns_fixtures.programs import returning

LIBC = next(
    line.split()[-1]
    for line in Path("/proc/self/maps").read_text().splitlines()
    if "libc.so" in line
)


def spec(section: str, name: str = "p") -> ProgramSpec:
    """What a file with a program in this section would say of it."""
    says = sections.meaning(section)
    return ProgramSpec(
        name=name,
        section=section,
        type=says.type,
        expected_attach_type=says.expected_attach_type,
        flags=says.flags,
        extra=says.extra,
        autoload=says.autoload,
        function=Function(name, section, 1, 0, b""),
        attach=says.attach,
        needs_target=says.needs_target,
    )


@functools.cache
def kernel_id(name: str, kind: int = t.KIND_FUNC) -> int:
    found = kernel_types.running().btf.find(name, kind)
    assert found is not None, name
    return found


def load(
    section: str, insns: bytes = returning(0), target: int = 0, **more: Any
) -> tuple[ProgramSpec, Program]:
    says = spec(section)
    return says, prog.load(
        says.type,
        insns,
        name="p",
        expected_attach_type=says.expected_attach_type,
        flags=says.flags,
        attach_btf_id=target,
        **more,
    )


@contextmanager
def attached(
    says: ProgramSpec, program: Program, **where: Any
) -> Iterator[tuple[Attachment, Callable[[], int]]]:
    """The program attached, and how often it has run since, as bpftool has it."""
    number = program.id
    with program, FD(syscall.enable_stats()):
        made = attaching.attach(says, program, **where)
        with made:
            program.close()
            yield made, lambda: runs(number)


def runs(number: int) -> int:
    done = subprocess.run(
        ["bpftool", "-j", "prog", "show", "id", str(number)], check=True, capture_output=True
    )
    return int(json.loads(done.stdout).get("run_cnt", 0))


def gone(number: int) -> bool:
    """Whether the program goes: the kernel frees it when nobody can be in it any more."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            Program.from_id(number).close()
        except NotFoundError:
            return True
        time.sleep(0.05)
    return False


@pytest.fixture
def tracefs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A tracefs of the test's own: not every machine has it where it is by custom."""
    folder = tmp_path / "tracefs"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tracefs", "tracefs", folder], check=True)
    monkeypatch.setattr(perf_event, "TRACEFS", (str(folder),))
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_raw_tracepoint() -> None:
    says, program = load("raw_tp/sys_enter")
    number = program.id
    with attached(says, program) as (made, ran):
        assert made.link is not None
        assert made.link.info().type_name == "raw_tracepoint"
        before = ran()
        os.getppid()
        assert ran() > before
    assert gone(number)


def test_a_tracepoint_may_be_named_later() -> None:
    says, program = load("raw_tp")
    assert attaching.left_open(says) == "what it is to be attached to"
    with program, pytest.raises(ValueError, match="tracepoint's name"):
        attaching.attach(says, program)
    says, program = load("raw_tp")
    with attached(says, program, function="sys_enter", cookie=7) as (_, ran):
        os.getppid()
        assert ran() > 0
    says, program = load("raw_tp/no_such")
    with program, pytest.raises(BpfError, match="no such tracepoint"):
        attaching.attach(says, program)


def test_tracepoint(tracefs: Path) -> None:
    says, program = load("tp/syscalls/sys_enter_getppid")
    number = program.id
    with attached(says, program) as (made, ran):
        assert made.link is not None
        assert made.link.info().type_name == "perf_event"
        before = ran()
        for _ in range(3):
            os.getppid()
        assert ran() >= before + 3
    assert gone(number)
    for section in ("tp/syscalls/no_such", "tp/../x"):
        says, program = load(section)
        with program, pytest.raises((BpfError, ValueError)):
            attaching.attach(says, program)


def test_a_tracepoint_without_tracefs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perf_event, "TRACEFS", ("/nothing-here",))
    says, program = load("tp/syscalls/sys_enter_getppid")
    with program, pytest.raises(NetbpfError, match="mount -t tracefs"):
        attaching.attach(says, program)


def test_perf_events_without_links(tracefs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> int:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(link_create, "perf_event", refused)
    says, program = load("tp/syscalls/sys_enter_getppid")
    number = program.id
    with attached(says, program) as (made, ran):
        assert made.link is None
        os.getppid()
        assert ran() > 0
        with pytest.raises(NetbpfError, match="without a link"):
            made.pin("/sys/fs/bpf/x")
    assert gone(number)


@pytest.mark.parametrize("older", [False, True])
def test_tp_btf(older: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if older:
        # As before Linux 5.18: there is only BPF_RAW_TRACEPOINT_OPEN.
        def refused(attr: object) -> int:
            raise OSError(errno.EINVAL, "Invalid argument")

        monkeypatch.setattr(syscall, "link_create", refused)
    target = kernel_id("btf_trace_sys_enter", t.KIND_TYPEDEF)
    says, program = load("tp_btf/sys_enter", target=target)
    number = program.id
    with attached(says, program) as (made, ran):
        assert made.link is not None
        # The kernel gives it the same kind of link as without BTF.
        assert made.link.info().type_name == "raw_tracepoint"
        before = ran()
        os.getppid()
        assert ran() > before
    assert gone(number)


@pytest.mark.needs("fentry")
@pytest.mark.parametrize("section", ["fentry", "fexit"])
def test_fentry_and_fexit(section: str) -> None:
    says, program = load(f"{section}/vfs_read", target=kernel_id("vfs_read"))
    number = program.id
    with attached(says, program, cookie=5) as (made, ran), open("/dev/zero", "rb") as zero:
        assert made.link is not None
        assert made.link.info().type_name == "tracing"
        before = ran()
        for _ in range(3):
            os.read(zero.fileno(), 1)
        assert ran() >= before + 3
    assert gone(number)


@pytest.mark.parametrize(
    ("section", "target"),
    [
        pytest.param("lsm/socket_create", "bpf_lsm_socket_create", marks=pytest.mark.needs("lsm")),
        # Security hooks are among the functions whose return value may be changed.
        pytest.param(
            "fmod_ret/security_socket_create",
            "security_socket_create",
            marks=pytest.mark.needs("fmod_ret"),
        ),
    ],
)
def test_lsm_and_fmod_ret_decide(section: str, target: str) -> None:
    # What a hook returns is what the call returns: only for one process, told by its comm.
    comm = b"nbtlsm1\0"
    insns = b"".join(
        (
            struct.pack("=BBhi", 0xBF, 0xA1, 0, 0),  # r1 = r10
            struct.pack("=BBhi", 0x07, 1, 0, -16),  # r1 += -16
            struct.pack("=BBhi", 0xB7, 2, 0, 16),  # r2 = 16
            struct.pack("=BBhi", 0x85, 0, 0, 16),  # bpf_get_current_comm
            struct.pack("=BBhi", 0x79, 0xA1, -16, 0),  # r1 = *(u64 *)(r10 - 16)
            struct.pack("=BBhi", 0x18, 2, 0, struct.unpack("=i", comm[:4])[0]),
            struct.pack("=BBhi", 0, 0, 0, struct.unpack("=i", comm[4:])[0]),
            struct.pack("=BBhi", 0xB7, 0, 0, 0),  # r0 = 0
            struct.pack("=BBhi", 0x5D, 0x21, 1, 0),  # if r1 != r2 goto +1
            struct.pack("=BBhi", 0xB7, 0, 0, -1),  # r0 = -EPERM
            struct.pack("=BBhi", 0x95, 0, 0, 0),
        )
    )
    code = "open('/proc/self/comm', 'w').write('nbtlsm1')\nimport socket; socket.socket()"

    def allowed() -> bool:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0 or "PermissionError" in done.stderr, done.stderr
        return done.returncode == 0

    assert allowed()
    says, program = load(section, insns, kernel_id(target))
    with attached(says, program):
        assert not allowed()
    assert allowed()


@pytest.mark.needs("lsm")
def test_lsm_of_a_cgroup(cgroup: Path) -> None:
    # Here 0 refuses.
    says, program = load("lsm_cgroup/socket_create", target=kernel_id("bpf_lsm_socket_create"))
    assert attaching.left_open(says) == "a cgroup"
    with program:
        assert inside(cgroup, "socket.socket()") == "done"
        with attaching.attach(says, program, cgroup=str(cgroup)):
            assert inside(cgroup, "socket.socket()") == str(errno.EPERM)
        assert inside(cgroup, "socket.socket()") == "done"


SEQ_WRITE = b"".join(
    (
        struct.pack("=BBhi", 0x79, 0x11, 0, 0),  # r1 = ctx->meta
        struct.pack("=BBhi", 0x79, 0x11, 0, 0),  # r1 = meta->seq
        struct.pack("=BBhi", 0x7A, 10, -8, struct.unpack("=i", b"one\n")[0]),
        struct.pack("=BBhi", 0xBF, 0xA2, 0, 0),  # r2 = r10
        struct.pack("=BBhi", 0x07, 2, 0, -8),
        struct.pack("=BBhi", 0xB7, 3, 0, 4),
        struct.pack("=BBhi", 0x85, 0, 0, 127),  # bpf_seq_write
        struct.pack("=BBhi", 0xB7, 0, 0, 0),
        struct.pack("=BBhi", 0x95, 0, 0, 0),
    )
)


def test_iterator() -> None:
    says, program = load("iter/bpf_prog", SEQ_WRITE, kernel_id("bpf_iter_bpf_prog"))
    with program, attaching.attach(says, program) as made:
        assert made.link is not None
        read = attach_tracing.read_iterator(made.link)
        # A program for each that bpftool lists, and once more at the end.
        listed = json.loads(subprocess.check_output(["bpftool", "-j", "prog", "show"]))
        assert set(read.split()) == {b"one"}
        assert abs(len(read.split()) - len(listed)) <= 20
        assert attach_tracing.read_iterator(made.link)
    says, program = load("raw_tp/sys_enter")
    with program, attaching.attach(says, program) as made:
        assert made.link is not None
        with pytest.raises(BpfError):
            attach_tracing.read_iterator(made.link)


def test_iterator_over_a_map() -> None:
    says, program = load("iter/bpf_map_elem", SEQ_WRITE, kernel_id("bpf_iter_bpf_map_elem"))
    assert attaching.left_open(says) == "the map that it goes over"
    with (
        program,
        create_map(uapi.BPF_MAP_TYPE_ARRAY, key_size=4, value_size=4, max_entries=5) as five,
        create_map(uapi.BPF_MAP_TYPE_STACK, key_size=0, value_size=4, max_entries=5) as stack,
    ):
        with attaching.attach(says, program, map=five) as made:
            assert made.link is not None
            # Each element, and a last call with none.
            assert attach_tracing.read_iterator(made.link) == b"one\n" * 6
        with pytest.raises(BpfError, match="none was given"):
            attaching.attach(says, program)
        with pytest.raises(BpfError, match="another type of map"):
            attaching.attach(says, program, map=stack)


def call_getppid_of_libc() -> None:
    ctypes.CDLL(None).getppid()


@pytest.mark.parametrize("section", ["uprobe", "uretprobe", "uprobe.s"])
@pytest.mark.parametrize("form", ["{libc}:getppid", "{libc}:{offset:#x}", "libc.so.6:getppid"])
def test_uprobe(section: str, form: str) -> None:
    text = form.format(libc=LIBC, offset=symbols.offset(LIBC, "getppid"))
    says, program = load(f"{section}/{text}")
    number = program.id
    with attached(says, program, cookie=3) as (_, ran):
        before = ran()
        for _ in range(3):
            call_getppid_of_libc()
        assert ran() >= before + 3
    assert gone(number)


@pytest.mark.parametrize("kind", ["uprobe", "uprobe.multi"])
def test_uprobe_of_one_process(kind: str) -> None:
    says, program = load(f"{kind}/{LIBC}:getppid")
    with attached(says, program, pid=os.getpid()) as (_, ran):
        subprocess.run([sys.executable, "-c", "import os; os.getppid()"], check=True)
        assert ran() == 0
        call_getppid_of_libc()
        assert ran() == 1


@pytest.mark.parametrize("section", ["uprobe.multi", "uretprobe.multi"])
def test_uprobe_multi(section: str) -> None:
    says, program = load(f"{section}/{LIBC}:getp?id")
    number = program.id
    with attached(says, program) as (made, ran):
        assert made.link is not None
        assert made.link.info().type_name == "uprobe_multi"
        before = ran()
        library = ctypes.CDLL(None)
        library.getppid()
        library.getpgid(0)
        assert ran() >= before + 2
    assert gone(number)


def test_uprobes_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no ELF")
    for text, error in (
        (f"{LIBC}:no_such_function", NotFoundError),
        ("/nothing-here:f", NotFoundError),
        ("nothing-here:f", NotFoundError),
        (f"{tmp_path}/text:f", NetbpfError),
        (LIBC, ValueError),
        (f"{LIBC}:getppid+x", ValueError),
    ):
        for kind in ("uprobe", "uprobe.multi"):
            if kind == "uprobe.multi" and text.endswith("+x"):
                continue
            says, program = load(f"{kind}/{text}")
            with program, pytest.raises(error):
                attaching.attach(says, program)
    says, program = load(f"uretprobe/{LIBC}:getppid+4")
    with program, pytest.raises(ValueError, match="no offset"):
        attaching.attach(says, program)


@pytest.mark.needs("kprobe")
@pytest.mark.parametrize("section", ["kprobe", "kretprobe"])
def test_kprobe(section: str) -> None:
    says, program = load(f"{section}/__x64_sys_getppid")
    number = program.id
    with attached(says, program, cookie=9) as (_, ran):
        before = ran()
        for _ in range(3):
            os.getppid()
        assert ran() >= before + 3
    assert gone(number)
    says, program = load(f"{section}/no_such_function")
    with program, pytest.raises(BpfError, match="no such function"):
        attaching.attach(says, program)


@pytest.mark.needs("kprobe")
@pytest.mark.parametrize("section", ["ksyscall", "kretsyscall"])
def test_ksyscall(section: str) -> None:
    says, program = load(f"{section}/getppid")
    with attached(says, program) as (_, ran):
        os.getppid()
        assert ran() > 0


@pytest.mark.needs("kprobe-multi")
@pytest.mark.parametrize(
    "text", ["kprobe.multi/*_sys_getp?id", "kretprobe.multi/__x64_sys_getppid"]
)
def test_kprobe_multi(text: str, tracefs: Path) -> None:
    says, program = load(text)
    number = program.id
    with attached(says, program, cookie=2) as (made, ran):
        assert made.link is not None
        assert made.link.info().type_name == "kprobe_multi"
        before = ran()
        os.getppid()
        assert ran() > before
    assert gone(number)
    says, program = load("kprobe.multi/no_such_function_*")
    with program, pytest.raises(NotFoundError):
        attaching.attach(says, program)


@pytest.mark.needs("kprobe-multi")
def test_kprobe_session() -> None:
    says, program = load("kprobe.session/__x64_sys_getppid")
    with attached(says, program) as (_, ran):
        os.getppid()
        # At the call, and again at the return.
        assert ran() >= 2


def test_without_kprobes_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "isdir", lambda path: False)
    says, program = load("kprobe/vfs_read")
    with program, pytest.raises(NotSupportedError, match="CONFIG_KPROBE_EVENTS"):
        attaching.attach(says, program)


COUNTS = """
int who;
__u64 calls, told;
SEC("KIND/PATTERN") int p(void *ctx)
{
	if (bpf_get_current_pid_tgid() >> 32 == who) {
		calls++;
		told = bpf_get_attach_cookie(ctx);
	}
	return 0;
}
char _license[] SEC("license") = "GPL";
"""


@pytest.mark.needs("tracing-multi")
@pytest.mark.parametrize(
    ("kind", "times"), [("fentry.multi", 1), ("fexit.multi", 1), ("fsession.multi", 2)]
)
def test_many_functions(kind: str, times: int, tracefs: Path) -> None:
    # Not all of these may be traced.
    source = COUNTS.replace("KIND", kind).replace("PATTERN", "vfs_*")
    with loader.open(build(source)) as obj, open("/dev/zero", "r+b", buffering=0) as zero:
        obj.set("who", os.getpid())
        obj.load()

        def counted() -> int:
            before = obj.get("calls")
            for _ in range(50):
                zero.read(1)
                zero.write(b"x")
            return int(obj.get("calls")) - int(before)

        with attaching.attach_all(obj) as made:
            link = made["p"].link
            assert link is not None
            assert link.info().type_name == "tracing_multi"
            assert counted() >= 100 * times
        assert counted() == 0
        says = obj.spec.program("p")
        with attaching.attach(says, obj.programs["p"], function="vfs_read", cookie=7):
            assert counted() == 50 * times
            assert obj.get("told") == 7


@pytest.mark.needs("tracing-multi")
def test_many_functions_of_the_network(tracefs: Path) -> None:
    # Of these not all have arguments that a trampoline takes.
    says, program = load("fentry.multi/tcp_*")
    number = program.id
    with attached(says, program) as (made, _):
        assert made.link is not None
    assert gone(number)


@pytest.mark.needs("tracing-multi", "module-types")
def test_many_functions_of_a_module(tracefs: Path) -> None:
    lines = (tracefs / "available_filter_functions").read_text().splitlines()
    probed = {tuple(line.split()) for line in lines if line.endswith("]")}
    module, name = next(
        (module, name)
        for module, indexed in kernel_types.running().modules().items()
        for name in functions.matching(indexed.btf, "*")
        if (name, f"[{module}]") in probed
    )
    file = build(f'SEC("fentry.multi/{module}:{name}") int p(void *c) {{ return 0; }}')
    with loader.open(file) as obj:
        obj.load()
        with attaching.attach_all(obj) as made:
            assert list(made) == ["p"]
            with pytest.raises(BpfError):
                attaching.attach(obj.spec.program("p"), obj.programs["p"], function="vfs_read")


def test_a_module_that_is_not_there() -> None:
    file = build('SEC("fentry.multi/no_such_module:x*") int p(void *c) { return 0; }')
    with (
        loader.open(file) as obj,
        pytest.raises(ObjectFileError, match="module no_such_module is not loaded"),
    ):
        obj.load()


@pytest.mark.needs("tracing-multi")
def test_many_functions_named_later() -> None:
    says, program = load("fentry.multi")
    assert attaching.left_open(says) == "what it is to be attached to"
    with program:
        for text, error in (
            (None, ValueError),
            ("no_such_function_*", NotFoundError),
            ("no_such_module:*", NotFoundError),
        ):
            with pytest.raises(error):
                attaching.attach(says, program, function=text)
    says, program = load("fentry.multi")
    with attached(says, program, function="vfs_read") as (_, ran), open("/dev/zero", "rb") as zero:
        before = ran()
        os.read(zero.fileno(), 1)
        assert ran() > before


@pytest.mark.needs("tracing-multi")
def test_many_functions_without_tracefs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perf_event, "TRACEFS", ("/nothing-here",))
    says, program = load("fentry.multi/vfs_*")
    with program, pytest.raises(BpfError, match=r"may not be traced .*where tracefs is mounted"):
        attaching.attach(says, program)


def test_many_functions_on_an_older_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    # No kernel has this attach type; what it says is what older ones say of fentry.multi.
    monkeypatch.setattr(uapi, "BPF_TRACE_FENTRY_MULTI", 1 << 20)
    with (
        loader.open(build('SEC("fentry.multi/vfs_*") int p(void *c) { return 0; }')) as obj,
        pytest.raises(NotSupportedError, match=r"section fentry\.multi/vfs_\*.*needs Linux 7\.2"),
    ):
        obj.load()


def test_a_step_that_fails_leaves_no_descriptor(tracefs: Path) -> None:
    # The autouse fixture looks for descriptors that are left.
    def broken(*_: object) -> None:
        raise OSError(errno.EIO, "broken")

    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        says, program = load("tp/syscalls/sys_enter_getppid")
        stack.enter_context(program)
        patch.setattr(perf_event, "enable", broken)
        with pytest.raises(BpfError, match="EIO"):
            attaching.attach(says, program)
        patch.undo()
        with attaching.attach(says, program):
            pass


def test_symbols_are_where_the_linker_put_them(tmp_path: Path) -> None:
    source = tmp_path / "f.c"
    source.write_text("int here(void) { return 42; }\nint main(void) { return here(); }\n")
    program = tmp_path / "f"
    subprocess.run(["gcc", "-O0", "-o", program, source], check=True)
    place = symbols.offset(program, "here")
    shown = subprocess.check_output(["nm", program], text=True)
    address = next(
        int(line.split()[0], 16) for line in shown.splitlines() if line.endswith(" here")
    )
    text = subprocess.check_output(["readelf", "-SW", program], text=True)
    fields = next(line for line in text.splitlines() if " .text " in line).split(".text")[1].split()
    assert place == address - int(fields[1], 16) + int(fields[2], 16)
    assert symbols.matching(program, "h*e") == {"here": place}


OUTER = """
__noinline int verdict(struct __sk_buff *skb) { return skb->len ? 2 : 1; }
SEC("tc") int outer(struct __sk_buff *skb) { return verdict(skb); }
"""
INNER = 'SEC("freplace/verdict") int inner(struct __sk_buff *skb) { return 7; }'


@pytest.mark.needs("fmod_ret")
def test_freplace_takes_the_place_of_a_function() -> None:
    replacing = open_object(build(INNER))
    (says,) = replacing.programs
    linked = relocate.link(replacing, says, {})
    assert replacing.btf is not None
    with ExitStack() as stack:
        own = kernel_btf.load(replacing.btf)
        assert own is not None
        stack.enter_context(own)
        objects = [stack.enter_context(loader.open(build(OUTER))) for _ in range(2)]
        for obj in objects:
            obj.load()
        first, second = (obj.programs["outer"] for obj in objects)
        program = stack.enter_context(
            prog.load(
                says.type,
                linked.insns,
                btf_fd=own.fileno(),
                func_info=linked.func_info,
                func_info_rec_size=relocate.FUNC_INFO_SIZE,
                attach_btf_id=attach_tracing._function_id(first, "verdict"),
                attach_fd=first.fileno(),
            )
        )
        assert first.test_run(bytes(64)).retval == 2
        # Where it was loaded for, and then another program with the same function.
        with attaching.attach(says, program):
            assert first.test_run(bytes(64)).retval == 7
        assert first.test_run(bytes(64)).retval == 2
        with attaching.attach(says, program, target=second, function="verdict"):
            assert [p.test_run(bytes(64)).retval for p in (first, second)] == [2, 7]
        assert second.test_run(bytes(64)).retval == 2
        with pytest.raises(NotFoundError, match="no function nothing"):
            attaching.attach(says, program, target=second, function="nothing")
        with pytest.raises(ValueError, match="together"):
            attaching.attach(says, program, target=second)


@pytest.mark.needs("fmod_ret")
@pytest.mark.parametrize("link", [True, False])
def test_struct_ops(link: bool) -> None:
    btf = kernel_types.running().btf
    name, wrapper = "tcp_congestion_ops", "bpf_struct_ops_tcp_congestion_ops"
    ops_id, wrapper_id = (kernel_id(each, t.KIND_STRUCT) for each in (name, wrapper))
    ops, whole = btf.type(ops_id), btf.type(wrapper_id)
    assert isinstance(ops, t.Struct)
    assert isinstance(whole, t.Struct)
    start = next(member.offset for member in whole.members if member.name == "data")
    value = bytearray(whole.size)
    members = {member.name: (index, member) for index, member in enumerate(ops.members)}
    called = f"nbt{os.getpid()}"[:15]
    place = start + members["name"][1].offset
    value[place : place + len(called)] = called.encode()
    with ExitStack() as stack:
        for member in ("ssthresh", "undo_cwnd", "cong_avoid"):
            index, found = members[member]
            program = stack.enter_context(
                prog.load(
                    uapi.BPF_PROG_TYPE_STRUCT_OPS,
                    returning(2),
                    expected_attach_type=index,
                    attach_btf_id=ops_id,
                )
            )
            at = start + found.offset
            value[at : at + 8] = program.fileno().to_bytes(8, sys.byteorder)
        # The kernel wants any BTF of ours beside its own.
        ours = open_object(build(INNER)).btf
        assert ours is not None
        own = kernel_btf.load(ours)
        assert own is not None
        stack.enter_context(own)
        attr = uapi.MapCreateAttr(
            btf_fd=own.fileno(),
            map_type=uapi.BPF_MAP_TYPE_STRUCT_OPS,
            key_size=4,
            value_size=whole.size,
            max_entries=1,
            map_flags=uapi.BPF_F_LINK if link else 0,
            btf_vmlinux_value_type_id=wrapper_id,
        )
        ops_map = stack.enter_context(Map(FD(syscall.map_create(attr))))
        if link:
            ops_map.update(bytes(4), bytes(value))
        struct = StructOps(".struct_ops", name, 0, b"", link=link)
        says = MapSpec("cc", uapi.BPF_MAP_TYPE_STRUCT_OPS, 4, whole.size, 1, struct_ops=struct)
        listed = Path("/proc/sys/net/ipv4/tcp_available_congestion_control")
        assert called not in listed.read_text().split()
        with attaching.attach_struct_ops(says, ops_map, bytes(value)) as made:
            assert (made.link is not None) == link
            if made.link is not None:
                assert made.link.info().type_name == "struct_ops"
            assert called in listed.read_text().split()
        assert called not in listed.read_text().split()
