"""A command that is killed at any of its steps.

A step is a call of bpf(2) or a change to a folder; the process is killed right before each in turn,
except that of several looks in a row only the first is a step.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from typing import Any

from netbpf import libc
from netbpf.bpf import uapi
from tests.netns_fixtures.cli import netbpf

FOLDER_CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link"}
"""Python's audit events."""

CHANGES = {
    *(uapi.BPF_PROG_ATTACH, uapi.BPF_PROG_DETACH, uapi.BPF_OBJ_PIN),
    *(uapi.BPF_LINK_CREATE, uapi.BPF_LINK_UPDATE, uapi.BPF_LINK_DETACH),
}

LOOKS = {
    *(uapi.BPF_OBJ_GET, uapi.BPF_OBJ_GET_INFO_BY_FD, uapi.BPF_PROG_QUERY),
    *(uapi.BPF_PROG_GET_NEXT_ID, uapi.BPF_LINK_GET_NEXT_ID),
    *(uapi.BPF_PROG_GET_FD_BY_ID, uapi.BPF_LINK_GET_FD_BY_ID),
}

IN_LAB = "NETBPF_LAB" in os.environ


def killed_before(step: int, *arguments: object) -> bool:
    """Run a command line in a process of its own, which ends right before its step of that number.

    :returns: False when it was done before it came so far.
    """
    pid = os.fork()
    if pid == 0:
        try:
            _die_before(step)
            os._exit(netbpf(*arguments).status)
        finally:
            os._exit(99)
    _, status = os.waitpid(pid, 0)
    if not os.WIFSIGNALED(status):
        assert os.waitstatus_to_exitcode(status) == 0
        return False
    assert os.WTERMSIG(status) == signal.SIGKILL
    return True


def _die_before(step: int) -> None:
    steps, real, last = itertools.count(), libc.bpf, "other"

    def one_more(kind: str) -> None:
        nonlocal last
        # Between two looks nothing is different. A guest's processor is emulated: there only
        # what changes the chain or a folder, and what follows.
        counts = "change" in (kind, last) or (not IN_LAB and (kind, last) != ("look", "look"))
        last = kind
        if counts and next(steps) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    def counted(cmd: int, *rest: Any) -> int:
        one_more("change" if cmd in CHANGES else "look" if cmd in LOOKS else "other")
        return real(cmd, *rest)

    def audited(event: str, _: object) -> None:
        if event in FOLDER_CHANGES:
            one_more("change")

    libc.bpf = counted
    sys.addaudithook(audited)
