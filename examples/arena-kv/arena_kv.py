#!/usr/bin/env python3
"""A table in an arena: this process fills it, a tcx program answers look-ups out of it.

No datagram gets to a socket here: the program turns each one around where it comes in. Needs root,
Linux 6.9 and ip; arena_kv.o is compiled already (scripts/build-arena).
"""

from __future__ import annotations

import secrets
import socket
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from netbpf import NetNS, loader, netns, tcx
from netbpf.loader.arena import Arena, Place

OBJECT = Path(__file__).with_name("arena_kv.o")
PORT = 7777
SLOTS, PROBES = 1024, 16
QUESTION = struct.Struct("=QQB")


class Table:
    """The table of arena_kv.c. Programs read it all the time: one process at a time may write."""

    def __init__(self, arena: Arena) -> None:
        self._table = arena.variable("table")

    def _slots(self, key: int) -> Iterator[Place]:
        start = (key * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF) >> 54
        for step in range(PROBES):
            yield self._table.at((start + step) % SLOTS)

    def _find(self, key: int) -> Place | None:
        return next((s for s in self._slots(key) if s["used"] and s["key"] == key), None)

    def get(self, key: int) -> int | None:
        """The value of ``key``, None when there is none."""
        slot = self._find(key)
        return None if slot is None else int(slot["values"][slot["current"]])

    def put(self, key: int, value: int) -> None:
        """Set the value of ``key``; a program sees the old one or the new one, nothing between."""
        slot = self._find(key)
        if slot is not None:
            other = 1 - slot["current"]
            slot[f"values[{other}]"] = value
            slot["current"] = other
            return
        slot = next((s for s in self._slots(key) if not s["used"]), None)
        if slot is None:
            raise OverflowError(f"no room for {key}: {PROBES} others have its place")
        slot.value = {"key": key, "values": [value, 0], "current": 0}
        slot["used"] = 1

    def delete(self, key: int) -> bool:
        """Remove ``key``; whether it was there."""
        slot = self._find(key)
        if slot is not None:
            slot["used"] = 0
        return slot is not None


def ask(client: socket.socket, address: str, key: int) -> int | None:
    """What the answer to a look-up of ``key`` says."""
    client.sendto(QUESTION.pack(key, 0, 0), (address, PORT))
    answer = client.recv(QUESTION.size)
    found, value, there = QUESTION.unpack(answer)
    if found != key:
        raise RuntimeError(f"asked for {key}, told of {found}")
    return value if there else None


@contextmanager
def network() -> Iterator[tuple[NetNS, NetNS]]:
    """Two namespaces and a veth pair between them, ``eth0`` in both: 10.215.0.1 and .2."""
    names = [f"kv-{end}-{secrets.token_hex(4)}" for end in ("server", "client")]
    made = []
    try:
        for name in names:
            netns.add(name)
            made.append(name)
        ip = ["ip", "-n", names[0], "link", "add", "eth0", "type", "veth", "peer", "name", "eth0"]
        subprocess.run([*ip, "netns", names[1]], check=True)
        for number, name in enumerate(names, 1):
            ip = ["ip", "-n", name]
            address = f"10.215.0.{number}/24"
            subprocess.run([*ip, "addr", "add", address, "dev", "eth0"], check=True)
            subprocess.run([*ip, "link", "set", "eth0", "up"], check=True)
        with NetNS.from_name(names[0]) as server, NetNS.from_name(names[1]) as client:
            yield server, client
    finally:
        for name in made:
            netns.delete(name)


def main() -> int:
    """Fill the table, ask from the other namespace, change it meanwhile."""
    with network() as (server, there), loader.open(OBJECT) as obj:
        obj.load()
        table = Table(obj.arena)
        for key in range(1, 101):
            table.put(key, key * key)
        with netns.entered(there):
            client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with client, netns.entered(server):
            client.settimeout(2)
            device = socket.if_nametoindex("eth0")
            attached = tcx.attach(device, "ingress", obj.programs["lookup"])
            assert attached.link is not None
            with attached.link:
                table.put(7, 4711)
                table.delete(8)
                answers = [ask(client, "10.215.0.1", key) for key in (3, 7, 8, 100, 101)]
                print(f"answers: {answers}")
                if answers != [9, 4711, None, 10000, None]:
                    print("the wrong answers", file=sys.stderr)
                    return 1
                times = []
                for _ in range(1000):
                    start = time.perf_counter()
                    ask(client, "10.215.0.1", 7)
                    times.append(time.perf_counter() - start)
                print(f"median of 1000 look-ups: {statistics.median(times) * 1e6:.0f} us")
                asked, answered = (obj.arena.variable(n).value for n in ("asked", "answered"))
                print(f"asked {asked} times, answered {answered}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
