"""Leases over their life: what ends them, what they outlive, what they keep from happening.

The behaviours are those that the kernel's own selftest of queue leases looks at.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress

import pytest

from netbpf import netns
from netbpf.errors import NetlinkError, NotFoundError
from netbpf.netkit import device, lease
from netbpf.netkit.lease import Lease
from netbpf.netns import NetNS, entered
from tests.netns_fixtures import cli
from tests.netns_fixtures.devices import netdevsim, netkit_pair, netkit_single
from tests.netns_fixtures.leases import (
    Bench,
    bench,
    channels,
    exists,
    ifindex,
    kernel_leases,
    rx_queues,
    set_up,
    wait_until,
)
from tests.netns_fixtures.namespaces import namespace, random_name, run

pytestmark = [pytest.mark.needs("netkit-single"), pytest.mark.needs("netdevsim")]

LEASED = "Device queue in use due to queue leasing"


@pytest.fixture
def nic() -> Iterator[Bench]:
    with bench() as made:
        yield made


def add(at: Bench, netkit: str, queue: int, count: int = 1, ns: NetNS | None = None) -> list[Lease]:
    """Lease from the bench's NIC, in the pod unless said otherwise."""
    with entered(ns or at.pod):
        return lease.add(netkit, at.nic, queue, nic_netns=at.host, count=count)


def told(at: Bench) -> dict[int, tuple[int, int]]:
    return kernel_leases(at.host, at.nic_ifindex)


def seen() -> list[tuple[str | None, int, str | None, int | None]]:
    """The leases of all namespaces: netkit device and queue, NIC and queue."""
    return [
        (
            each.netkit.device,
            each.netkit.queue,
            each.nic.device if each.nic else None,
            each.nic.queue if each.nic else None,
        )
        for each in lease.show()
    ]


@pytest.mark.parametrize("mode", ["l2", "l3"])
def test_a_pairs_peer_has_the_lease_and_the_primary_cannot(nic: Bench, mode: str) -> None:
    with netkit_pair(nic.host, nic.pod, mode=mode, peer_rx_queues=2, rx_queues=2) as (_, peer):
        (made,) = add(nic, "eth0", 2)
        assert (made.netkit.queue, made.netkit.ifindex) == (1, peer.ifindex)
        assert told(nic) == {2: (peer.ifindex, 1)}
        with entered(nic.host), pytest.raises(NetlinkError) as refused:
            lease.add("nk0", nic.nic, 3)
        assert refused.value.extack == "netkit can only lease against the peer device"
        assert f"--netns {nic.pod.name} eth0" in str(refused.value.hint)


def test_in_one_namespace_no_id_is_needed(nic: Bench) -> None:
    before = run(nic.host, ["ip", "netns", "list-id"]).stdout
    with netkit_single(nic.host, "nk0", rx_queues=2) as made:
        add(nic, "nk0", 1, ns=nic.host)
        assert told(nic) == {1: (made.ifindex, 1)}
        assert run(nic.host, ["ip", "netns", "list-id"]).stdout == before


def test_queue_zero_of_the_nic_may_go_and_queue_zero_of_netkit_stays(nic: Bench) -> None:
    with netkit_single(nic.pod, "nk0", rx_queues=5):
        assert [each.netkit.queue for each in add(nic, "nk0", 0, 4)] == [1, 2, 3, 4]
        assert seen() == [("nk0", number + 1, nic.nic, number) for number in range(4)]


def test_two_devices_share_a_nic_but_no_queue(nic: Bench) -> None:
    with (
        netkit_single(nic.pod, "nk0", rx_queues=3) as one,
        netkit_single(nic.pod, "nk1", rx_queues=3) as two,
    ):
        add(nic, "nk0", 1)
        add(nic, "nk1", 2)
        for taken in (1, 2):
            for name in ("nk0", "nk1"):
                with pytest.raises(NetlinkError, match=LEASED):
                    add(nic, name, taken)
        assert told(nic) == {1: (one.ifindex, 1), 2: (two.ifindex, 1)}
        # What is given back can be had by another.
        with entered(nic.pod):
            device.delete("nk0")
        assert told(nic) == {2: (two.ifindex, 1)}
        assert add(nic, "nk1", 1)[0].netkit.queue == 2


