"""Updates under a flood of packets: each packet is seen by exactly one of two versions."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from netbpf import loader
from netbpf.bpf.link import Link
from netbpf.bpf.prog import Program
from tests.netns_fixtures.hooks import Site
from tests.netns_fixtures.packets import UdpSink, socket_in

PACKETS = 20_000
STRIDE = 100
"""Packets from one update to the next."""


class Flood(threading.Thread):
    """Sends the numbers from 0 on, never more than three hundred ahead of the updates."""

    def __init__(self, site: Site, mark: int, packets: int) -> None:
        super().__init__(name="flood")
        self._site, self._mark, self._packets = site, mark, packets
        self.hundred = threading.Semaphore(0)
        self.lead = threading.Semaphore(2)

    def run(self) -> None:
        site = self._site
        with (
            UdpSink(site.receiver.ns, port=9),
            socket_in(site.sender.ns, socket.AF_INET, socket.SOCK_DGRAM) as sender,
        ):
            sender.connect((site.receiver.address, 9))
            for number in range(self._packets):
                sender.send(struct.pack("=QI", self._mark, number))
                if (number + 1) % STRIDE == 0:
                    self.hundred.release()
                    self.lead.acquire(timeout=60)


@pytest.mark.parametrize("link", [True, False], ids=["link", "program"])
def test_each_packet_meets_one_of_two_versions(
    site: Site, compiled: Callable[[str], Path], link: bool
) -> None:
    # A guest's processor is emulated: there all of them at one hook, fewer at the others.
    fewer = "NETBPF_LAB" in os.environ and site.hook != "primary"
    packets = PACKETS // 10 if fewer else PACKETS
    updates = packets // STRIDE
    mark = int.from_bytes(os.urandom(8), "little")
    with loader.open(compiled("flood")) as obj:
        obj.load()
        obj.set("flood.mark", mark)
        progs = obj.programs
        site.attach(progs["arrival"], link=False)
        entry: Link | Program | None = site.attach(progs["red"], link=link).link or progs["red"]
        site.attach(progs["leaving"], link=False)
        assert site.arrived(1) == 1, "the neighbour is known before the flood"
        before = site.chain().revision
        flood = Flood(site, mark, packets)
        flood.start()
        for number in range(updates):
            # One for each hundred packets, while the next hundred are on their way.
            assert flood.hundred.acquire(timeout=60)
            version = progs["blue" if number % 2 == 0 else "red"]
            site.call("update", entry, version)
            flood.lead.release()
            if not link:
                entry = version
        flood.join()
        after = site.chain()
        if isinstance(entry, Link):
            entry.close()
        assert after.revision == before + updates
        flooded = obj.maps["flood.bss"].lookup(bytes(4))
    assert flooded is not None
    came, red, blue, went = (flooded[8 + PACKETS * at :][:packets] for at in range(4))
    assert came == went == b"\1" * packets, "each of them came to the hook, and once"
    met = bytes(one + other for one, other in zip(red, blue, strict=True))
    assert met == came
    assert min(sum(red), sum(blue)) > packets // 4, "both versions had their share"
