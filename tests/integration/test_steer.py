"""``--steer``: a NIC that cannot, and one that can: virtio-net, or what NETBPF_TEST_NIC names."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator

import pytest

from netbpf.errors import NetlinkError
from netbpf.netkit import lease, steer
from netbpf.netkit.lease_sides import opened
from netbpf.netns import NetNS, entered
from tests.netns_fixtures.cli import netbpf, ok
from tests.netns_fixtures.devices import netkit_single
from tests.netns_fixtures.leases import Bench, bench, kernel_leases, rx_queues

NIC = os.environ.get("NETBPF_TEST_NIC")
"""A real NIC, and the queue of it to use: ``eth0:3`` (docs/hardware.md)."""


@pytest.fixture
def nic() -> Iterator[Bench]:
    with bench() as made:
        yield made


def records() -> list[str]:
    return sorted(os.listdir(steer.RECORDS)) if steer.RECORDS.exists() else []


@pytest.mark.needs("netkit-single")
@pytest.mark.needs("netdevsim")
class TestNetdevsim:
    """Neither RSS nor ntuple rules: all is refused, and nothing is leased."""

    def test_nothing_is_leased_at_a_nic_that_cannot(self, nic: Bench) -> None:
        before = records()
        with netkit_single(nic.pod, "nk0", rx_queues=4):
            where = ("-n", nic.pod.name, "nk0", f"{nic.nic}:1", "--nic-netns", nic.host.name)
            for words in (
                ("--steer", "rss"),
                ("--steer", "tcp4:443", "--steer", "udp:[2001:db8::1]:53"),
                ("--steer", "rss", "--count", 2),
                ("--steer", "tcp:443", "--dry-run"),
            ):
                result = netbpf("-j", "lease", "add", *where, *words)
                error = result.error
                assert (result.status, error["code"]) == (1, "nic_no_rss"), result.out
                assert error["errno"] == "EOPNOTSUPP"
                assert f"NIC {nic.nic} cannot keep other traffic off a queue" in error["message"]
                assert kernel_leases(nic.host, nic.nic_ifindex) == {}
                assert rx_queues(nic.pod, "nk0") == 1
            assert records() == before
            ok("lease", "add", *where)

    def test_words_that_are_no_flow(self, nic: Bench) -> None:
        with netkit_single(nic.pod, "nk0", rx_queues=4):
            where = ("-n", nic.pod.name, "nk0", f"{nic.nic}:1", "--nic-netns", nic.host.name)
            for argument in ((), ("--dry-run",)):
                result = netbpf("-j", "lease", "add", *where, "--steer", "icmp", *argument)
                assert (result.status, result.error["code"]) == (2, "usage")
                assert "PROTO[:ADDRESS]:PORT" in result.error["message"]
            assert kernel_leases(nic.host, nic.nic_ifindex) == {}

    def test_there_is_nothing_to_take_back(self, nic: Bench) -> None:
        where = ("-n", nic.host.name, f"{nic.nic}:1", "--steer")
        result = netbpf("-j", "lease", "del", *where)
        assert (result.status, result.error["code"]) == (1, "not_found")
        assert netbpf("lease", "del", *where, "--recreate").status == 2


def table(name: str) -> list[int]:
    """The RSS table as ``ethtool`` reads it."""
    said = subprocess.run(["ethtool", "-x", name], capture_output=True, text=True, check=True)
    lines = re.findall(r"^ *\d+:([ \d]+)$", said.stdout, re.MULTILINE)
    return [int(queue) for line in lines for queue in line.split()]


def rules(name: str) -> int:
    """How many rules ``ethtool`` finds; -1: the NIC has no such thing."""
    said = subprocess.run(["ethtool", "-n", name], capture_output=True, text=True, check=False)
    found = re.search(r"Total (\d+) rules", said.stdout)
    return int(found[1]) if found else -1


@pytest.mark.real_nic
class TestRealNic:
    @pytest.fixture(autouse=True)
    def _as_it_was(self) -> Iterator[None]:
        self.name, self.queue = str(NIC).rsplit(":", 1)[0], int(str(NIC).rsplit(":", 1)[1])
        before = table(self.name), rules(self.name), records()
        assert self.queue in before[0]
        yield
        assert (table(self.name), rules(self.name), records()) == before

    def test_the_table_without_the_queue_and_back(self) -> None:
        before = table(self.name)
        with opened(self.name, self.name, None) as sides:
            for _ in range(2):  # what a killed run left is taken back and done anew
                steer.apply(sides.nic, [self.queue], [])
                assert self.queue not in table(self.name)
            kept = [queue for queue in before if queue != self.queue]
            now = table(self.name)
            assert [q for q, was in zip(now, before, strict=True) if was != self.queue] == kept
            assert steer.undo(sides.nic, self.queue)
            assert not steer.undo(sides.nic, self.queue)

    def test_what_somebody_changed_since_stays(self) -> None:
        before = table(self.name)
        with opened(self.name, self.name, None) as sides:
            steer.apply(sides.nic, [self.queue], [])
            others = sorted(set(before) - {self.queue})
            weights = ["1" if queue == others[0] else "0" for queue in range(max(before) + 1)]
            weigh = ["ethtool", "-X", self.name, "weight", *weights]
            subprocess.run(weigh, check=True)
            steer.undo(sides.nic, self.queue)
            back = table(self.name)
            assert set(back) <= {others[0], self.queue}
            assert back.count(self.queue) <= before.count(self.queue)
        subprocess.run(["ethtool", "-X", self.name, "equal", str(max(before) + 1)], check=True)

    def test_two_queues_in_either_order(self) -> None:
        other = next(queue for queue in table(self.name) if queue != self.queue)
        if len(set(table(self.name))) < 3:
            pytest.fail(f"{NIC} has no third queue: name a NIC that has")
        for first, second in ((self.queue, other), (other, self.queue)):
            before = table(self.name)
            with opened(self.name, self.name, None) as sides:
                steer.apply(sides.nic, [first], [])
                steer.apply(sides.nic, [second], [])
                assert not {first, second} & set(table(self.name))
                for queue in (self.queue, other):
                    assert steer.undo(sides.nic, queue)
            assert table(self.name) == before

    def test_a_flow_goes_to_the_queue_or_the_table_is_as_it_was(self) -> None:
        before = rules(self.name)
        with opened(self.name, self.name, None) as sides:
            if before < 0:
                (found,) = steer.refusals(sides.nic, [self.queue], ["tcp4:443"])
                assert found.code == "nic_no_ntuple"
                with pytest.raises(NetlinkError, match="tcp4:443"):
                    steer.apply(sides.nic, [self.queue], ["tcp4:443"])
                return
            steer.apply(sides.nic, [self.queue], ["tcp4:443", "udp4:10.0.0.5:53"])
            assert rules(self.name) == before + 2
            steer.undo(sides.nic, self.queue)

    @pytest.mark.needs("netkit-single")
    def test_a_lease_that_is_refused_takes_its_steering_along(self, ns: NetNS) -> None:
        with (
            netkit_single(ns, "nk0", rx_queues=1),
            NetNS.current() as first,
            entered(ns),
            pytest.raises(NetlinkError),
        ):
            lease.add("nk0", self.name, self.queue, nic_netns=first, steer=["rss"])

    @pytest.mark.needs("netkit-single")
    def test_with_the_lease_and_its_end(self, ns: NetNS) -> None:
        with netkit_single(ns, "nk0", rx_queues=2), NetNS.current() as first:
            # Not /proc/self/ns/net: it is read when netbpf has gone to the other namespace.
            place = f"/proc/self/fd/{first.fileno()}"
            where = ("-n", ns.name, "nk0", str(NIC), "--nic-netns", place)
            found = netbpf("-j", "lease", "check", *where)
            before = rules(self.name)
            if found.status != 0:
                # A NIC without queue management: the kernel agrees, and nothing stays steered.
                placed = table(self.name)
                assert netbpf("-j", "lease", "add", *where, "--steer", "rss").status != 0
                assert (table(self.name), rules(self.name)) == (placed, before)
                return
            flows = ("--steer", "tcp4:443") if before >= 0 else ("--steer", "rss")
            ok("lease", "add", *where, *flows)
            assert self.queue not in table(self.name)
            assert rules(self.name) == (before + 1 if before >= 0 else before)
            ok("lease", "del", "-n", ns.name, "nk0", "--recreate")
            assert self.queue in table(self.name)
