#!/usr/bin/env python3
"""The CPU time of 1000 netkit pairs: netbpf's `add_many` beside `ip -batch`, and ways to ask.

Run as root: .venv/bin/python bench/netkit_create.py [ROUNDS [PAIRS]]. Where the running kernel has
no netkit, it runs itself in the lab; the `ip` that knows netkit is unpacked into the lab's cache.
The start of the interpreter is not counted; that of `ip`, a few milliseconds, is. The goal is a
ratio of 1.3 at the most. It ends with what show and delete cost.

The kernel names the peers, as `ip -batch` can name only one: it takes the word `peer` of a second
line for a duplicate (seen with iproute2 6.15).

Packing by hand won: what the messages have in common is packed once, a dozen goes out with one
system call, and each is answered by the new device. Seen on a busy host, Linux 7.2 in the lab under
TCG, 1000 pairs, six rounds: `add_many` 1.21; the same without its settings and checks, the name
replaced in a message, 1.14; a system call for each 1.39; with names for the peers 0.88.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.common import cpu_seconds, table
from lab.arch import host_arch
from lab.cache import cache_root
from lab.tools import Tools
from netbpf import netns
from netbpf.errors import NotSupportedError
from netbpf.netkit import device
from netbpf.netkit.model import Settings
from netbpf.netkit.request import Bodies
from netbpf.netlink import links
from netbpf.netlink.rtnl import Rtnl
from netbpf.netns import NetNS

ROOT = Path(__file__).resolve().parents[1]
GOAL = 1.3
BASE = "ip -batch"
OURS = "add_many"


@contextmanager
def namespace() -> Iterator[None]:
    """Be in a new namespace."""
    name = f"bench-{secrets.token_hex(4)}"
    netns.add(name)
    try:
        with NetNS.from_name(name) as place, netns.entered(place):
            yield
    finally:
        netns.delete(name)


def settings(pairs: int) -> Iterator[Settings]:
    """The pairs that every way makes."""
    return Settings.numbered("primary{:05}", range(pairs))


def named(pairs: int) -> Iterator[Settings]:
    """The same with names for the peers, which spares the kernel the search for a free one."""
    return Settings.numbered("primary{:05}", range(pairs), peer="peer{:05}")


def one_by_one(pairs: int) -> None:
    """A message and a system call for each pair."""
    with Rtnl() as rtnl:
        for one in settings(pairs):
            links.create(rtnl, Bodies().of(one, None))


def patched(pairs: int) -> None:
    """One message encoded, the names in it replaced; all the same length, as they must be."""
    first = "primary00000"
    template = Bodies().of(Settings(name=first), None)
    with Rtnl() as rtnl:
        for start in range(0, pairs, 12):
            numbers = range(start, min(start + 12, pairs))
            names = (b"primary%05d" % number for number in numbers)
            links.create_many(rtnl, [template.replace(first.encode(), name) for name in names])


def measured(work: Callable[[], object]) -> float:
    """User and system time of this process while ``work`` is done."""
    before = time.process_time()
    work()
    return time.process_time() - before


def supported() -> bool:
    """Whether the running kernel has netkit."""
    with namespace():
        try:
            device.add("nk0")
        except NotSupportedError:
            return False
        return True


def compare(ip: list[str], rounds: int, pairs: int) -> dict[str, float]:
    """The least CPU time of each way, one after the other in every round, then of the rest.

    The least, as a guest counts as its own what the host's processors do for others.
    """
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder) / "pairs"
        words = (f"link add primary{n:05} type netkit\n" for n in range(pairs))
        lines.write_text("".join(words))
        ways: Mapping[str, Callable[[], float]] = {
            BASE: lambda: cpu_seconds([*ip, "-batch", str(lines)]),
            OURS: lambda: measured(lambda: device.add_many(settings(pairs))),
            "one request for each": lambda: measured(lambda: one_by_one(pairs)),
            "one message, patched": lambda: measured(lambda: patched(pairs)),
            "add_many, peers named": lambda: measured(lambda: device.add_many(named(pairs))),
        }
        for number in range(rounds + 1):
            for name, way in ways.items():
                with namespace():
                    taken = way()
                    shown = measured(device.show)
                    names = [one.name for one in device.show() if one.primary]
                    if len(names) != pairs:
                        raise SystemExit(f"{name} made {len(names)} pairs")
                    deleted = measured(lambda: device.delete(*names))  # noqa: B023
                # The first round fills caches.
                if number:
                    times.setdefault(name, []).append(taken)
                    times.setdefault("show all of them", []).append(shown)
                    times.setdefault("delete all of them", []).append(deleted)
    return {name: min(taken) for name, taken in times.items()}


def main() -> int:
    """Measure and print; the status says only whether it could be measured."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    pairs = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    if not supported():
        if "NETBPF_LAB" in os.environ:
            raise SystemExit("the lab's kernel has no netkit")
        # Unpacked here: a guest has no network.
        os.environ["BENCH_IP"] = json.dumps(Tools(cache_root(), host_arch()).ip().argv())
        argv = [str(ROOT / "lab/run"), "--", sys.executable, __file__, str(rounds), str(pairs)]
        return subprocess.run(argv, check=False).returncode
    known = os.environ.get("BENCH_IP")
    ip = json.loads(known) if known else Tools(cache_root(), host_arch()).ip().argv()
    times = compare(ip, rounds, pairs)
    ratio = times[OURS] / times[BASE]
    print(f"Linux {os.uname().release}, {pairs} pairs\n{table(times, base=BASE)}")
    verdict = "within" if ratio <= GOAL else "above"
    print(f"{OURS}: {ratio:.2f} times {BASE}, {verdict} the goal of {GOAL}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
