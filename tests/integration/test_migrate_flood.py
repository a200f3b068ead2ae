"""Migrations under a flood of packets: every packet meets every program, and most of them once."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from netbpf import loader
from netbpf.netns import entered
from netbpf.tcx import migrate as migrating
from tests.netns_fixtures import clsact as tc
from tests.netns_fixtures import hooks
from tests.netns_fixtures.hooks import Site
from tests.netns_fixtures.packets import UdpSink, socket_in

PACKETS = 20_000
FILTERS = ("red", "blue", "leaving")


class Flood(threading.Thread):
    """Sends numbered packets without a pause that a migration would fit into."""

    def __init__(self, site: Site, mark: int) -> None:
        super().__init__(name="flood")
        self._site, self._mark = site, mark

    def run(self) -> None:
        site = self._site
        with (
            UdpSink(site.receiver.ns, port=9),
            socket_in(site.sender.ns, socket.AF_INET, socket.SOCK_DGRAM) as sender,
        ):
            sender.connect((site.receiver.address, 9))
            for number in range(PACKETS):
                sender.send(struct.pack("=QI", self._mark, number))
                if number % 10 == 0:
                    time.sleep(0.0005)


@pytest.mark.parametrize("kind", ["tcx-ingress", "tcx-egress"])
def test_no_packet_misses_a_program(
    kind: str, bpffs: Path, compiled: Callable[[str], Path]
) -> None:
    mark = int.from_bytes(os.urandom(8), "little")
    with (
        hooks.site(kind) as site,
        tc.clsact(site, bpffs) as clsact,
        loader.open(compiled("flood")) as obj,
    ):
        obj.load()
        obj.set("flood.mark", mark)
        site.attach(obj.programs["arrival"], link=False)
        for pref, name in enumerate(FILTERS, 1):
            clsact.add(obj.programs[name], pref=pref)
        assert site.arrived(1) == 1, "the neighbour is known before the flood"
        flood = Flood(site, mark)
        flood.start()
        rounds = 0
        with entered(site.ns):
            while flood.is_alive():
                forth = migrating.migrate(site.ifindex, (site.hook,))
                back = migrating.back(site.ifindex, (site.hook,))
                assert [len(each.moves) for each in (*forth, *back)] == [3, 3]
                rounds += 1
        flood.join()
        came = bytes(obj.get("flood.came"))
        met = [bytes(obj.get(name)) for name in ("flood.red", "flood.blue", "flood.went")]
    assert came == b"\1" * PACKETS, "each of them came to the hook, and once"
    assert rounds >= 2
    for times in met:
        assert times.count(0) == 0, "nobody missed it"
        assert set(times) <= {1, 2}, "it met at most the link and then the filter"
    doubles = [times.count(2) for times in met]
    packets = sum(max(each) == 2 for each in zip(*met, strict=True))
    # Each program moves alone: a packet meets no more than one of them twice.
    assert sum(doubles) == packets
    print(f"{kind}: {rounds} rounds, of {PACKETS} packets {doubles} met a program twice")
