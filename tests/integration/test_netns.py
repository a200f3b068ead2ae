"""Namespaces against the running kernel and against ``ip netns``."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from netbpf import netns
from netbpf.errors import ConflictError, KernelError, NotFoundError
from netbpf.netns import NetNS
from tests.netns_fixtures.namespaces import namespace, random_name, run


def ip(*argv: str) -> str:
    return subprocess.run(["ip", *argv], check=True, capture_output=True, text=True).stdout


def inode_seen_by_ip(name: str) -> int:
    link = ip("netns", "exec", name, "readlink", "/proc/self/ns/net")
    return int(link.strip().removeprefix("net:[").removesuffix("]"))


@pytest.fixture
def name():
    """A free name; whatever carries it afterwards goes away."""
    made = random_name()
    yield made
    if os.path.lexists(netns.RUN_DIR / made):
        netns.delete(made)


def test_ip_netns_uses_what_add_made(name):
    inode = netns.add(name)
    assert name in ip("netns", "list").split()
    assert inode_seen_by_ip(name) == inode
    assert "state DOWN" in ip("-n", name, "link", "show", "lo")
    ip("netns", "del", name)
    assert name not in netns.list_names()
    with pytest.raises(NotFoundError):
        NetNS.from_name(name)


def test_what_ip_netns_made_is_used_and_deleted(name):
    ip("netns", "add", name)
    assert name in netns.list_names()
    with NetNS.from_name(name) as ns:
        assert ns.inode == inode_seen_by_ip(name)
        assert ns.name == name
        assert netns.name_of(ns.inode) == name
    netns.delete(name)
    assert name not in ip("netns", "list").split()
    assert not (netns.RUN_DIR / name).exists()


def test_the_folder_is_one_shared_mount(name):
    netns.add(name)
    mounts = [
        line.split()
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
        if line.split()[4] in ("/run/netns", "/var/run/netns")
    ]
    assert len(mounts) == 1, "mounted over itself"
    assert any(option.startswith("shared:") for option in mounts[0])


def test_a_name_is_given_once(name):
    inode = netns.add(name)
    with pytest.raises(ConflictError, match="one of this name already"):
        netns.add(name)
    assert netns.inodes_by_name()[name] == inode


def test_a_file_that_is_no_namespace(name):
    netns.add(name)
    netns.delete(name)
    path = netns.RUN_DIR / name
    path.touch()
    assert name not in netns.list_names()
    with pytest.raises(NotFoundError, match="no network namespace"):
        NetNS.from_name(name)
    with pytest.raises(ConflictError, match="the name is taken"):
        netns.add(name)
    netns.delete(name)
    assert not path.exists()


@pytest.mark.parametrize(
    "bad", ["", ".", "..", "a/b", "/etc", "a\nb", "a\0b", "x" * 256, "é" * 128]
)
def test_hostile_names_are_refused_before_anything_is_touched(bad):
    with pytest.raises(ValueError, match="namespace"):
        netns.add(bad)
    with pytest.raises(ValueError, match="namespace"):
        netns.delete(bad)
    assert Path("/etc").is_dir()
    assert not (netns.RUN_DIR / "a").exists()


def test_a_namespace_of_another_kind_is_refused():
    with pytest.raises(NotFoundError, match="no network namespace"):
        NetNS.from_path("/proc/self/ns/mnt")


def test_parse_by_pid_and_by_path(ns):
    sleeper = subprocess.Popen(
        ["ip", "netns", "exec", ns.name, "sleep", "60"], stdin=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            with NetNS.parse(f"pid:{sleeper.pid}") as by_pid:
                if by_pid == ns:
                    break
            time.sleep(0.01)
        else:
            pytest.fail("the process never was in the namespace")
        assert sleeper.pid in netns.pids_by_inode()[ns.inode]
        with NetNS.parse(f"/run/netns/{ns.name}") as by_path:
            assert by_path == ns
            assert by_path.name == ns.name
    finally:
        sleeper.kill()
        sleeper.wait()
    with pytest.raises(NotFoundError, match=f"no process {sleeper.pid}"):
        NetNS.from_pid(sleeper.pid)


def test_scan_finds_namespaces_that_only_processes_or_mounts_hold(tmp_path):
    from netbpf import libc

    sleeper = subprocess.Popen(["unshare", "--net", "sleep", "60"], stdin=subprocess.DEVNULL)
    mounted = tmp_path / "held"
    mounted.touch()
    try:
        own = os.stat("/proc/self/ns/net").st_ino
        deadline = time.monotonic() + 5
        while os.stat(f"/proc/{sleeper.pid}/ns/net").st_ino == own:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        with NetNS.from_pid(sleeper.pid) as held:
            inode = held.inode
        found = {entry.inode: entry for entry in netns.scan()}
        assert found[inode].pids == (sleeper.pid,)
        assert found[inode].name is None
        assert found[inode].reference == f"pid:{sleeper.pid}"
        libc.mount(f"/proc/{sleeper.pid}/ns/net", os.fspath(mounted), "none", libc.MS_BIND)
    finally:
        sleeper.kill()
        sleeper.wait()
    try:
        found = {entry.inode: entry for entry in netns.scan()}
        assert found[inode].pids == ()
        assert found[inode].paths == (os.fspath(mounted),)
        with found[inode].open() as again:
            assert again.inode == inode
    finally:
        libc.umount(os.fspath(mounted))
    assert inode not in {entry.inode for entry in netns.scan()}


def test_entering_moves_the_calling_thread_only(ns):
    home = os.stat("/proc/thread-self/ns/net").st_ino
    seen = {}
    inside, done = threading.Event(), threading.Event()

    def enter():
        with netns.entered(ns):
            seen["inside"] = os.stat("/proc/thread-self/ns/net").st_ino
            seen["devices"] = [name for _, name in socket.if_nameindex()]
            inside.set()
            done.wait(5)
        seen["after"] = os.stat("/proc/thread-self/ns/net").st_ino

    thread = threading.Thread(target=enter)
    thread.start()
    assert inside.wait(5)
    assert os.stat("/proc/thread-self/ns/net").st_ino == home
    done.set()
    thread.join()
    assert seen == {"inside": ns.inode, "devices": ["lo"], "after": home}


def test_entering_comes_back_after_an_exception_and_nests(two_ns):
    home = os.stat("/proc/thread-self/ns/net").st_ino
    first, second = two_ns
    with pytest.raises(ZeroDivisionError), netns.entered(first):
        with netns.entered(second):
            assert second.is_current()
        assert first.is_current()
        raise ZeroDivisionError
    assert os.stat("/proc/thread-self/ns/net").st_ino == home


def test_run_in_hands_back_the_result_and_the_exception(ns):
    def fail():
        raise LookupError("inside")

    assert netns.run_in(ns, lambda: os.stat("/proc/thread-self/ns/net").st_ino) == ns.inode
    with pytest.raises(LookupError, match="inside"):
        netns.run_in(ns, fail)


def test_a_thread_that_cannot_return_ends_the_process(ns):
    script = f"""
