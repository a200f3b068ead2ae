"""``netbpf netns move`` and ``set``: devices between namespaces with their chains, and ids."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from netbpf import netns, tcx
from netbpf.errors import NotFoundError
from netbpf.netlink import addresses, links
from netbpf.netns import NetNS
from tests.netns_fixtures import devices, namespaces
from tests.netns_fixtures.cli import netbpf, ok
from tests.netns_fixtures.namespaces import run
from tests.netns_fixtures.packets import UdpSink, send_udp


@pytest.fixture
def three() -> Iterator[list[NetNS]]:
    """Three namespaces; between the first two a veth pair: veth-a, veth-b."""
    with namespaces.namespaces(3) as made, ExitStack() as stack:
        stack.enter_context(devices.veth_pair(made[0], made[1]))
        yield made


def seen(ns: NetNS) -> dict[str, dict[str, object]]:
    """The devices of a namespace, as ip tells them."""
    listed = json.loads(run(ns, ["ip", "-j", "addr"]).stdout)
    return {each["ifname"]: each for each in listed}


def arrived(sender: NetNS, receiver: NetNS, address: str) -> int:
    with UdpSink(receiver, port=9) as sink:
        send_udp(sender, address, 9, b"x", 3)
        return len(sink.receive(3, timeout=0.5))


def test_routes_are_told_before_they_are_lost(three: list[NetNS]) -> None:
    a, _, c = three
    for line in (
        "ip link add one type veth peer name one-end",
        "ip link add two type veth peer name two-end",
        "ip link set one up",
        "ip link set two up",
        "sysctl -qw net.ipv6.conf.one.disable_ipv6=0 net.ipv6.conf.one.accept_dad=0",
        "ip addr add 10.97.0.1/24 dev one",
        "ip addr add 10.98.0.1/24 dev two",
        "ip addr add fd00:97::1/64 dev one nodad",
        # A route with two ways loses one of them.
        "ip route add 192.0.2.0/24 nexthop via 10.97.0.2 dev one nexthop via 10.98.0.2 dev two",
        "ip route add 203.0.113.0/24 via 10.98.0.2 dev two",
    ):
        run(a, line.split())
    written = [
        "default via 10.97.0.2",
        "198.51.100.0/24 via 10.97.0.2 metric 7 table 100",
        "local 198.51.101.0/24 table local",
        "203.0.114.0/24 via inet6 fd00:97::2",
        "default via fd00:97::2",
        "2001:db8::/32 metric 5",
    ]
    for route in written:
        run(a, ["ip", "route", "add", *route.split(), "dev", "one"])
    for more in ([], ["--dry-run"]):
        result = netbpf("-j", "netns", "move", "-n", a.name, "one", c.name, *more)
        assert (result.status, result.error["code"]) == (5, "default_route")
        assert "default via 10.97.0.2" in result.error["message"]
        assert "one" in seen(a)
    move = ("netns", "move", "--force", "one")
    would = netbpf("-j", *move, "-n", a.name, c.name, "--dry-run")
    (moved,) = would.json["moved"]
    told = [*written, "192.0.2.0/24 via 10.97.0.2"]
    assert sorted(moved["routes"]) == sorted(r.replace("table local", "table 255") for r in told)
    assert "route default via 10.97.0.2," in would.err
    assert ok(*move, "-n", a.name, c.name)["moved"][0]["routes"] == moved["routes"]
    # What was told is all that has to be typed.
    for line in (
        "ip link set one up",
        "sysctl -qw net.ipv6.conf.one.disable_ipv6=0 net.ipv6.conf.one.accept_dad=0",
    ):
        run(c, line.split())
    for address in ("10.97.0.1/24", "fd00:97::1/64"):
        run(c, ["ip", "addr", "add", address, "dev", "one", "nodad"])
    for route in moved["routes"]:
        run(c, ["ip", "route", "add", *route.split(), "dev", "one"])
    again = ok(*move, "-n", c.name, a.name, "--dry-run")["moved"][0]
    assert sorted(again["routes"]) == sorted(moved["routes"])


@pytest.mark.needs("tcx")
def test_a_chain_goes_along_and_clsact_does_not(three: list[NetNS]) -> None:
    a, b, c = three
    run(a, ["tc", "qdisc", "add", "dev", "veth-a", "clsact"])
    made = ok("tcx", "attach", "-n", a.name, "veth-a", "ingress", "builtin:drop")["attached"]
    assert arrived(b, a, "10.99.0.1") == 0
    before = ok("tcx", "show", "-n", a.name, "veth-a", "ingress")["chains"][0]
    would = ok("netns", "move", "-n", a.name, "veth-a", c.name, "--name", "eth7", "--dry-run")
    assert would["dry_run"] is True
    assert "veth-a" in seen(a)
    result = netbpf("-j", "netns", "move", "-n", a.name, "veth-a", c.name, "--name", "eth7")
    (moved,) = result.json["moved"]
    assert (moved["name"], moved["old_name"], moved["netns"]) == ("eth7", "veth-a", c.name)
    assert moved["was_up"] and moved["had_clsact"]
    assert moved["addrs"] == ["10.99.0.1/24"]
    assert "veth-a loses on the way: being up, address 10.99.0.1/24, clsact" in result.err
    assert "veth-a" not in seen(a)
    assert seen(c)["eth7"]["ifindex"] == moved["ifindex"]
    assert seen(c)["eth7"]["addr_info"] == []
    assert "clsact" not in run(c, ["tc", "qdisc", "show", "dev", "eth7"]).stdout
    # The same chain at the same revision, and it works on.
    (after,) = ok("tcx", "show", "-n", c.name, "eth7", "ingress")["chains"]
    assert after["revision"] == before["revision"]
    assert [each["link"]["id"] for each in after["entries"]] == [made["link"]["id"]]
    with devices.rtnl_in(c) as rtnl:
        addresses.add(rtnl, moved["ifindex"], addresses.parse("10.99.0.1/24"))
        links.change(rtnl, moved["ifindex"], up=True)
    assert arrived(b, c, "10.99.0.1") == 0
    ok("tcx", "detach", "-n", c.name, "eth7", "ingress", "name:drop")
    # What could not be resolved while ARP was dropped too is asked again.
    run(b, ["ip", "neigh", "flush", "dev", "veth-b"])
    assert arrived(b, c, "10.99.0.1") == 3


@pytest.mark.needs("tcx")
def test_pins_are_renamed_so_that_del_takes_them_along(three: list[NetNS]) -> None:
    a, _, c = three
    made = ok("tcx", "attach", "-n", a.name, "veth-a", "ingress", "builtin:next")["attached"]
    (old,) = made["link"]["pins"]
    (moved,) = ok("netns", "move", "-n", a.name, "veth-a", c.name)["moved"]
    (new,) = moved["pins"]
    assert f"net{c.inode}_veth-a_{moved['ifindex']}_ingress" in new
    assert os.path.exists(new) and not os.path.exists(old)
    with devices.rtnl_in(c) as rtnl:
        links.delete(rtnl, moved["ifindex"])
    assert [each["pin"] for each in ok("link", "gc")["garbage"] if each["pin"] == new] == [new]


def test_several_are_moved_or_none(three: list[NetNS]) -> None:
    """The second one is refused by the kernel: its altname is taken there."""
    a, _, c = three
    with devices.device(a, "d0"):
        run(a, ["ip", "link", "property", "add", "dev", "d0", "altname", "other"])
        run(c, ["ip", "link", "property", "add", "dev", "lo", "altname", "other"])
        before = {name: each["ifindex"] for name, each in seen(a).items()}
        result = netbpf("-j", "netns", "move", "-n", a.name, "veth-a", "d0p", "d0", c.name)
        assert result.status == 5, result.out
        assert result.error["errno"] == "EEXIST"
        assert result.error["message"].startswith(f"move d0 to namespace {c.name}: ")
        assert "altname" in result.error["hint"]
        assert {name: each["ifindex"] for name, each in seen(a).items()} == before
        assert set(seen(c)) == {"lo"}
        run(c, ["ip", "link", "property", "del", "dev", "lo", "altname", "other"])
        assert len(ok("netns", "move", "-n", a.name, "veth-a", "d0", c.name)["moved"]) == 2
        assert {"veth-a", "d0"} <= set(seen(c))
        ok("netns", "move", "-n", c.name, "d0", a.name)


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["lo", "C"], 1, "a namespace's loopback device stays in it (EINVAL)"),
        (["nope", "C"], 1, "no device nope"),
        (["veth-a", "no-such-namespace"], 1, "no namespace no-such-namespace"),
        (["veth-a", "A"], 5, "it is in namespace"),
        (["veth-a", "B", "--name", "veth-b"], 5, "there is a device veth-b already"),
        (["veth-a", "C", "--name", "a/b"], 2, "cannot hold '/'"),
        (["veth-a", "C", "--name", "x" * 16], 2, "at most 15 bytes"),
        (["veth-a", "C", "--name", "eth%d"], 2, "not a pattern"),
        (["veth-a", "veth-a", "C"], 2, "named twice"),
        (["veth-a", "lo", "C", "--name", "x"], 2, "cannot all be called x"),
        (["veth-a"], 2, "Missing argument"),
    ],
)
def test_refusals(three: list[NetNS], words: list[str], status: int, message: str) -> None:
    names = dict(zip("ABC", (str(ns.name) for ns in three), strict=True))
    words = [names.get(word, word) for word in words]
    before = [{name: each["ifindex"] for name, each in seen(ns).items()} for ns in three]
    for more in ([], ["--dry-run"]):
        result = netbpf("-j", "netns", "move", "-n", three[0].name, *words, *more)
        assert result.status == status, result.out
        assert message in result.error["message"]
    after = [{name: each["ifindex"] for name, each in seen(ns).items()} for ns in three]
    assert after == before


def test_without_rights_the_capability_is_named(three: list[NetNS]) -> None:
    a, _, c = three
    result = run(
        a,
        ["setpriv", "--bounding-set=-net_admin", sys.executable, "-m", "netbpf", "netns",
         "move", "veth-a", str(c.name)],
        check=False,
    )  # fmt: skip
    assert result.returncode == 4, result.stderr
    assert "CAP_NET_ADMIN" in result.stderr


def ip_id(ns: NetNS) -> int:
    """The id that ip tells for a namespace; -1: none."""
    listed = subprocess.run(["ip", "-j", "netns"], capture_output=True, text=True, check=True)
    return {each["name"]: each.get("id", -1) for each in json.loads(listed.stdout)}[ns.name]


def test_ids(two_ns: tuple[NetNS, NetNS]) -> None:
    a, b = two_ns
    wanted = 1_000_000 + os.getpid()
    assert ok("netns", "set", a.name, "--nsid", wanted, "--dry-run")["namespace"]["nsid"] == wanted
    assert ip_id(a) == -1
    made = ok("netns", "set", a.name, "--nsid", wanted)["namespace"]
    assert made == {"name": a.name, "inode": a.inode, "nsid": wanted}
    assert ip_id(a) == wanted
    assert ok("netns", "show", a.name)["namespaces"][0]["nsid"] == wanted
    for more in ([], ["--dry-run"]):
        again = netbpf("-j", "netns", "set", a.name, "--nsid", "auto", *more)
        assert (again.status, again.error["errno"]) == (5, "EEXIST")
        assert again.error["hint"] == f"its id here is {wanted}, and stays so until it ends"
        taken = netbpf("-j", "netns", "set", b.name, "--nsid", wanted, *more)
        assert (taken.status, taken.error["errno"]) == (5, "EEXIST")
        assert f"another namespace has id {wanted}" in taken.error["hint"]
    assert ok("netns", "set", b.name, "--nsid", "auto", "--dry-run")["namespace"]["nsid"] is None
    free = ok("netns", "set", f"/run/netns/{b.name}", "--nsid", "auto")["namespace"]["nsid"]
    assert ip_id(b) == free
    # Seen from another one it has none yet.
    assert ok("netns", "show", "-n", b.name, a.name)["namespaces"][0]["nsid"] is None


def test_the_id_of_one_that_may_not_be_entered(ns: NetNS) -> None:
    given = ok("netns", "set", ns.name, "--nsid", "auto")["namespace"]["nsid"]
    words = ["setpriv", "--bounding-set=-sys_admin", sys.executable, "-m", "netbpf", "-j"]
    result = subprocess.run(
        [*words, "netns", "show", str(ns.name)], capture_output=True, text=True, check=True
    )
    (shown,) = json.loads(result.stdout)["namespaces"]
    assert (shown["nsid"], shown["devices"], shown["chains"]) == (given, [], [])
    assert "CAP_SYS_ADMIN" in result.stderr


@pytest.mark.parametrize("number", ["-1", "2147483648", "x", "²", " 1", ""])
def test_ids_that_are_none(ns: NetNS, number: str) -> None:
    result = netbpf("-j", "netns", "set", ns.name, f"--nsid={number}")
    assert (result.status, result.error["code"]) == (2, "usage"), result.out
    assert ip_id(ns) == -1


@pytest.mark.needs("tcx")
def test_show_tells_the_chains_of_each_namespace(three: list[NetNS]) -> None:
    a, b, _ = three
    ok("tcx", "attach", "-n", a.name, "veth-a", "ingress", "builtin:next")
    made = ok("tcx", "attach", "-n", a.name, "veth-a", "ingress", "builtin:count")["attached"]
    ok("tcx", "attach", "-n", b.name, "veth-b", "egress", "builtin:pass")
    shown = {each["name"]: each for each in ok("netns", "show")["namespaces"]}
    with netns.entered(a):
        chain = tcx.chain(made["ifindex"], "ingress")
    assert shown[a.name]["chains"] == [
        {
            "device": "veth-a",
            "ifindex": made["ifindex"],
            "hook": "ingress",
            "programs": 2,
            "revision": chain.revision,
        }
    ]
    assert [each["hook"] for each in shown[b.name]["chains"]] == ["egress"]
    (one,) = ok("netns", "show", a.name)["namespaces"]
    assert one == shown[a.name]
    words = netbpf("netns", "show", a.name).out
    assert f"veth-a ingress: 2 programs, revision {chain.revision}" in words
    for each in (a, b):
        for hook in ("ingress", "egress"):
            for name in ("next", "count", "pass"):
                netbpf("tcx", "detach", "-n", each.name, "veth-a", hook, f"name:{name}")
                netbpf("tcx", "detach", "-n", each.name, "veth-b", hook, f"name:{name}")


@pytest.mark.needs("netkit")
def test_show_tells_netkit_chains_where_they_hang(two_ns: tuple[NetNS, NetNS]) -> None:
    with devices.netkit_pair(*two_ns) as (near, far):
        ok("netkit", "attach", "-n", near.ns.name, near.name, "peer", "builtin:next")
        shown = {each["name"]: each["chains"] for each in ok("netns", "show")["namespaces"]}
        (chain,) = shown[near.ns.name]
        assert (chain["device"], chain["hook"], chain["programs"]) == (near.name, "peer", 1)
        assert shown[far.ns.name] == []
        ok("netkit", "detach", "-n", near.ns.name, near.name, "peer", "name:next")


def test_show_of_one_that_is_not_there() -> None:
    result = netbpf("-j", "netns", "show", "no-such-namespace")
    assert (result.status, result.error["code"]) == (1, "not_found")
    with pytest.raises(NotFoundError):
        NetNS.parse("no-such-namespace")


def test_show_of_one_held_by_a_mount_elsewhere(ns: NetNS, tmp_path: os.PathLike[str]) -> None:
    held = os.path.join(tmp_path, "held")
    open(held, "x").close()
    subprocess.run(["mount", "--bind", f"/run/netns/{ns.name}", held], check=True)
    try:
        (one,) = ok("netns", "show", held)["namespaces"]
        assert (one["name"], one["inode"]) == (ns.name, ns.inode)
        subprocess.run(["ip", "netns", "del", str(ns.name)], check=True)
        (one,) = ok("netns", "show", held)["namespaces"]
        assert (one["name"], one["inode"], one["devices"]) == (None, ns.inode, ["lo"])
        netns.add(str(ns.name))
    finally:
        subprocess.run(["umount", held], check=True)