def test_the_nic_keeps_its_leased_queues(nic: Bench) -> None:
    with netkit_single(nic.pod, "nk0", rx_queues=2) as made:
        add(nic, "nk0", 1)
        with pytest.raises(NetlinkError, match=LEASED):
            channels(nic.host, nic.nic, 1)
        channels(nic.host, nic.nic, 2)
        channels(nic.host, nic.nic, 4)
        assert told(nic) == {1: (made.ifindex, 1)}
    channels(nic.host, nic.nic, 1)


def test_netkit_channels_cannot_be_changed(nic: Bench) -> None:
    with netkit_single(nic.pod, "nk0", rx_queues=2):
        add(nic, "nk0", 1)
        with pytest.raises(NetlinkError, match="EOPNOTSUPP"):
            channels(nic.pod, "nk0", 1)


def test_leases_outlive_links_that_go_down(nic: Bench) -> None:
    with netkit_single(nic.pod, "nk0", rx_queues=2) as made:
        add(nic, "nk0", 1)
        for _ in range(3):
            nic.up(False)
            set_up(nic.pod, "nk0", True)
            nic.up(True)
            set_up(nic.pod, "nk0", False)
            assert told(nic) == {1: (made.ifindex, 1)}
            assert rx_queues(nic.pod, "nk0") == 2


def test_both_may_be_down_when_it_is_made(nic: Bench) -> None:
    nic.up(False)
    with netkit_single(nic.pod, "nk0", rx_queues=2) as made:
        assert add(nic, "nk0", 1)[0].nic is not None
        assert seen() == [("nk0", 1, None, None)]
        nic.up()
        assert told(nic) == {1: (made.ifindex, 1)}
        assert seen() == [("nk0", 1, nic.nic, 1)]


def test_the_device_moves_and_the_lease_with_it(nic: Bench) -> None:
    with netkit_single(nic.pod, "nk0", rx_queues=2), namespace() as third:
        add(nic, "nk0", 1)
        run(nic.pod, ["ip", "link", "set", "nk0", "netns", str(third.name)])
        (moved,) = lease.show()
        assert (moved.netkit.netns, moved.netkit.device) == (third.name, "nk0")
        assert told(nic) == {1: (ifindex(third, "nk0"), 1)}
        with entered(third):
            assert lease.show("nk0")[0].netkit.netns is None
            device.delete("nk0")
        assert told(nic) == {}


def test_the_nic_moves_and_the_lease_with_it(nic: Bench) -> None:
    with netkit_single(nic.pod, "nk0", rx_queues=2) as made, namespace() as third:
        add(nic, "nk0", 1)
        run(nic.host, ["ip", "link", "set", nic.nic, "netns", str(third.name)])
        set_up(third, nic.nic)
        (moved,) = lease.show()
        assert moved.nic is not None
        assert (moved.nic.netns, moved.nic.device) == (third.name, nic.nic)
        assert kernel_leases(third, ifindex(third, nic.nic)) == {1: (made.ifindex, 1)}


def test_a_nic_that_goes_takes_its_lessees_and_their_peers_along() -> None:
    with (
        bench() as other,
        namespace() as host,
        namespace() as pod,
        netdevsim(host) as (name,),
        netkit_single(pod, "single", rx_queues=2),
        netkit_pair(host, pod, names=("nk0", "nk1"), peer_rx_queues=2),
        netkit_single(pod, "bystander", rx_queues=2),
    ):
        mine = Bench(host, pod, name)
        mine.up()
        add(mine, "single", 1)
        add(mine, "nk1", 2)
        with entered(pod):
            lease.add("bystander", other.nic, 1, nic_netns=other.host)
        run_del_device(host, name)
        for ns, gone in ((pod, "single"), (pod, "nk1"), (host, "nk0")):
            assert not exists(ns, gone), gone
        assert exists(pod, "bystander")
        assert seen() == [("bystander", 1, other.nic, 1)]


