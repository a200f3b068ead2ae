#!/usr/bin/env python3
"""What 1000 namespaces cost, made and deleted, beside one `ip netns add` or `del` for each.

Run as root: .venv/bin/python bench/netns.py [ROUNDS [NAMESPACES]]. The goal is half of the peer at
the most, wall and CPU, for one `netbpf netns add n1 … n1000` and for `netns.add` in a loop of
Python's; `ip -batch`, a single process as netbpf's, is printed for honesty. A shell starts `ip`
1000 times, as a script does.

It is measured on a tmpfs, which /run is on a system that runs: to make a file on a disk would take
longer than all the rest. A new namespace costs the kernel 0.3 ms, which is most of what is left. A
command pays for its start once, about 80 ms. Seen on a quiet host with two processors, Linux 6.18,
wall and CPU: `ip -batch` 0.20 to 0.24 of `ip netns add`, `netbpf netns add` 0.34 to 0.36,
`netns.add_many` 0.23 to 0.26, a loop of `netns.add` 0.46 to 0.48, as a new thread for each lands on
the other processor. Deleting: 0.08 to 0.30.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from netbpf import libc, netns

GOAL = 0.5
SETTLE = 5.0
"""Seconds for the kernel to end what was deleted, which it does on its own time."""

PEER = "ip netns, each"
GOALS = ("netbpf netns", "netns.add / delete")

Cost = tuple[float, float]
"""Wall and CPU time, in seconds."""


def command(argv: Sequence[str], words: str = "") -> Callable[[], object]:
    """Run a command that has to succeed."""

    def work() -> None:
        subprocess.run(argv, input=words, text=True, check=True, stdout=subprocess.DEVNULL)

    return work


def each(action: Callable[[str], object], names: Sequence[str]) -> Callable[[], object]:
    """Do something with each name."""
    return lambda: [action(name) for name in names]


def cost(work: Callable[[], object]) -> Cost:
    """What ``work`` takes, with the processes that it starts."""
    wall, before = time.monotonic(), os.times()
    work()
    after = os.times()
    # The last of the five is the time of day.
    cpu = sum(now - then for now, then in zip(after[:4], before[:4], strict=True))
    return time.monotonic() - wall, cpu


def ways(names: Sequence[str]) -> Mapping[str, tuple[Callable[[], object], Callable[[], object]]]:
    """How to add these namespaces, and to delete them."""
    loop = 'verb=$1; shift; for name; do ip netns "$verb" "$name"; done'
    ours = [sys.executable, "-m", "netbpf", "netns"]

    def one_each(verb: str) -> Callable[[], object]:
        return command(["sh", "-ec", loop, "sh", verb, *names])

    def batch(verb: str) -> Callable[[], object]:
        words = "".join(f"netns {verb} {name}\n" for name in names)
        return command(["ip", "-batch", "-"], words)

    return {
        PEER: (one_each("add"), one_each("del")),
        "ip -batch": (batch("add"), batch("del")),
        "netbpf netns": (command([*ours, "add", *names]), command([*ours, "del", *names])),
        "netns.add / delete": (each(netns.add, names), each(netns.delete, names)),
        "netns.add_many": (lambda: netns.add_many(names), each(netns.delete, names)),
    }


def compare(rounds: int, count: int) -> dict[str, tuple[Cost, Cost]]:
    """The median of what adding and deleting cost in each way, one after the other every round."""
    names = [f"bench-{secrets.token_hex(3)}-{number}" for number in range(count)]
    taken: dict[str, list[tuple[Cost, Cost]]] = {}
    for _ in range(rounds):
        for way, (add, delete) in ways(names).items():
            added = cost(add)
            missing = set(names) - set(netns.list_names())
            deleted = cost(delete)
            if missing:
                raise SystemExit(f"{way} did not make {len(missing)} of the namespaces")
            taken.setdefault(way, []).append((added, deleted))
            time.sleep(SETTLE)
    return {
        way: (_median([added for added, _ in both]), _median([deleted for _, deleted in both]))
        for way, both in taken.items()
    }


def _median(costs: Sequence[Cost]) -> Cost:
    return median(wall for wall, _ in costs), median(cpu for _, cpu in costs)


def main() -> int:
    """Measure and print; the status says only whether it could be measured."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    # As on any system, whatever /run is here; in a namespace of mounts that ends with this process.
    libc.unshare(libc.CLONE_NEWNS)
    libc.mount("none", "/", "none", libc.MS_REC | libc.MS_PRIVATE)
    libc.mount("none", "/run", "tmpfs", data="mode=0755")
    costs = compare(rounds, count)
    print(f"Linux {os.uname().release}, {count} namespaces, ms for each and ratio to {PEER}")
    print(f"{'':20}{'add: wall':>16}{'CPU':>16}{'del: wall':>16}{'CPU':>16}")
    worst = 0.0
    for way, both in costs.items():
        cells = []
        for verb, one in enumerate(both):
            for kind, seconds in enumerate(one):
                ratio = seconds / costs[PEER][verb][kind]
                cells.append(f"{seconds * 1000 / count:9.3f}  {ratio:5.2f}")
                worst = max(worst, ratio if way in GOALS else 0)
        print(f"{way:20}{''.join(cells)}")
    print(f"at the most {worst:.2f}, {'within' if worst <= GOAL else 'above'} the goal of {GOAL}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
