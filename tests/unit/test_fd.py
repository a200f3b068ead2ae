"""A descriptor's owner: closes once, is never 0, and tells when it was forgotten."""

from __future__ import annotations

import gc
import os
import subprocess
import sys

import pytest

from netbpf.bpf.fd import FD


def test_closes_once() -> None:
    reading, writing = os.pipe()
    os.close(writing)
    fd = FD(reading)
    with fd:
        assert fd.fileno() == reading
    assert fd.closed
    fd.close()
    with pytest.raises(ValueError, match="closed"):
        fd.fileno()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(reading)


def test_dup_and_detach() -> None:
    reading, writing = os.pipe()
    os.close(writing)
    with FD(reading) as fd, fd.dup() as second:
        assert second.fileno() != fd.fileno()
        assert os.path.sameopenfile(second.fileno(), fd.fileno())
        given = second.detach()
    os.close(given)


def test_forgotten_one_warns() -> None:
    reading, writing = os.pipe()
    os.close(writing)
    with pytest.warns(ResourceWarning, match="unclosed FD"):
        FD(reading)
        gc.collect()


def test_never_0() -> None:
    # In a process of its own, whose standard input can be closed.
    code = (
        "import os; os.close(0); from netbpf.bpf.fd import FD\n"
        "fd = FD(os.open('/dev/null', os.O_RDONLY)); print(fd.fileno()); fd.close()"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert int(result.stdout) >= 3


def test_a_negative_number_is_none() -> None:
    with pytest.raises(ValueError, match="not a file descriptor"):
        FD(-1)