def run_del_device(ns: NetNS, name: str) -> None:
    """Take the simulated NIC out of the machine, and put another in for the fixture to remove."""
    from pathlib import Path

    bus = Path("/sys/bus/netdevsim")
    numbers = [path.name.removeprefix("netdevsim") for path in (bus / "devices").iterdir()]
    number = max(numbers, key=int)
    with entered(ns):
        (bus / "del_device").write_text(number)
        (bus / "new_device").write_text(f"{number} 1 1")
    assert wait_until(lambda: exists(ns, "eth0"))


def test_a_namespace_that_dies_ends_its_leases(nic: Bench) -> None:
    name = random_name()
    netns.add(name)
    try:
        with NetNS.from_name(name) as guest, entered(nic.host):
            made = device.add("nk0", peer="eth9", peer_netns=guest, peer_rx_queues=3, up=True)
            assert made.peer is not None
            add(nic, "eth9", 1, 2, ns=guest)
        assert len(told(nic)) == 2
    finally:
        netns.delete(name)
    assert wait_until(lambda: told(nic) == {})
    assert not exists(nic.host, "nk0")
    with netkit_single(nic.pod, "nk0", rx_queues=3):
        add(nic, "nk0", 1, 2)


def test_a_dying_namespace_lets_its_nic_go_with_the_lease(nic: Bench) -> None:
    name, called = random_name(), random_name()[-12:]
    netns.add(name)
    try:
        with netkit_single(nic.pod, "nk0", rx_queues=2) as made:
            run(nic.host, ["ip", "link", "set", nic.nic, "name", called, "netns", name])
            with NetNS.from_name(name) as owner:
                set_up(owner, called)
                with entered(nic.pod):
                    lease.add("nk0", called, 1, nic_netns=owner)
                (before,) = lease.show()
            netns.delete(name)
            # A NIC goes home to the first namespace (default_device_exit_net), its lease too.
            assert wait_until(lambda: exists_here(called))
            set_up_here(called)
            with NetNS.current() as first:
                left = kernel_leases(first, ifindex(first, called))
            assert left == {1: (made.ifindex, 1)}
            (after,) = lease.show()
            assert before.nic is not None
            assert after.nic is not None
            assert (before.nic.netns, after.nic.netns) == (name, None)
    finally:
        with suppress(NotFoundError):
            netns.delete(name)


def exists_here(name: str) -> bool:
    with NetNS.current() as first:
        return exists(first, name)


def set_up_here(name: str) -> None:
    with NetNS.current() as first:
        set_up(first, name)


def test_many_namespaces_lease_from_one_nic(nic: Bench) -> None:
    with namespace() as b, namespace() as c:
        with (
            netkit_single(nic.pod, "nk0", rx_queues=2),
            netkit_single(b, "nk0", rx_queues=2),
            netkit_single(c, "nk0", rx_queues=2),
        ):
            for queue, ns in enumerate((nic.pod, b, c)):
                add(nic, "nk0", queue, ns=ns)
            assert sorted(str(each.netkit.netns) for each in lease.show("nk0")) == sorted(
                str(ns.name) for ns in (nic.pod, b, c)
            )
            with entered(b):
                device.delete("nk0")
            assert set(told(nic)) == {0, 2}
        assert told(nic) == {}


