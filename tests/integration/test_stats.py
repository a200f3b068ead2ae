"""``--stats``: runs counted for a while, and where packets ended; packets sent are the witness."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from netbpf import Program
from netbpf.bpf.stats import Measurement, Runs
from netbpf.netlink import filters
from netbpf.netns import entered
from netbpf.plumbing import path_stats
from netbpf.plumbing.packet_path import Reader
from tests.netns_fixtures import hooks, namespaces
from tests.netns_fixtures.cli import netbpf
from tests.netns_fixtures.hooks import Site
from tests.netns_fixtures.packets import send_udp
from tests.netns_fixtures.programs import DROP, NEXT, PASS

Load = Callable[..., Program]
SWITCH = Path("/proc/sys/kernel/bpf_stats_enabled")
PACKETS = 20


def send(site: Site, count: int = PACKETS) -> None:
    """Datagrams through the hook, and nothing else: with the neighbours known, no ARP passes."""
    send_udp(site.sender.ns, site.receiver.address, 9, b"x", count)


def measured(site: Site, seconds: float = 0.6) -> list[Any]:
    """The stats of each entry, with packets sent while they are counted."""
    verb = "show" if site.noun == "tcx" else "chain"
    argv = [site.noun, verb, "-n", site.ns.name, site.device, site.hook]
    argv += ["--stats", "--seconds", str(seconds), "--json"]
    with subprocess.Popen(
        [sys.executable, "-m", "netbpf", *map(str, argv)], stdout=subprocess.PIPE, text=True
    ) as process:
        wait_until_counting(process.pid)
        send(site)
        out, _ = process.communicate(timeout=60)
    document = json.loads(out)
    assert 0.9 * seconds <= document["seconds"] < seconds + 5
    (chain,) = document["chains"]
    return [each["stats"] for each in chain["entries"] + chain["filters"]]


def wait_until_counting(pid: int) -> None:
    """Until the process holds the descriptor that switches statistics on, and a moment more."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            try:
                if os.readlink(fd) == "anon_inode:bpf-stats":
                    time.sleep(0.1)
                    return
            except OSError:
                continue
        time.sleep(0.005)
    raise AssertionError("statistics were never switched on")


def numbers(stats: list[Any]) -> list[tuple[int, int | None]]:
    return [(each["runs"], each["ended"]) for each in stats]


def test_counts_agree_with_packets(site: Site, load: Load) -> None:
    assert site.passes()
    for code in (NEXT, DROP, PASS):
        site.attach(load(code), link=False)
    stats = measured(site)
    assert numbers(stats) == [(PACKETS, 0), (PACKETS, PACKETS), (0, 0)]
    assert all(set(each) == {"runs", "ns_per_run", "ended"} for each in stats)
    assert stats[0]["ns_per_run"] > 0
    assert stats[2]["ns_per_run"] is None
    assert site.drops()


def test_the_last_one_ends_all_of_its_runs(site: Site, load: Load) -> None:
    assert site.passes()
    for _ in range(2):
        site.attach(load(NEXT), link=False)
    assert numbers(measured(site)) == [(PACKETS, 0), (PACKETS, PACKETS)]


def test_a_filter_follows(load: Load) -> None:
    with hooks.site("tcx-ingress") as site:
        assert site.passes()
        site.attach(load(NEXT), link=False)
        wall = load(DROP)
        namespaces.run(site.ns, ["tc", "qdisc", "add", "dev", site.device, "clsact"])
        with entered(site.ns):
            filters.add(site.ifindex, "ingress", wall.fileno(), name="wall", priority=1)
        assert numbers(measured(site)) == [(PACKETS, 0), (PACKETS, PACKETS)]


