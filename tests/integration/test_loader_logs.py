"""What the loader tells on its way: on stderr of the command, and to an application's handler."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from netbpf import loader
from tests.netns_fixtures.objects import build

TEXT = """
extern const void netbpf_none __ksym __weak;
SEC("tc") int small(struct __sk_buff *skb) { return &netbpf_none != 0; }
char _license[] SEC("license") = "GPL";
"""


@pytest.fixture
def file() -> Path:
    return build(TEXT, name="logs")


def run(file: Path, level: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "netbpf", "prog", "load", file],
        capture_output=True,
        text=True,
        env=os.environ | {"NETBPF_LOG_LEVEL": level},
    )


def test_the_command_tells_what_it_is_asked_for(file: Path) -> None:
    told = run(file, "debug")
    assert told.returncode == 0
    assert "netbpf.loader: extern netbpf_none: not there, it is weak" in told.stderr
    assert "netbpf.loader: program small: " in told.stderr
    assert "netbpf.loader" not in told.stdout
    for level in ("", "warn", "info"):
        assert "netbpf.loader" not in run(file, level).stderr


def test_another_word_is_refused(file: Path) -> None:
    told = run(file, "loud")
    assert told.returncode == 2
    assert "NETBPF_LOG_LEVEL is one of warn, info, debug, not 'loud'" in told.stderr


def test_an_application_hears_it(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="netbpf.loader"), loader.open(file) as obj:
        obj.load()
    assert "extern netbpf_none: not there, it is weak" in caplog.messages
