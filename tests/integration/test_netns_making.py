"""Namespaces made by the hundred, and makers that are stopped at any moment."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from netbpf import netns
from netbpf.errors import ConflictError
from tests.netns_fixtures.cli import netbpf, ok
from tests.netns_fixtures.namespaces import random_name


@pytest.fixture
def prefix() -> Iterator[str]:
    """What the names of a test begin with; whatever carries it afterwards goes away."""
    made = random_name()
    yield made
    for name in left(made):
        netns.delete(name)


def left(prefix: str) -> list[str]:
    return sorted(name for name in os.listdir(netns.RUN_DIR) if name.startswith(prefix))


def test_many_in_one_go(prefix: str) -> None:
    names = [f"{prefix}-{number}" for number in range(50)]
    threads = threading.active_count()
    home = os.stat("/proc/thread-self/ns/net").st_ino
    made = netns.add_many(names)
    assert list(made) == names
    assert len(set(made.values())) == 50
    for name, inode in made.items():
        assert os.stat(netns.RUN_DIR / name).st_ino == inode
    assert os.stat("/proc/thread-self/ns/net").st_ino == home
    assert threading.active_count() == threads
    ip_list = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
    assert set(names) <= {line.split()[0] for line in ip_list.splitlines()}
    assert ok("netns", "del", *names)["deleted"] == names
    assert left(prefix) == []
    assert netns.add_many([]) == {}


def test_a_failure_in_the_middle_leaves_none(prefix: str) -> None:
    names = [f"{prefix}-{number}" for number in range(400)]
    last = netns.RUN_DIR / names[-1]

    def rival() -> None:
        while not (netns.RUN_DIR / names[0]).exists():
            time.sleep(0.0001)
        last.touch()

    netns.RUN_DIR.mkdir(exist_ok=True)
    thread = threading.Thread(target=rival)
    thread.start()
    with pytest.raises(ConflictError, match=f"add namespace {names[-1]}"):
        netns.add_many(names)
    thread.join()
    assert left(prefix) == [names[-1]], "what another made stays"


def test_a_name_that_is_there_twice(prefix: str) -> None:
    result = netbpf("-j", "netns", "add", prefix, f"{prefix}x", prefix)
    assert (result.status, result.error["code"]) == (2, "usage")
    assert "the name is there twice" in result.error["message"]
    assert left(prefix) == []


def test_an_interruption_in_the_middle_leaves_none(prefix: str) -> None:
    script = f"""
from netbpf import netns
names = [f"{prefix}-{{number}}" for number in range(2_000)]
netns.add_many(names)
"""
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", script], stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                deadline = time.monotonic() + 60
                while len(left(prefix)) < 20:
                    assert time.monotonic() < deadline
                    time.sleep(0.001)
                process.send_signal(signal.SIGINT)
                err = process.communicate(timeout=60)[1]
            finally:
                process.kill()
        assert err.endswith("KeyboardInterrupt\n")
        assert left(prefix) == []


def test_what_a_killed_netbpf_leaves_is_no_hindrance(prefix: str) -> None:
    """Whatever the moment: each name is whole or absent, or only a file that add takes over."""
    script = f"""
from netbpf import netns
number = 0
while True:
    number += 1
    netns.add(f"{prefix}-{{number}}")
    netns.delete(f"{prefix}-{{number}}")
"""
    for _ in range(8):
        with subprocess.Popen([sys.executable, "-c", script]) as process:
            deadline = time.monotonic() + 30
            while not left(prefix):
                assert time.monotonic() < deadline
            time.sleep(random.random() * 0.02)
            process.kill()
        for name in left(prefix):
            if name not in netns.list_names():
                assert netns.add(name) == os.stat(netns.RUN_DIR / name).st_ino
            netns.delete(name)


def unfinished(name: str, mode: int) -> Path:
    netns.RUN_DIR.mkdir(exist_ok=True)
    path = netns.RUN_DIR / name
    path.touch()
    path.chmod(mode)
    return path


def test_one_mounted_on_top_of_another_goes_with_it(prefix: str) -> None:
    netns.add(prefix)
    path = netns.RUN_DIR / prefix
    subprocess.run(["unshare", "--net=" + str(path), "true"], check=True)
    assert Path("/proc/self/mountinfo").read_text().count(f" {path} ") == 2
    netns.delete(prefix)
    assert not path.exists()


def test_a_file_without_its_mount_is_taken_over_if_it_is_ours(prefix: str) -> None:
    unfinished(prefix, 0o400)
    assert ok("netns", "add", prefix, "--dry-run")["added"] == [{"name": prefix, "inode": None}]
    (made,) = ok("netns", "add", prefix)["added"]
    assert made["inode"] == os.stat(netns.RUN_DIR / prefix).st_ino
    assert netbpf("netns", "add", prefix).status == 5


@pytest.mark.parametrize("mode", [0, 0o644])
def test_a_file_of_somebody_else_stays(prefix: str, mode: int) -> None:
    """One of mode 0 may be an `ip netns add` that is about to mount there."""
    unfinished(prefix, mode)
    result = netbpf("-j", "netns", "add", prefix)
    assert (result.status, result.error["code"]) == (5, "conflict")
    assert f"netbpf netns del {prefix}" in result.error["hint"]


def test_eight_processes_on_three_names(prefix: str, tmp_path: Path) -> None:
    """ip's and netbpf's adds and dels in each other's way: in the end each name is whole or gone.

    netbpf knows every outcome by name, and removes mounts on top of one another.
    """
    names = [f"{prefix}-{number}" for number in range(3)]
    ours = f"""
import random, sys, time
from netbpf import netns
from netbpf.errors import ConflictError, NotFoundError
end = time.monotonic() + 2
while time.monotonic() < end:
    name = random.choice({names!r})
    try:
        random.choice((netns.add, netns.delete))(name)
    except (ConflictError, NotFoundError):
        pass
"""
    going = tmp_path / "going"
    going.touch()
    again = "; ".join(f"ip netns add {name}; ip netns del {name}" for name in names)
    theirs = f"exec 2>/dev/null; while [ -e {going} ]; do {again}; done"
    rivals = [subprocess.Popen(["sh", "-c", theirs]) for _ in range(4)]
    workers = [
        subprocess.Popen([sys.executable, "-c", ours], stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    try:
        for worker in workers:
            assert worker.communicate(timeout=60)[1] == ""
    finally:
        going.unlink()
        for process in (*rivals, *workers):
            process.communicate(timeout=60)
    for name in left(prefix):
        netbpf("netns", "del", name)
        assert not (netns.RUN_DIR / name).exists()
        assert netns.add(name) == os.stat(netns.RUN_DIR / name).st_ino
