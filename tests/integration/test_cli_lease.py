"""``netbpf lease``: documents, every refusal of the kernel, and what check says beforehand."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from netbpf.netlink import ethtool
from netbpf.netns import NetNS, entered
from tests.netns_fixtures import probes
from tests.netns_fixtures.cli import Result, netbpf, ok
from tests.netns_fixtures.devices import netdevsim, netkit_pair, netkit_single, veth_pair
from tests.netns_fixtures.leases import Bench, bench, kernel_leases, rx_queues, set_up
from tests.netns_fixtures.namespaces import run

END_KEYS = {"device", "ifindex", "netns", "queue"}

needs_leases = [pytest.mark.needs("netkit-single"), pytest.mark.needs("netdevsim")]


def leasing(function: Any) -> Any:
    for mark in needs_leases:
        function = mark(function)
    return function


@pytest.fixture
def nic() -> Iterator[Bench]:
    with bench() as made:
        yield made


def add(at: Bench, netkit: str, queue: int, *rest: object, nic: str | None = None) -> Result:
    return netbpf(
        *("-j", "lease", "add", "-n", at.pod.name, netkit, f"{nic or at.nic}:{queue}"),
        *("--nic-netns", at.host.name, *rest),
    )


def check(at: Bench, netkit: str, queue: int, *rest: object) -> dict[str, Any]:
    """What stands in the way, by code."""
    result = netbpf(
        *("-j", "lease", "check", "-n", at.pod.name, netkit, f"{at.nic}:{queue}"),
        *("--nic-netns", at.host.name, *rest),
    )
    document = result.json
    blocked = [found for found in document["findings"] if found["blocks"]]
    assert document["ready"] is (not blocked)
    assert result.status == (1 if blocked else 0)
    for found in document["findings"]:
        keys = {"code", "message", "hint", "errno", "extack", "queue", "blocks"}
        assert set(found) == keys
    return {found["code"]: found for found in blocked}


@leasing
def test_the_documents(nic: Bench) -> None:
    with netkit_single(nic.pod, "nk0", rx_queues=4) as made:
        assert check(nic, "nk0", 3) == {}
        document = add(nic, "nk0", 3).json
        lease = document["lease"]
        assert document["leases"] == [lease]
        assert set(lease) == {"netkit", "nic", "user"}
        assert lease == {
            "netkit": {
                "device": "nk0",
                "ifindex": made.ifindex,
                "netns": nic.pod.name,
                "queue": 1,
            },
            "nic": {
                "device": nic.nic,
                "ifindex": nic.nic_ifindex,
                "netns": nic.host.name,
                "queue": 3,
            },
            "user": None,
        }
        assert kernel_leases(nic.host, nic.nic_ifindex) == {3: (made.ifindex, 1)}
        assert rx_queues(nic.pod, "nk0") == 2
        for place in ("", nic.pod.name, nic.host.name):
            where = ("-n", place) if place else ()
            shown = ok("lease", "show", *where)
            assert shown["leases"] == [lease]
            assert shown["unknown"] == []
        assert ok("lease", "show", "-n", nic.host.name, nic.nic)["leases"] == [lease]
        assert ok("lease", "show", "nk0")["leases"] == [lease]
        (device,) = ok("netkit", "show", "-n", nic.pod.name, "nk0")["devices"]
        assert device["leases"] == [lease]
        table = netbpf("lease", "show").out
        assert "NIC QUEUE" in table
        assert nic.host.name in table


@leasing
def test_nothing_to_show(nic: Bench) -> None:
    assert ok("lease", "show", "-n", nic.pod.name)["leases"] == []
    assert ok("lease", "show", "-n", nic.host.name, nic.nic)["leases"] == []
    assert "no leases" in netbpf("lease", "show").err
    missing = netbpf("-j", "lease", "show", "-n", nic.pod.name, "nope")
    assert (missing.status, missing.error["code"]) == (1, "not_found")


LEASED = "Device queue in use due to queue leasing"
VIRTUAL = "Lease device is a virtual device"
NO_MANAGEMENT = "Lease device does not support queue management operations"
NOT_VIRTUAL = "Device is not a virtual device"
NO_CREATION = "Device does not support queue creation"
FULL = "netkit maximum queue limit reached"
PRIMARY = "netkit can only lease against the peer device"
OTHER = "Leasing queues from different devices not supported"

REFUSALS = [
    # netkit device, NIC, queue: status, code, errno, extack, part of the hint
    ("nk0", "NIC", 1, 5, "queue_leased", "EBUSY", LEASED, "netbpf lease show"),
    ("nk0", "NIC", 4, 1, "queue_out_of_range", "ERANGE", None, "ethtool -l"),
    ("nk0", "NIC", 4000000, 1, "queue_out_of_range", "ERANGE", None, "ethtool -L"),
    ("nk0", "virtual", 0, 1, "nic_virtual", "EINVAL", VIRTUAL, "netdevsim"),
    ("nk0", "veth-a", 0, 1, "nic_virtual", "EINVAL", VIRTUAL, "netdevsim"),
    ("nk0", "lo", 0, 1, "nic_virtual", "EINVAL", VIRTUAL, "netdevsim"),
    ("veth-b", "NIC", 2, 1, "not_netkit", "EINVAL", NO_CREATION, "netkit add"),
    ("lo", "NIC", 2, 1, "not_netkit", "EINVAL", NO_CREATION, "netkit add"),
    ("OTHER", "NIC", 2, 1, "not_virtual", "EINVAL", NOT_VIRTUAL, "first word"),
    ("full", "NIC", 2, 1, "no_rx_queues_left", "EINVAL", FULL, "--rx-queues N"),
    ("pair", "NIC", 2, 1, "primary_of_pair", "EOPNOTSUPP", PRIMARY, "--netns HOST peer0"),
    ("nk0", "OTHER@POD", 0, 1, "other_nic", "EOPNOTSUPP", OTHER, "for each NIC"),
]


@leasing
def test_every_refusal_and_that_check_says_so_before(nic: Bench) -> None:
    with ExitStack() as stack:
        stack.enter_context(netkit_single(nic.pod, "nk0", rx_queues=4))
        stack.enter_context(netkit_single(nic.pod, "full", rx_queues=1))
        stack.enter_context(netkit_single(nic.host, "virtual", rx_queues=4))
        stack.enter_context(netkit_pair(nic.pod, nic.host, names=("pair", "peer0")))
        stack.enter_context(veth_pair(nic.host, nic.pod))
        (other,) = stack.enter_context(netdevsim(nic.pod, queues=2))
        assert add(nic, "nk0", 1).status == 0
        before = kernel_leases(nic.host, nic.nic_ifindex)
        for netkit, lessor, queue, status, code, number, extack, hint in REFUSALS:
            name = lessor.removesuffix("@POD").replace("NIC", nic.nic).replace("OTHER", other)
            words = (netkit.replace("OTHER", other), f"{name}:{queue}")
            place = nic.pod if lessor.endswith("@POD") else nic.host
            where = ("-n", nic.pod.name, *words, "--nic-netns", place.name)
            result = netbpf("-j", "lease", "add", *where)
            error = result.error
            assert (result.status, error["code"]) == (status, code), (words, result.out)
            assert (error["errno"], error["extack"]) == (number, extack), words
            assert error["message"].startswith(f"lease {words[1]} to {words[0]}: "), words
            assert (extack or "no such rx queue") in error["message"]
            assert hint.replace("HOST", str(nic.host.name)) in error["hint"], words
            for argument in ((), ("--dry-run",)):
                verb = "add" if argument else "check"
                told = netbpf("-j", "lease", verb, *where, *argument)
                if verb == "add":
                    assert (told.status, told.error["code"]) == (status, code), words
                    continue
                assert told.status == 1
                assert code in {found["code"] for found in told.json["findings"]}, words
                (found,) = [each for each in told.json["findings"] if each["code"] == code]
                assert (found["errno"], found["extack"]) == (number, extack), words
        assert kernel_leases(nic.host, nic.nic_ifindex) == before


@leasing
def test_devices_and_namespaces_that_are_not_there(nic: Bench) -> None:
    with netkit_single(nic.pod, "nk0", rx_queues=2):
        for words, status, code in (
            (("nope", f"{nic.nic}:0", "--nic-netns", nic.host.name), 1, "not_found"),
            (("nk0", "nope:0", "--nic-netns", nic.host.name), 1, "not_found"),
            (("nk0", f"{nic.nic}:0", "--nic-netns", "no-such-ns"), 1, "not_found"),
            (("nk0", nic.nic), 2, "usage"),
            (("nk0", f"{nic.nic}:"), 2, "usage"),
            (("nk0", f"{nic.nic}:-1"), 2, "usage"),
            (("nk0", ":1"), 2, "usage"),
            (("nk0", f"{nic.nic}:0", "--count", 0), 2, "usage"),
        ):
            for verb in ("add", "check"):
                result = netbpf("-j", "lease", verb, "-n", nic.pod.name, *words)
                if verb == "check" and code == "not_found":
                    (found,) = result.json["findings"]
                    assert found["code"] in ("no_such_device", "no_such_namespace")
                    continue
                assert (result.status, result.error["code"]) == (status, code), result.out
        # The NIC is looked for in the netkit device's namespace, and where it is is said.
        hint = netbpf("-j", "lease", "add", "-n", nic.pod.name, "nk0", f"{nic.nic}:0").error["hint"]
        assert nic.host.name in hint
        assert "--nic-netns" in hint


@leasing
def test_count_is_all_or_none(nic: Bench) -> None:
    with (
        netkit_single(nic.pod, "nk0", rx_queues=8),
        netkit_single(nic.pod, "other", rx_queues=2) as other,
    ):
        assert add(nic, "other", 2).status == 0
        taken = {2: (other.ifindex, 1)}
        # In the middle, at the end and past the NIC's last: none is leased, also while it is down.
        for up in (True, False):
            nic.up(up)
            for first, count, code in (
                (1, 3, "queue_leased"),
                (0, 3, "queue_leased"),
                (3, 2, "queue_out_of_range"),
            ):
                result = add(nic, "nk0", first, "--count", count)
                assert result.error["code"] == code, result.out
                assert rx_queues(nic.pod, "nk0") == 1
        nic.up()
        assert kernel_leases(nic.host, nic.nic_ifindex) == taken
        # What an interrupted run left is completed.
        assert add(nic, "nk0", 0).status == 0
        document = add(nic, "nk0", 0, "--count", 2).json
        assert [lease["netkit"]["queue"] for lease in document["leases"]] == [1, 2]
        assert [lease["nic"]["queue"] for lease in document["leases"]] == [0, 1]
        again = add(nic, "nk0", 0, "--count", 2)
        assert (again.status, again.error["code"]) == (5, "conflict")
        assert "already" in again.error["message"]


@leasing
def test_count_needs_that_many_queues_of_its_own(nic: Bench) -> None:
    with netkit_single(nic.pod, "nk0", rx_queues=3):
        assert add(nic, "nk0", 0, "--count", 3).error["code"] == "no_rx_queues_left"
        assert rx_queues(nic.pod, "nk0") == 1
        assert len(add(nic, "nk0", 0, "--count", 2).json["leases"]) == 2


@leasing
def test_a_dry_run_changes_nothing(nic: Bench) -> None:
    with netkit_single(nic.pod, "nk0", rx_queues=3):
        before = run(nic.pod, ["ip", "netns", "list-id"]).stdout
        document = add(nic, "nk0", 0, "--count", 2, "--dry-run").json
        assert (document["dry_run"], document["lease"]) == (True, None)
        assert rx_queues(nic.pod, "nk0") == 1
        assert run(nic.pod, ["ip", "netns", "list-id"]).stdout == before


@leasing
def test_what_cannot_be_known_is_said(nic: Bench) -> None:
    with netkit_single(nic.pod, "nk0", rx_queues=3):
        nic.up(False)
        assert add(nic, "nk0", 2).status == 0
        for up in (False, True):
            set_up(nic.pod, "nk0", up)
            shown = ok("lease", "show")
            (lease,) = shown["leases"]
            assert set(lease["netkit"]) == END_KEYS
            assert (lease["netkit"]["device"], lease["netkit"]["queue"]) == ("nk0", 1)
            assert (lease["nic"], lease["user"]) == (None, None)
            (gap,) = shown["unknown"]
            assert set(gap) == {"device", "netns", "reason"}
            assert (gap["device"], gap["netns"]) == ("nk0", nic.pod.name)
            assert f"{nic.nic} in {nic.host.name}" in gap["reason"]
            said = netbpf("lease", "show")
            assert "?" in said.out
            assert "only while the NIC is up" in said.err
        # It is known again, and was never gone.
        nic.up()
        assert ok("lease", "show")["leases"][0]["nic"]["queue"] == 2


@leasing
def test_ready_for_io_uring(nic: Bench) -> None:
    with netkit_single(nic.pod, "nk0", rx_queues=3):
        assert check(nic, "nk0", 1, "--for", "io-uring") == {}
        with entered(nic.host), ethtool.Ethtool() as asking:
            ethtool.set_rings(asking, nic.nic_ifindex, tcp_data_split="on", hds_thresh=200)
            assert set(check(nic, "nk0", 1, "--for", "io-uring")) == {"hds_thresh"}
            ethtool.set_rings(asking, nic.nic_ifindex, tcp_data_split="off")
        found = check(nic, "nk0", 1, "--for", "io-uring")
        assert set(found) == {"hds_thresh", "tcp_data_split"}
        assert f"ethtool -G {nic.nic} tcp-data-split on" in found["tcp_data_split"]["hint"]
        assert f"ethtool -G {nic.nic} hds-thresh 0" in found["hds_thresh"]["hint"]
        assert check(nic, "nk0", 1) == {}


@leasing
def test_ready_for_af_xdp(nic: Bench) -> None:
    with (
        netkit_single(nic.pod, "nk0", rx_queues=3),
        netkit_pair(nic.host, nic.pod, peer_rx_queues=3),
    ):
        assert set(check(nic, "nk0", 1, "--for", "af-xdp")) == {"no_zero_copy"}
        found = check(nic, "eth0", 1, "--for", "af-xdp")
        assert set(found) == {"no_zero_copy", "pair_for_af_xdp"}
        assert check(nic, "eth0", 1) == {}
        wrong = netbpf("lease", "check", "nk0", "x:1", "--for", "xdp")
        assert (wrong.status, "io-uring or af-xdp" in wrong.err) == (2, True)


@leasing
def test_who_may_not() -> None:
    from tests.integration.test_cli_rights import without

    with bench() as nic, netkit_single(nic.host, "nk0", rx_queues=3), entered(nic.host):
        words = ("nk0", f"{nic.nic}:1")
        status, document = without("-net_admin", "lease", "add", *words)
        error: Any = document["error"]
        assert (status, error["code"], error["errno"]) == (4, "not_permitted", "EPERM")
        assert "initial user namespace" in error["hint"]
        status, document = without("-net_admin", "lease", "check", *words)
        findings: Any = document["findings"]
        assert (status, [found["code"] for found in findings]) == (1, ["not_permitted"])
        # Who may not look into other namespaces still sees the leases of its own.
        (made,) = ok("lease", "add", *words)["leases"]
        status, document = without("-all", "lease", "show")
        assert (status, document["leases"]) == (0, [made])
        gaps: Any = document["unknown"]
        assert {gap["device"] for gap in gaps} == {"nk0", None}
        assert "sysfs" in str(gaps)


def test_a_kernel_without_leases_says_so(ns: NetNS) -> None:
    if probes.has("netkit-single"):
        assert ok("lease", "show", "-n", ns.name)["leases"] == []
        return
    for verb in ("add", "check"):
        result = netbpf("-j", "lease", verb, "-n", ns.name, "lo", "lo:0")
        if verb == "check":
            (found,) = result.json["findings"]
            assert (result.status, found["code"]) == (1, "not_supported")
            continue
        assert (result.status, result.error["code"]) == (3, "not_supported")
        assert "Linux 7.1" in result.error["message"], os.uname().release
    assert ok("lease", "show", "-n", ns.name)["leases"] == []


def everything(ns: NetNS, name: str) -> dict[str, Any]:
    """A device as ``netkit show`` tells it, without what is new when it is made again."""
    (found,) = ok("netkit", "show", "-n", ns.name, name)["devices"]
    return {key: value for key, value in found.items() if key not in ("ifindex", "leases")}


@leasing
def test_del_without_recreate_says_what_would_go(nic: Bench) -> None:
    with (
        netkit_single(nic.pod, "nk0", rx_queues=4, addrs=["10.9.0.1/24"]),
        netkit_pair(nic.host, nic.pod, names=("nk9", "eth9"), peer_rx_queues=3),
    ):
        assert add(nic, "nk0", 1, "--count", 2).status == 0
        assert add(nic, "eth9", 0).status == 0
        before = kernel_leases(nic.host, nic.nic_ifindex)
        result = netbpf("-j", "lease", "del", "-n", nic.pod.name, "nk0:2")
        assert (result.status, result.error["code"]) == (5, "conflict")
        assert f"nk0:2 ({nic.nic}:2 in {nic.host.name})" in result.error["message"]
        assert f"its lease nk0:1 ({nic.nic}:1" in result.error["message"]
        assert "its address 10.9.0.1/24" in result.error["message"]
        assert "--recreate" in result.error["hint"]
        for option in ((), ("--recreate",)):
            result = netbpf("-j", "lease", "del", "-n", nic.pod.name, "eth9", *option)
            assert (result.status, result.error["code"]) == (5, "conflict")
            assert f"its peer nk9 in {nic.host.name}" in result.error["message"]
            assert "netkit del eth9" in result.error["hint"]
        for wrong, code in (("nk0:3", "not_found"), ("nk0:0", "not_found"), ("no", "not_found")):
            result = netbpf("-j", "lease", "del", "-n", nic.pod.name, wrong, "--recreate")
            assert (result.status, result.error["code"]) == (1, code)
        assert kernel_leases(nic.host, nic.nic_ifindex) == before


@leasing
@pytest.mark.parametrize("mode", ["l2", "l3"])
def test_recreate_brings_all_the_rest_back(nic: Bench, mode: str) -> None:
    settings = {"mac": "02:00:00:00:00:07"} if mode == "l2" else {}
    with netkit_single(
        nic.pod,
        "nk0",
        mode=mode,
        rx_queues=6,
        mtu=1400,
        headroom=32,
        tailroom=16,
        addrs=["10.9.0.1/24", "10.9.1.1/24"],
        up=True,
        **settings,
    ):
        assert add(nic, "nk0", 0, "--count", 4).status == 0
        before = everything(nic.pod, "nk0")
        planned = ok("lease", "del", "-n", nic.pod.name, "nk0:2", "--recreate", "--dry-run")
        assert planned["dry_run"] is True
        assert rx_queues(nic.pod, "nk0") == 5
        done = ok("lease", "del", "-n", nic.pod.name, "nk0:2", "--recreate")
        assert planned["deleted"] == done["deleted"]
        assert [lease["nic"]["queue"] for lease in done["deleted"]] == [1]
        assert [lease["netkit"]["queue"] for lease in done["leases"]] == [1, 2, 3]
        assert [lease["nic"]["queue"] for lease in done["leases"]] == [0, 2, 3]
        assert set(kernel_leases(nic.host, nic.nic_ifindex)) == {0, 2, 3}
        assert everything(nic.pod, "nk0") == before
        assert "10.9.1.1/24" in run(nic.pod, ["ip", "addr", "show", "nk0"]).stdout
        done = ok("lease", "del", "-n", nic.pod.name, "nk0", "--recreate")
        assert (len(done["deleted"]), done["leases"]) == (3, [])
        assert rx_queues(nic.pod, "nk0") == 1
        assert everything(nic.pod, "nk0") == before
        run(nic.pod, ["ip", "link", "del", "nk0"])


@leasing
def test_recreate_refuses_what_it_could_not_bring_back(nic: Bench) -> None:
    with netkit_single(nic.pod, "nk0", rx_queues=4) as made:
        assert add(nic, "nk0", 1, "--count", 2).status == 0
        nic.up(False)
        result = netbpf("-j", "lease", "del", "-n", nic.pod.name, "nk0:1", "--recreate")
        assert (result.status, result.error["code"]) == (5, "conflict")
        assert "only while the NIC is up" in result.error["message"]
        assert "bring the NIC up" in result.error["hint"]
        nic.up()
        assert set(kernel_leases(nic.host, nic.nic_ifindex).values()) == {
            (made.ifindex, 1),
            (made.ifindex, 2),
        }
        # All of them can go without knowing of which NIC they are.
        nic.up(False)
        assert len(ok("lease", "del", "-n", nic.pod.name, "nk0", "--recreate")["deleted"]) == 2
        assert rx_queues(nic.pod, "nk0") == 1
        run(nic.pod, ["ip", "link", "del", "nk0"])
