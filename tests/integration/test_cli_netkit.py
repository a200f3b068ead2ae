"""``netbpf netkit`` on devices: grammar, documents, and what ``ip`` and packets say of it."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from netbpf.netns import NetNS
from tests.netns_fixtures import probes
from tests.netns_fixtures.cli import netbpf, ok
from tests.netns_fixtures.devices import device
from tests.netns_fixtures.namespaces import run
from tests.netns_fixtures.packets import ping

DEVICE_KEYS = {
    *("name", "ifindex", "netns", "pairing", "primary", "mode", "policy", "scrub", "headroom"),
    *("tailroom", "rx_queues", "mtu", "mac", "up", "state", "group", "alias", "unfinished"),
    *("addrs", "peer", "leases"),
}
PEER_KEYS = {
    *("name", "ifindex", "netns", "policy", "scrub", "rx_queues", "mtu", "mac", "up", "state"),
    *("group", "alias", "addrs"),
}


def links(ns: NetNS) -> dict[str, Any]:
    """The devices of a namespace as ``ip`` sees them."""
    found = json.loads(run(ns, ["ip", "-d", "-j", "addr", "show"]).stdout)
    return {link["ifname"]: link for link in found if link}


def add(ns: NetNS, *rest: object) -> Any:
    return ok("netkit", "add", "-n", ns.name, *rest)["device"]


@pytest.mark.needs("netkit")
def test_a_pair_between_two_namespaces_carries_packets(two_ns: tuple[NetNS, NetNS]) -> None:
    a, b = two_ns
    made = add(
        *(a, "nk0", "--peer", "eth0", "--peer-netns", b.name, "--up"),
        *("--addr", "10.9.0.1/24", "--peer-addr", "10.9.0.2/24", "--mtu", 1400),
    )
    assert set(made) == DEVICE_KEYS
    assert set(made["peer"]) == PEER_KEYS
    assert (made["name"], made["pairing"], made["mode"]) == ("nk0", "pair", "l3")
    assert (made["primary"], made["up"], made["mac"]) == (True, True, None)
    assert made["addrs"] == ["10.9.0.1/24"]
    assert (made["peer"]["name"], made["peer"]["netns"]) == ("eth0", b.name)
    assert links(a)["nk0"]["mtu"] == links(b)["eth0"]["mtu"] == 1400
    assert ping(a, "10.9.0.2", count=3) == 3
    (shown,) = ok("netkit", "show", "-n", a.name)["devices"]
    assert shown == made
    assert ok("netkit", "del", "-n", a.name, "nk0")["deleted"] == ["nk0"]
    assert "eth0" not in links(b)


@pytest.mark.needs("netkit")
def test_blackhole_stops_packets_and_set_lets_them_pass(two_ns: tuple[NetNS, NetNS]) -> None:
    a, b = two_ns
    add(
        *(a, "nk0", "--peer", "eth0", "--peer-netns", b.name, "--up", "--policy", "blackhole"),
        *("--addr", "10.9.0.1/24", "--peer-addr", "10.9.0.2/24"),
    )
    assert ping(a, "10.9.0.2") == 0
    changed = ok("netkit", "set", "-n", a.name, "nk0", "--policy", "forward")["device"]
    assert changed["policy"] == "forward"
    assert ping(a, "10.9.0.2") == 1
    ok("netkit", "set", "-n", a.name, "nk0", "--peer-policy", "blackhole")
    assert ping(a, "10.9.0.2") == 0


@pytest.mark.needs("netkit-single")
def test_a_single_device(ns: NetNS) -> None:
    made = add(ns, "nk0", "--single", "--rx-queues", 4)
    assert (made["pairing"], made["peer"], made["rx_queues"]) == ("single", None, 4)
    assert links(ns)["nk0"]["num_rx_queues"] == 4
    assert set(links(ns)) == {"lo", "nk0"}


@pytest.mark.needs("netkit-headroom")
def test_every_option(two_ns: tuple[NetNS, NetNS]) -> None:
    a, b = two_ns
    made = add(
        *(a, "nk0", "--peer", "eth0", "--peer-netns", b.name, "--mode", "l2", "--mtu", 1300),
        *("--policy", "blackhole", "--peer-policy", "forward"),
        *("--scrub", "none", "--peer-scrub", "default"),
        *("--headroom", 32, "--tailroom", 16, "--rx-queues", 3, "--peer-rx-queues", 2),
        *("--mac", "02:00:00:00:00:01", "--peer-mac", "02:00:00:00:00:02"),
        *("--addr", "10.9.0.1/24", "--addr", "10.9.1.1/24", "--peer-addr", "10.9.0.2/24"),
    )
    assert (made["mode"], made["policy"], made["scrub"]) == ("l2", "blackhole", "none")
    assert (made["headroom"], made["tailroom"], made["rx_queues"]) == (32, 16, 3)
    assert (made["mac"], made["up"]) == ("02:00:00:00:00:01", False)
    assert set(made["addrs"]) >= {"10.9.0.1/24", "10.9.1.1/24"}
    assert (made["peer"]["policy"], made["peer"]["scrub"]) == ("forward", "default")
    assert links(b)["eth0"]["address"] == "02:00:00:00:00:02"
    assert links(b)["eth0"]["num_rx_queues"] == 2


@pytest.mark.needs("netkit-single")
@pytest.mark.parametrize(
    ("rest", "status", "words"),
    [
        (["nk0", "--single", "--peer", "x"], 2, "single device has no peer"),
        (["nk0", "--single", "--peer-netns", "x"], 2, "single device has no peer"),
        (["nk0", "--single", "--policy", "blackhole"], 2, "no policy but forward"),
        (["nk0", "--mac", "02:00:00:00:00:01"], 2, "L3 device has no MAC"),
        (["nk0", "--mode", "l2", "--mac", "01:00:00:00:00:01"], 2, "multicast"),
        (["nk0", "--mode", "l4"], 2, "mode is l3 or l2"),
        (["nk0", "--policy", "drop"], 2, "policy is forward or blackhole"),
        (["nk0", "--addr", "10.0.0.300/24"], 2, "10.0.0.300/24"),
        (["nk0", "--rx-queues", "0"], 2, "rx queues"),
        (["nk0", "--rx-queues", "5000"], 1, "4096"),
        (["nk0", "--mtu", "7"], 1, "mtu"),
        (["nk0", "--peer", "nk0"], 2, "both ends"),
        (["nk0", "--peer-netns", "no-such-ns"], 1, "no namespace no-such-ns"),
        (["sixteen-letters-x"], 2, "at most 15"),
        (["a/b"], 2, "cannot hold"),
        ([".."], 2, "cannot be called"),
        ([""], 2, "empty"),
        (["lo"], 5, "lo"),
        (["nk0", "--peer", "lo"], 5, "lo"),
        (["nk0", "--addr", "10.0.0.1/24", "--addr", "10.0.0.1/24"], 2, "given twice"),
        # The namespace has IPv6 switched off: the device is made, and its address refused.
        (["nk0", "--up", "--addr", "fd00::1/64"], 1, "IPv6 is disabled"),
        (["nk0", "--up", "--addr", "10.0.0.1/24", "--peer-addr", "fd00::1/64"], 1, "disabled"),
    ],
)
def test_a_refused_add_leaves_nothing(ns: NetNS, rest: list[str], status: int, words: str) -> None:
    result = netbpf("-j", "netkit", "add", "-n", ns.name, *rest)
    assert result.status == status, result.out
    assert words.lower() in (result.error["message"] + str(result.error["hint"])).lower()
    assert set(links(ns)) == {"lo"}


@pytest.mark.needs("netkit")
def test_a_taken_name(ns: NetNS) -> None:
    add(ns, "nk7", "--peer", "nk8")
    before = links(ns)
    result = netbpf("-j", "netkit", "add", "-n", ns.name, "nk7")
    assert (result.status, result.error["code"], result.error["errno"]) == (5, "exists", "EEXIST")
    assert links(ns) == before


@pytest.mark.needs("netkit-single")
def test_programs_go_by_way_of_the_primary(ns: NetNS) -> None:
    add(ns, "nk0", "--peer", "nk0p")
    add(ns, "nk1", "--single")
    for name, status, code, words in (
        ("nk0p", 1, "refused", "by way of the primary"),
        ("nk1", 1, "operation_not_supported", "single netkit device"),
        ("lo", 1, "wrong_device", "not a netkit device"),
        ("nope", 1, "not_found", "no device nope"),
    ):
        for verb, rest in (("attach", ["primary", "builtin:pass"]), ("chain", ["peer"])):
            result = netbpf("-j", "netkit", verb, "-n", ns.name, name, *rest)
            assert (result.status, result.error["code"]) == (status, code), result.out
            assert words in result.error["message"]


@pytest.mark.needs("netkit")
def test_chain_shows_both_sides(ns: NetNS) -> None:
    add(ns, "nk0", "--peer", "nk0p")
    ok("netkit", "attach", "-n", ns.name, "nk0", "peer", "builtin:pass", "--no-link")
    chains = ok("netkit", "chain", "-n", ns.name, "nk0")["chains"]
    assert [(c["hook"], len(c["entries"])) for c in chains] == [("primary", 0), ("peer", 1)]


@pytest.mark.needs("netkit")
def test_set_and_del_refuse(ns: NetNS) -> None:
    add(ns, "nk0", "--peer", "nk0p")
    for arguments, status, code in (
        (["set", "nk0"], 2, "usage"),
        (["set", "nk0p", "--policy", "blackhole"], 1, "refused"),
        (["set", "nope", "--policy", "blackhole"], 1, "not_found"),
        (["set", "nk0", "--policy", "wrong"], 2, "usage"),
        (["del", "lo"], 1, "not_found"),
        (["del", "nk0", "nope"], 1, "not_found"),
        (["show", "nope"], 1, "not_found"),
    ):
        result = netbpf("-j", "netkit", arguments[0], "-n", ns.name, *arguments[1:])
        assert (result.status, result.error["code"]) == (status, code), result.out
    assert set(links(ns)) == {"lo", "nk0", "nk0p"}


@pytest.mark.needs("netkit")
def test_a_deleted_device_takes_our_pins_along(ns: NetNS) -> None:
    add(ns, "nk0", "--peer", "nk0p")
    pinned = [
        ok("netkit", "attach", "-n", ns.name, "nk0", hook, "builtin:pass")["attached"]["link"]
        for hook in ("primary", "peer")
    ]
    ok("tcx", "attach", "-n", ns.name, "lo", "ingress", "builtin:pass")
    ok("netkit", "del", "-n", ns.name, "nk0")
    for link in pinned:
        assert not os.path.exists(link["pins"][0])
    (entry,) = ok("tcx", "show", "-n", ns.name, "lo", "ingress")["chains"][0]["entries"]
    assert os.path.exists(entry["link"]["pins"][0])
    ok("tcx", "detach", "-n", ns.name, "lo", "ingress", "name:pass")


@pytest.mark.needs("netkit")
def test_dry_run_makes_and_deletes_nothing(ns: NetNS) -> None:
    assert ok("netkit", "add", "-n", ns.name, "nk0", "--dry-run")["dry_run"] is True
    assert set(links(ns)) == {"lo"}
    add(ns, "nk0", "--peer", "nk0p")
    before = links(ns)
    ok("netkit", "del", "-n", ns.name, "nk0", "--dry-run")
    ok("netkit", "set", "-n", ns.name, "nk0", "--policy", "blackhole", "--dry-run")
    assert links(ns) == before


def test_a_kernel_without_netkit_says_so(ns: NetNS) -> None:
    result = netbpf("-j", "netkit", "add", "-n", ns.name, "nk0", "--peer", "nk0p")
    with device(ns, "dev0"):
        chain = netbpf("-j", "netkit", "chain", "-n", ns.name, "dev0")
    if probes.has("netkit"):
        assert result.status == 0
        assert chain.error["errno"] == "ENXIO"
    else:
        for refused in (result, chain):
            assert (refused.status, refused.error["code"]) == (3, "not_supported")
            assert "Linux 6.7 or later with CONFIG_NETKIT" in refused.error["message"]