def test_as_many_as_the_device_was_made_for() -> None:
    with bench(queues=16) as nic, netkit_single(nic.pod, "nk0", rx_queues=9):
        add(nic, "nk0", 0, 8)
        with pytest.raises(NetlinkError, match="netkit maximum queue limit reached"):
            add(nic, "nk0", 8)
        assert len(told(nic)) == rx_queues(nic.pod, "nk0") - 1 == 8


def test_a_device_is_shown_with_its_leases(nic: Bench) -> None:
    with netkit_pair(nic.host, nic.pod, peer_rx_queues=3):
        add(nic, "eth0", 1, 2)
        with entered(nic.pod):
            (shown,) = device.show()
            assert [each.netkit.queue for each in shown.leases] == [1, 2]
            assert shown.leases[0].nic is not None
            assert shown.leases[0].nic.netns == nic.host.name
        with entered(nic.host):
            (primary,) = device.show()
            assert primary.leases == ()


def test_a_pair_does_not_blink_while_singles_come_and_go(nic: Bench) -> None:
    """A pod's pair for its traffic, and beside it single devices for leases: no ping is lost."""
    with netkit_pair(nic.host, nic.pod) as (_, peer):
        argv = ["ping", "-q", "-i", "0.005", "-W", "1", "-w", "60", peer.address]
        with entered(nic.host):
            pinging = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        with pinging:
            try:
                for _ in range(20):
                    with entered(nic.pod):
                        device.add("nk1", single=True, rx_queues=4, up=True)
                        lease.add("nk1", nic.nic, 1, nic_netns=nic.host, count=3)
                        assert len(lease.show("nk1")) == 3
                        device.delete("nk1")
            finally:
                pinging.send_signal(signal.SIGINT)
                out, _ = pinging.communicate(timeout=30)
        told_counts = re.search(r"(\d+) packets transmitted, (\d+) received", out)
        assert told_counts is not None, out
        sent, received = int(told_counts[1]), int(told_counts[2])
        # The last one may be under way when it ends.
        assert sent > 200
        assert received >= sent - 1, out


def test_killed_at_any_point_it_is_completed_or_removed(nic: Bench) -> None:
    """SIGKILL of ``lease add --count 3``: what is left is shown, and a second run completes it."""
    words = ["lease", "add", "-n", str(nic.pod.name), "nk0", f"{nic.nic}:0", "--count", "3"]
    words += ["--nic-netns", str(nic.host.name)]
    for turn in range(8):
        with netkit_single(nic.pod, "nk0", rx_queues=4):
            pid = os.fork()
            if pid == 0:
                try:
                    cli.netbpf(*words)
                finally:
                    os._exit(0)
            time.sleep(0.004 * turn)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            left = rx_queues(nic.pod, "nk0") - 1
            assert len(seen()) == left == len(told(nic))
            again = cli.netbpf(*words)
            assert again.status == (5 if left == 3 else 0), again.err
            assert len(told(nic)) == 3
    assert told(nic) == {}


def test_many_at_once_on_one_nic() -> None:
    """8 processes, each with devices that lease from a NIC of 8 queues: every refusal explained."""
    with bench(queues=8) as nic:
        children = []
        for number in range(8):
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    status = _add_and_delete(nic, number)
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(status)
            children.append(pid)
        statuses = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
        assert statuses == [0] * 8
        assert told(nic) == {}
        assert seen() == []


def _add_and_delete(nic: Bench, number: int) -> int:
    for turn in range(50):
        name = f"nk{number}"
        with entered(nic.pod):
            device.add(name, single=True, rx_queues=3)
        queue = (number * 3 + turn) % 7
        result = cli.netbpf(
            *("-j", "lease", "add", "-n", nic.pod.name, name, f"{nic.nic}:{queue}"),
            *("--nic-netns", nic.host.name, "--count", 2),
        )
        if result.status != 0:
            assert result.status == 5, result.out
            assert result.error["code"] == "queue_leased", result.out
            assert result.error["hint"], result.out
        with entered(nic.pod):
            device.delete(name)
    return 0
