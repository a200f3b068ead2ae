"""Entering is of one thread: no other ever moves, and one that cannot return ends the process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from netbpf import netns
from netbpf.netns import NetNS
from tests.netns_fixtures.cli import process


def inodes_of_threads() -> dict[int, int]:
    """In which namespace each thread of this process is, as /proc tells."""
    found = {}
    for task in Path("/proc/self/task").iterdir():
        try:
            found[int(task.name)] = os.stat(task / "ns/net").st_ino
        except OSError:
            continue
    return found


def test_thirty_threads_each_where_it_says(two_ns: tuple[NetNS, NetNS]) -> None:
    home = os.stat("/proc/thread-self/ns/net").st_ino
    there: dict[int, int] = {}
    wrong: list[str] = []
    stop = threading.Event()

    def wander(number: int) -> None:
        own = threading.get_native_id()
        mine = two_ns[number % 2]
        while not stop.is_set():
            there.pop(own, None)
            with netns.entered(mine):
                there[own] = mine.inode
                if os.stat("/proc/thread-self/ns/net").st_ino != mine.inode:
                    wrong.append("not inside")
                there.pop(own)
            if os.stat("/proc/thread-self/ns/net").st_ino != home:
                wrong.append("not back")

    def stay() -> None:
        while not stop.is_set():
            if os.stat("/proc/thread-self/ns/net").st_ino != home:
                wrong.append("moved")

    threads = [threading.Thread(target=wander, args=(number,)) for number in range(20)]
    threads += [threading.Thread(target=stay) for _ in range(10)]
    for thread in threads:
        thread.start()
    staying = {thread.native_id for thread in threads[20:]} | {threading.get_native_id()}
    end = time.monotonic() + 1
    while time.monotonic() < end:
        seen = inodes_of_threads()
        assert {seen[number] for number in staying if number in seen} == {home}
        assert set(seen.values()) <= {home, two_ns[0].inode, two_ns[1].inode}
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert set(inodes_of_threads().values()) == {home}


def test_making_and_run_in_move_nobody(ns: NetNS) -> None:
    home = os.stat("/proc/thread-self/ns/net").st_ino
    seen: set[int] = set()
    stop = threading.Event()

    def watch() -> None:
        own = threading.get_native_id()
        while not stop.is_set():
            found = inodes_of_threads()
            seen.update({found[own], found[threading.main_thread().native_id or 0]})

    watcher = threading.Thread(target=watch)
    watcher.start()
    name = f"{ns.name}-made"
    for _ in range(20):
        netns.add(name)
        netns.delete(name)
        netns.run_in(ns, lambda: None)
    stop.set()
    watcher.join()
    assert seen == {home}


def test_rights_that_are_lost_inside_are_fatal(ns: NetNS) -> None:
    """CAP_SYS_ADMIN goes inside the block: the kernel itself refuses the way back."""
    script = f"""
import os
from netbpf import netns
with netns.NetNS.from_name({ns.name!r}) as ns, netns.entered(ns):
    os.setresuid(65534, 65534, 65534)
print("went on in the wrong namespace")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == -signal.SIGABRT
    assert "cannot return from a network namespace" in done.stderr
    assert "Operation not permitted" in done.stderr
    assert done.stdout == ""


def test_without_rights_nobody_leaves(ns: NetNS) -> None:
    result = process("-j", "-n", ns.name, "tcx", "show")
    assert result.returncode == 0, result.stdout
    refused = subprocess.run(
        ["setpriv", "--bounding-set=-sys_admin", sys.executable, "-m", "netbpf", "-n",
         str(ns.name), "tcx", "show"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )  # fmt: skip
    assert refused.returncode == 4
    assert f"enter namespace {ns.name}: Operation not permitted" in refused.stderr
    assert "CAP_SYS_ADMIN" in refused.stderr
