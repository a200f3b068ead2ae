"""The examples do what they are there to show, and take it back."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.netns_fixtures.scripts import BIN, run_script, stand_in, state

pytestmark = pytest.mark.needs("netkit")
SHELL = "examples/container-setup.sh"
PYTHON = "examples/container_setup.py"


def test_the_script() -> None:
    before = state()
    done = run_script([SHELL])
    assert done.returncode == 0, done.stdout + done.stderr
    received = [int(n) for n in re.findall(r"transmitted, (\d+) received", done.stdout)]
    assert received == [3, 0]
    assert _in_order(done.stdout, "count", "icmp_guard")
    assert _packets(done.stdout) >= 6
    assert state() == before


def test_the_script_interrupted(tmp_path: Path) -> None:
    before = state()
    # By then everything is there; its parent is the script, as netns exec starts no process.
    ping = stand_in(tmp_path / "bin", "ping", "kill -INT $PPID; sleep 0.2")
    done = run_script([SHELL], path=[ping])
    assert done.returncode == 130, done.stdout + done.stderr
    assert _in_order(done.stdout, "count", "icmp_guard")
    assert "packets" not in done.stdout
    assert state() == before


def test_the_program() -> None:
    before = state()
    done = run_script([BIN / "python", PYTHON])
    assert done.returncode == 0, done.stdout + done.stderr
    assert _in_order(done.stdout, "count", "icmp_guard")
    # Three answers of either size reached the counter; only the small ones got past the guard.
    assert _packets(done.stdout) >= 6
    assert state() == before


def test_the_program_failing(tmp_path: Path) -> None:
    before = state()
    ping = stand_in(tmp_path / "bin", "ping", "exit 1")
    done = run_script([BIN / "python", PYTHON], path=[ping])
    assert done.returncode == 1
    assert "wrong pings" in done.stderr
    assert state() == before


def _packets(text: str) -> int:
    found = re.search(r"the container sent (\d+) packets", text)
    assert found is not None, text
    return int(found[1])


def _in_order(text: str, *words: str) -> bool:
    """Whether the words stand in the text in this order, each once; in paths they do not count."""
    places = [[m.start() for m in re.finditer(rf"(?<!/)\b{word} ", text)] for word in words]
    return all(len(place) == 1 for place in places) and places == sorted(places)
