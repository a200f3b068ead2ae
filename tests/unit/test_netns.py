"""Names and references of namespaces, without the kernel's help."""

from __future__ import annotations

import os
import threading

import pytest

from netbpf import libc
from netbpf.errors import KernelError, NotFoundError
from netbpf.netns import NetNS, check_name, entered
from netbpf.netns.enter import in_thread
from netbpf.netns.holders import Namespace


@pytest.mark.parametrize(
    "name", ["blue", "a b", "ns.1", "-x", "...", "é" * 127, "x" * 255, "pid:1"]
)
def test_names_that_the_filesystem_takes(name):
    assert check_name(name) == name


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "empty"),
        (".", "cannot be called"),
        ("..", "cannot be called"),
        ("../etc", "'/'"),
        ("a/b", "'/'"),
        ("a\nb", "control"),
        ("a\0", "control"),
        ("\x7f", "control"),
        ("x" * 256, "255 bytes"),
        ("é" * 128, "255 bytes"),
    ],
)
def test_hostile_names(name, why):
    with pytest.raises(ValueError, match=why):
        check_name(name)


@pytest.mark.parametrize(
    "text", ["pid:", "pid:0", "pid:-1", "pid:x", "pid:1x", "pid:²", "pid:9" * 9]
)
def test_references_that_are_no_process(text):
    with pytest.raises(ValueError, match="write pid:N"):
        NetNS.parse(text)


def test_a_path_that_is_none(tmp_path):
    (tmp_path / "file").touch()
    for path, why in (
        (tmp_path / "nope", "no namespace"),
        (tmp_path / "file" / "below", "no namespace"),
        (tmp_path / "file", "is no network namespace"),
        (tmp_path, "is no network namespace"),
    ):
        with pytest.raises(NotFoundError, match=why):
            NetNS.parse(os.fspath(path))
    with pytest.raises(ValueError, match="NUL"):
        NetNS.parse("/tmp/\0")


def test_a_fifo_is_not_opened(tmp_path):
    """Opening one without a writer would wait for ever."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(NotFoundError, match="is no network namespace"):
        NetNS.from_path(fifo)


def test_a_handle_knows_when_it_is_closed():
    ns = NetNS.current()
    assert ns.is_current()
    assert os.fstat(ns.fileno()).st_ino == ns.inode
    ns.close()
    ns.close()
    assert ns.closed
    with pytest.raises(ValueError, match="is closed"):
        ns.fileno()


def test_a_leaked_handle_is_told():
    ns = NetNS.current()
    with pytest.warns(ResourceWarning, match="unclosed namespace"):
        del ns


def test_equal_handles_are_the_same_namespace():
    with NetNS.current() as first, NetNS.from_pid(os.getpid()) as second:
        assert first == second
        assert len({first, second}) == 1
        assert first != "something else"


def test_not_entering_says_which_capability(monkeypatch):
    def refuse(fd, kind):
        raise OSError(1, "Operation not permitted")

    with NetNS.current() as ns:
        monkeypatch.setattr(libc, "setns", refuse)
        with pytest.raises(KernelError, match="CAP_SYS_ADMIN") as caught:
            from netbpf.netns import enter_for_good

            enter_for_good(ns)
    assert caught.value.code == "not_permitted"


def test_a_failed_return_is_fatal(monkeypatch, capfd):
    """The decision, without dying of it; the integration test dies."""
    aborted = []
    calls = []

    def setns(fd, kind):
        calls.append(fd)
        # Whether it could come back, there, and back.
        if len(calls) == 3:
            raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr(libc, "setns", setns)
    monkeypatch.setattr(os, "abort", lambda: aborted.append(True))
    monkeypatch.setattr(NetNS, "is_current", lambda self: False)
    with NetNS.current() as ns, entered(ns):
        pass
    assert aborted == [True]
    assert "cannot return from a network namespace" in capfd.readouterr().err


def test_a_thread_hands_back_what_it_did():
    assert in_thread(threading.get_ident) != threading.get_ident()
    with pytest.raises(KeyError):
        in_thread(lambda: {}["missing"])


def test_how_a_namespace_is_written():
    assert Namespace(1, name="blue", pids=(5,)).reference == "blue"
    assert Namespace(1, paths=("/x",), pids=(5,)).reference == "/x"
    assert Namespace(1, pids=(5, 6)).reference == "pid:5"
    assert Namespace(1).reference is None
    with pytest.raises(ValueError, match="nothing visible"):
        Namespace(1).open()