def test_a_program_at_two_places_tells_no_end(load: Load) -> None:
    with hooks.site("tcx-ingress") as site, hooks.site("tcx-egress") as other:
        assert site.passes()
        first, both, last = load(NEXT), load(NEXT), load(NEXT)
        for prog in (first, both, last):
            site.attach(prog, link=False)
        placed = other.attach(both)
        assert placed.link is not None
        with placed.link:
            assert [each["ended"] for each in measured(site)] == [None, None, PACKETS]
        assert [each["ended"] for each in measured(site)] == [0, 0, PACKETS]


def test_ended_of_a_program_that_went(load: Load) -> None:
    with hooks.site("tcx-ingress") as site:
        for _ in range(3):
            site.attach(load(NEXT), link=False)
        with entered(site.ns):
            path, _ = Reader().paths(site.device)
    ids = [step.prog_id for step in path.steps]
    assert path_stats.programs([path]) == ids
    runs = {ids[0]: Runs(10, 1), ids[2]: Runs(4, 1)}
    assert path_stats.ended(path, runs, set()) == [None, None, 4]
    # Nothing is corrected.
    runs[ids[1]] = Runs(11, 1)
    assert path_stats.ended(path, runs, set()) == [-1, 7, 4]


@pytest.mark.parametrize("before", ["0", "1"])
def test_the_machines_switch_stays(load: Load, before: str) -> None:
    kept = SWITCH.read_text()
    try:
        SWITCH.write_text(before)
        with hooks.site("tcx-ingress") as site:
            prog = load(NEXT)
            site.attach(prog, link=False)
            site.arrived(1)
            with Measurement([prog.id]) as counting:
                send(site)
                assert counting.runs()[prog.id].count == PACKETS
            assert SWITCH.read_text().strip() == before
            runs = prog.info().run_count
            send(site)
            assert prog.info().run_count - runs == (PACKETS if before == "1" else 0)
    finally:
        SWITCH.write_text(kept)


def test_ctrl_c_shows_what_was_seen(load: Load) -> None:
    with hooks.site("tcx-ingress") as site:
        site.attach(load(NEXT), link=False)
        site.arrived(1)
        argv = ["tcx", "show", "-n", site.ns.name, site.device, "--stats", "--seconds", "600"]
        for number in (signal.SIGINT, signal.SIGTERM):
            with subprocess.Popen(
                [sys.executable, "-m", "netbpf", *map(str, argv)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            ) as process:
                wait_until_counting(process.pid)
                send(site)
                process.send_signal(number)
                out, err = process.communicate(timeout=60)
            assert process.returncode == 0, err
            assert "ended early" in err
            header, row, *_ = out.splitlines()
            assert dict(zip(header.split()[-3:], row.split()[-3:], strict=True))["RUNS"] == "20"


def test_a_long_chain_under_traffic(load: Load) -> None:
    """Counts of 20 programs, read while packets come: none is far off its neighbours."""
    with hooks.site("tcx-ingress") as site:
        for _ in range(20):
            site.attach(load(NEXT), link=False)
        stop = threading.Event()

        def flood() -> None:
            while not stop.is_set():
                send(site, 100)

        thread = threading.Thread(target=flood)
        thread.start()
        try:
            with entered(site.ns):
                path, _ = Reader().paths(site.device)
            with Measurement(path_stats.programs([path])) as counting:
                time.sleep(0.3)
                runs = counting.runs()
        finally:
            stop.set()
            thread.join()
    counts = [runs[step.prog_id].count for step in path.steps]
    assert min(counts) > 100
    assert max(counts) - min(counts) < 0.2 * max(counts)
    *ended, last = path_stats.ended(path, runs, set())
    assert sum(filter(None, ended)) + (last or 0) == counts[0]


def test_table(load: Load) -> None:
    with hooks.site("tcx-ingress") as site:
        site.attach(load(NEXT), link=False)
        result = netbpf(
            "tcx", "show", "-n", site.ns.name, site.device, "--stats", "--seconds", "0.01"
        )
    assert result.status == 0
    assert result.out.split("\n", 1)[0].split()[-3:] == ["RUNS", "NS/RUN", "ENDED"]
    assert "ENDED: packets after which nothing later" in result.err
