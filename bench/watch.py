#!/usr/bin/env python3
"""What `netbpf watch` costs with a thousand chains, and how soon it notices a change.

Run as root: .venv/bin/python bench/watch.py [CHANGES [PAIRS]]. It makes 500 veth pairs in a
namespace of its own and attaches a program to the ingress of each device, which takes the kernel
some 15 seconds. Beside it stands `ip monitor link`, which hears of devices only. The goals: less
than 5 % of a processor, and every change told within a second.
"""

from __future__ import annotations

import os
import random
import secrets
import select
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from netbpf import Program, netns, tcx
from netbpf.bpf import prog, uapi
from netbpf.netns import NetNS

SHARE_GOAL, NOTICE_GOAL = 0.05, 1.0
IDLE = 10.0
NETBPF = str(Path(sys.executable).with_name("netbpf"))


@contextmanager
def chains(pairs: int, program: Program) -> Iterator[list[int]]:
    """Be in a new namespace with a program at each device of so many pairs; their numbers."""
    name = f"bench-{secrets.token_hex(4)}"
    with ExitStack() as stack:
        netns.add(name)
        stack.callback(netns.delete, name)
        place = stack.enter_context(NetNS.from_name(name))
        stack.enter_context(netns.entered(place))
        with tempfile.NamedTemporaryFile("w") as lines:
            for number in range(pairs):
                lines.write(f"link add veth{number} type veth peer name peer{number}\n")
            lines.flush()
            subprocess.run(["ip", "-batch", lines.name], check=True)
        ifindexes = [ifindex for ifindex, device in socket.if_nameindex() if device != "lo"]
        for ifindex in ifindexes:
            tcx.attach(ifindex, "ingress", program, link=False)
        yield ifindexes


def loaded(name: str) -> Program:
    """A program that leaves the decision to the next one: ``r0 = -1; exit``."""
    insns = struct.pack("=BBhiBBhi", 0xB7, 0, 0, -1, 0x95, 0, 0, 0)
    return prog.load(uapi.BPF_PROG_TYPE_SCHED_CLS, insns, name=name)


def used(pid: int) -> float:
    """The seconds of CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def running(*argv: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process, ended with the block."""
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.terminate()


def share(pid: int) -> float:
    """The part of a processor that a process takes while nothing happens."""
    before, begin = used(pid), time.monotonic()
    time.sleep(IDLE)
    return (used(pid) - before) / (time.monotonic() - begin)


def notice(process: subprocess.Popen[bytes], ifindex: int, program: Program) -> float:
    """The seconds from a change of a chain to the line that tells of it."""
    assert process.stdout is not None
    tcx.attach(ifindex, "ingress", program, link=False)
    begin = time.monotonic()
    ready, _, _ = select.select([process.stdout], [], [], 30)
    taken = time.monotonic() - begin
    if not ready:
        raise SystemExit("a change was not noticed within 30 s")
    os.read(process.stdout.fileno(), 65536)
    return taken


def main() -> int:
    """Measure and print; the status says only whether it could be measured."""
    changes = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    pairs = int(sys.argv[2]) if len(sys.argv) > 2 else 500
    with ExitStack() as stack:
        first, second = (stack.enter_context(loaded(name)) for name in ("first", "second"))
        ifindexes = stack.enter_context(chains(pairs, first))
        with running("ip", "monitor", "link") as peer:
            theirs = share(peer.pid)
        with running(NETBPF, "watch", "--json") as process:
            assert process.stderr is not None
            print(process.stderr.readline().decode().rstrip())
            ours = share(process.pid)
            taken = []
            for ifindex in random.sample(ifindexes, changes):
                time.sleep(random.random() / 2)
                taken.append(notice(process, ifindex, second))
    print(f"ip monitor link  {theirs:.2%} of a processor")
    verdict = "within" if ours <= SHARE_GOAL else "above"
    print(f"netbpf watch     {ours:.2%} of a processor, {verdict} the goal of {SHARE_GOAL:.0%}")
    verdict = "within" if max(taken) <= NOTICE_GOAL else "above"
    print(
        f"{changes} changes noticed after {median(taken):.2f} s (median), {max(taken):.2f} s at "
        f"most, {verdict} the goal of {NOTICE_GOAL:.0f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
