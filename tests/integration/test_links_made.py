"""Links that somebody else makes and closes all the time, while all links are looked at."""

from __future__ import annotations

import errno
import subprocess
import sys
import time

from netbpf.bpf import syscall, uapi
from netbpf.bpf.fd import FD
from netbpf.bpf.link import Link
from netbpf.errors import NotFoundError

# In a namespace of its own, with the program `r0 = 1; exit`.
_MAKE = """
import os
from netbpf import libc
from netbpf.bpf import link_create, prog, uapi
libc.unshare(libc.CLONE_NEWNET)
insns = bytes.fromhex("b700000001000000 9500000000000000")
hook = uapi.BPF_SK_LOOKUP
passing = prog.load(uapi.BPF_PROG_TYPE_SK_LOOKUP, insns, expected_attach_type=hook)
ns = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
while True:
    os.close(link_create.netns(passing.fileno(), ns, hook))
"""


def kernel_says(number: int) -> int:
    try:
        FD(syscall.get_fd_by_id(uapi.BPF_LINK_GET_FD_BY_ID, number)).close()
    except OSError as error:
        return error.errno or 0
    return 0


def test_a_link_in_the_making_is_none_yet() -> None:
    with subprocess.Popen([sys.executable, "-c", _MAKE]) as maker:
        try:
            said = set()
            deadline = time.monotonic() + 60
            while errno.EAGAIN not in said:
                assert time.monotonic() < deadline, said
                assert maker.poll() is None
                said |= {kernel_says(number) for number in Link.ids()}
            looked, until = 0, time.monotonic() + 1
            while time.monotonic() < until or looked < 100:
                for number in Link.ids():
                    try:
                        Link.from_id(number).close()
                    except NotFoundError:
                        continue
                    looked += 1
        finally:
            maker.kill()
