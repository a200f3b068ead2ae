"""scripts/demo does what it says, in the lab where this kernel cannot, and leaves nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from netbpf.netns import list_names
from tests.netns_fixtures import probes
from tests.netns_fixtures.scripts import run_script, stand_in, state

DEMO = "scripts/demo"


@pytest.mark.needs("netkit", "netkit-single")
def test_the_demo() -> None:
    before = state()
    done = run_script([DEMO])
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "demo: ok"
    # The kernel's own packets say it, by way of ping: through, too long for icmp_guard, dropped.
    received = [int(line.split()[3]) for line in lines if "packets transmitted" in line]
    assert received == [3, 3, 0, 0, 3]
    assert state() == before


@pytest.mark.needs("netkit", "netkit-single")
def test_interrupted_in_the_middle(tmp_path: Path) -> None:
    before = state()
    # Compiling comes when the namespaces and the devices are there.
    clang = stand_in(tmp_path / "bin", "clang", "kill -INT $PPID; sleep 0.2")
    done = run_script([DEMO], path=[clang])
    assert done.returncode == 130, done.stdout + done.stderr
    assert "netkit add" in done.stdout and "netkit attach" not in done.stdout
    assert state() == before


@pytest.mark.skipif("NETBPF_LAB" in os.environ, reason="seen from outside of the lab")
def test_a_failing_step_ends_it(tmp_path: Path) -> None:
    """Where this kernel has no netkit, it is the lab that tells, and passes the status on."""
    before = set(list_names())
    clang = stand_in(tmp_path / "bin", "clang", "exit 7")
    done = run_script([DEMO], path=[clang])
    assert done.returncode == 7, done.stdout + done.stderr
    assert "3 packets transmitted, 3 received" in done.stdout
    assert "demo: ok" not in done.stdout
    assert not {name for name in set(list_names()) - before if name.startswith("demo-")}
    in_lab = probes.has("netkit-single") is False
    assert ("running in the lab" in done.stderr) == in_lab
    if in_lab:
        assert f"not supported by this kernel ({os.uname().release})" in done.stderr


def test_without_root_it_says_so() -> None:
    # Another user, who may nevertheless read the checkout, wherever it is.
    reader = "+dac_override,+dac_read_search"
    other = ["setpriv", "--reuid=65534", f"--inh-caps={reader}", f"--ambient-caps={reader}"]
    done = run_script([*other, DEMO])
    assert done.returncode == 1, done.stdout + done.stderr
    assert "needs root" in done.stderr
    assert "netns add" not in done.stdout
