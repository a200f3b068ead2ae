"""The lab on real guests: few of them, each looked at from both sides."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif("NETBPF_LAB" in os.environ, reason="a guest starts no guests")

ROOT = Path(__file__).resolve().parents[2]
RUN = ROOT / "lab/run"
PATIENCE = 120
"""Seconds for one guest on a busy machine; a cold cache is filled before."""


@pytest.fixture(scope="module", autouse=True)
def prepared():
    """The cache is full: otherwise a test's own deadline would end the download."""
    subprocess.run([RUN, "--prepare"], check=True, timeout=600)


def lab(*words: str | Path, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [RUN, *words],
        cwd=cwd,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@contextmanager
def started(*words: str | Path) -> Iterator[subprocess.Popen[str]]:
    """A lab whose command already said a line."""
    with subprocess.Popen(
        [RUN, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


INSIDE = r"""
set -eu
echo "release $(uname -r)"
echo "lab $NETBPF_LAB"
echo "variable $LAB_TEST"
echo "folder $(pwd)"
echo "user $(id -u) $(cat /proc/sys/kernel/hostname)"
echo "lo $(cat /sys/class/net/lo/operstate) $(ls /sys/class/net | wc -l)"
echo "bpffs $(stat -f -c %T /sys/fs/bpf)"
echo "cgroup $(stat -f -c %T /sys/fs/cgroup)"
echo "stdin $(readlink /proc/self/fd/0)"
ping -c 1 -W 5 127.0.0.1 >/dev/null && echo "ping ok"
ip link add v0 type veth peer name v1 && echo "veth $(cat /sys/class/net/v0/mtu)"
echo lost >"$LAB_FOLDER/new"
echo lost >"$LAB_FOLDER/old"
rm "$LAB_FOLDER/gone"
echo "written $(cat "$LAB_FOLDER/old")"
echo kept >"$NETBPF_LAB_OUT/kept"
head -c 3000000 /dev/zero >"$NETBPF_LAB_OUT/zeros"
head -c 1000000 /dev/zero | tr '\0' x
echo
echo trouble >/dev/stderr
sleep 1000 &
exit 7
"""


def test_a_command_in_the_guest(tmp_path):
    folder, out = tmp_path / "with space", tmp_path / "made/by lab, too"
    folder.mkdir()
    (folder / "old").write_text("old")
    (folder / "gone").write_text("still here")
    done = lab(
        *("--out", out, "--", "sh", "-c", INSIDE),
        cwd=folder,
        LAB_TEST="a 'b' $c\n",
        LAB_FOLDER=str(folder),
    )
    assert done.returncode == 7, done.stderr
    assert done.stderr == "trouble\n"
    *lines, filler = done.stdout.splitlines()
    assert filler == "x" * 1_000_000
    said = dict(line.split(" ", 1) for line in lines if line)
    assert said["lab"] == said["release"] != os.uname().release
    assert tuple(map(int, said["release"].split(".")[:2])) >= (7, 1)
    assert said["variable"] == "a 'b' $c"
    assert said["folder"] == str(folder)
    assert said["user"] == "0 netbpf-lab"
    assert said["lo"] == "unknown 1"  # up, and alone
    assert said["bpffs"] == "bpf_fs"
    assert said["cgroup"] == "cgroup2fs"
    assert said["stdin"] == "/dev/null"
    assert said["ping"] == "ok"
    assert said["veth"] == "1500"
    assert said["written"] == "lost"
    # Seen from here: only the output folder was written to.
    assert {p.name: p.read_text() for p in folder.iterdir()} == {"old": "old", "gone": "still here"}
    assert (out / "kept").read_text() == "kept\n"
    zeros = hashlib.sha256((out / "zeros").read_bytes()).hexdigest()
    assert zeros == hashlib.sha256(bytes(3_000_000)).hexdigest()


def test_lost_guests_side_by_side():
    """A panic and a hang; the third, beside them, is none of that."""
    with (
        started("--", "sh", "-c", "echo up; echo c >/proc/sysrq-trigger; sleep 60") as panics,
        started("--timeout", "25", "--", "sh", "-c", "echo up; echo mark >/dev/console; sleep 99")
        as hangs,
        started("--", "sh", "-c", "echo up; kill -SEGV $$") as ends,
    ):  # fmt: skip
        said = {p: p.communicate(timeout=PATIENCE) for p in (panics, hangs, ends)}
    assert [p.returncode for p in (panics, hangs, ends)] == [125, 125, 128 + signal.SIGSEGV]
    for out, _ in said.values():
        assert out == "up\n"
    assert "sysrq triggered crash" in said[panics][1]
    assert "no status within 25 s" in said[hangs][1]
    assert "mark" in said[hangs][1]
    assert said[ends][1] == ""


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"  # the machine's own first process may be slow to bury it


def test_nothing_outlives_a_lab_that_is_ended(tmp_path):
    mounts = Path("/proc/self/mountinfo").read_text()
    numbers = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
    command = ("--out", tmp_path, "--", "sh", "-c", "echo up; exec sleep 1000")
    with started(*command) as a, started(*command) as b, started(*command) as c:
        labs = (a, b, c)
        for process in labs:
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"
        helpers = [child for process in labs for child in children(process.pid)]
        assert len(helpers) == 9  # QEMU and two file servers each
        assert all(map(alive, helpers))
        for process, number in zip(labs, numbers, strict=True):
            process.send_signal(number)
        statuses = [process.wait(timeout=20) for process in labs]
    assert statuses == [-signal.SIGKILL, 128 + signal.SIGTERM, 128 + signal.SIGINT]
    deadline = time.monotonic() + 10
    while any(map(alive, helpers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in helpers if alive(pid)]
    assert Path("/proc/self/mountinfo").read_text() == mounts


def test_an_older_kernel_by_its_version():
    done = lab("--kernel", "6.12", "--", "uname", "-r")
    assert done.stdout.startswith("6.12."), done.stderr


def test_a_folder_without_packages_names_the_missing_one(tmp_path):
    """A new cache, so nothing is there; no guest starts."""
    done = lab("--debs", tmp_path, "--", "true", XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert done.returncode == 125
    assert done.stdout == ""
    assert f"in {tmp_path}" in done.stderr
    assert "Traceback" not in done.stderr