import os
from netbpf import netns
with netns.NetNS.from_name({ns.name!r}) as ns:
    with netns.entered(ns):
        for fd in range(3, 64):
            if fd != ns.fileno():
                try: os.close(fd)
                except OSError: pass
print("went on in the wrong namespace")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == -signal.SIGABRT
    assert "cannot return from a network namespace" in done.stderr
    assert done.stdout == ""


def test_a_deleted_name_leaves_an_open_handle_useful():
    with namespace() as ns:
        netns.delete(ns.name)
        with netns.entered(ns):
            assert ns.is_current()
        netns.add(ns.name)
        with NetNS.from_name(ns.name) as other:
            assert other != ns


def test_an_interrupted_add_leaves_nothing(name):
    """Ctrl-C again and again, at whatever moment: the name is whole, or it is not there."""
    script = f"""
import sys
from netbpf import netns
print("ready", flush=True)
number = 0
while True:
    number += 1
    name = f"{name}-{{number}}"
    try:
        netns.add(name)
    except KeyboardInterrupt:
        left = (netns.RUN_DIR / name).exists()
        print("left" if left else "clean", flush=True)
        sys.exit(1 if left else 0)
    netns.delete(name)
"""
    for attempt in range(8):
        process = subprocess.Popen(
            [sys.executable, "-c", script],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            time.sleep(0.005 * attempt)
            process.send_signal(signal.SIGINT)
            try:
                out, err = process.communicate(timeout=20)
            finally:
                process.kill()
        assert out.strip() in ("clean", ""), err
    left = [found for found in os.listdir(netns.RUN_DIR) if found.startswith(name)]
    # Between add and delete the script itself leaves one: only a half-made one counts.
    assert set(left) <= set(netns.list_names())
    for found in left:
        netns.delete(found)


def test_beside_an_ip_netns_that_adds_and_deletes_the_same_name(name, tmp_path):
    """Every outcome is one of netbpf's own errors, and in the end the name is whole or gone."""
    going = tmp_path / "going"
    going.touch()
    again = f"ip netns add {name}; ip netns del {name}"
    script = f"exec 2>/dev/null; while [ -e {going} ]; do {again}; done"
    rival = subprocess.Popen(["sh", "-c", script], stdin=subprocess.DEVNULL)
    outcomes: set[str] = set()
    expected = {"done", "ConflictError", "NotFoundError"}
    start = time.monotonic()
    try:
        # A second of it, and longer where the machine is slow to come across all of them.
        while time.monotonic() < start + (1 if expected <= outcomes else 30):
            for action in (netns.add, netns.delete, lambda name: NetNS.from_name(name).close()):
                try:
                    action(name)
                    outcomes.add("done")
                except (ConflictError, NotFoundError, KernelError) as error:
                    outcomes.add(type(error).__name__)
            netns.list_names()
    finally:
        going.unlink()
        rival.wait()
    assert expected <= outcomes
    if os.path.lexists(netns.RUN_DIR / name):
        netns.delete(name)
    netns.add(name)
    assert inode_seen_by_ip(name) == netns.inodes_by_name()[name]


def run_exec(ns_name: str, *argv: str, **options) -> subprocess.CompletedProcess:
    script = (
        "import sys; from netbpf.netns import NetNS, exec_in; "
        "exec_in(NetNS.from_name(sys.argv[1]), sys.argv[2:])"
    )
    command = [sys.executable, "-c", script, ns_name, *argv]
    return subprocess.run(command, capture_output=True, text=True, **options)


def test_exec_gives_what_ip_netns_exec_gives(ns):
    look = "readlink /proc/self/ns/net; ls /sys/class/net; ls /sys/fs/bpf; stat -fc %T /sys"
    ours = run_exec(ns.name, "sh", "-c", look)
    assert ours.returncode == 0, ours.stderr
    assert ours.stdout == ip("netns", "exec", ns.name, "sh", "-c", look)
    assert f"net:[{ns.inode}]" in ours.stdout


def test_exec_mounts_the_files_of_etc_netns(ns):
    folder = Path("/etc/netns") / ns.name
    folder.mkdir(parents=True)
    try:
        (folder / "hostname").write_text("inside\n")
        outside = Path("/etc/hostname").read_text()
        assert run_exec(ns.name, "cat", "/etc/hostname").stdout == "inside\n"
        assert Path("/etc/hostname").read_text() == outside
    finally:
        (folder / "hostname").unlink()
        folder.rmdir()


def test_exec_keeps_status_signals_and_pipes_native(ns):
    assert run_exec(ns.name, "sh", "-c", "exit 7").returncode == 7
    assert run_exec(ns.name, "sh", "-c", "kill -TERM $$").returncode == -signal.SIGTERM
    # A writer into a closed pipe dies of SIGPIPE, as it would without Python in front.
    piped = run_exec(ns.name, "bash", "-c", "yes | head -1; echo ${PIPESTATUS[0]}")
    assert piped.stdout.split() == ["y", "141"]


def test_exec_of_nothing_leaves_the_process_where_it_was(ns):
    with NetNS.from_name(ns.name) as handle:
        with pytest.raises(NotFoundError, match="no command no-such-command"):
            netns.exec_in(handle, ["no-such-command"])
        with pytest.raises(ValueError, match="a command is needed"):
            netns.exec_in(handle, [])
        assert not handle.is_current()


def test_mounts_made_inside_exec_stay_inside(ns, tmp_path):
    run_exec(ns.name, "mount", "-t", "tmpfs", "inside", str(tmp_path))
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


def test_without_capabilities_the_message_names_them(name, ns):
    script = f"""
import sys
sys.path.insert(0, {os.getcwd()!r})
from netbpf import netns
from netbpf.errors import KernelError
import os
handle = netns.NetNS.from_name({ns.name!r})
os.setgroups([]); os.setgid(65534); os.setuid(65534)
for action in (lambda: netns.add({name!r}), lambda: netns.enter_for_good(handle)):
    try:
        action()
    except KernelError as error:
        print(error.errno, error)
handle.close()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    added, entered = done.stdout.splitlines()
    assert "CAP_SYS_ADMIN" in added
    assert entered.startswith("1 enter namespace") and "CAP_SYS_ADMIN" in entered
    assert not (netns.RUN_DIR / name).exists()


def test_run_uses_the_namespace(ns):
    assert run(ns, ["readlink", "/proc/self/ns/net"]).stdout.strip() == f"net:[{ns.inode}]"
