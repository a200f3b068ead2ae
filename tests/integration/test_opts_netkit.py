"""Programs on netkit devices: both sides, both modes, the policy, and devices that take none."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from netbpf import Program, loader, netkit
from netbpf.bpf import uapi
from netbpf.bpf.hook import Hook
from netbpf.errors import BpfError, NotFoundError, errno_name
from netbpf.netkit import device as netkit_device
from netbpf.netns import NetNS, entered
from tests.netns_fixtures import devices, programs
from tests.netns_fixtures.cli import netbpf
from tests.netns_fixtures.devices import End
from tests.netns_fixtures.hooks import Site, Tracers
from tests.netns_fixtures.namespaces import run
from tests.netns_fixtures.packets import counters, send_udp
from tests.netns_fixtures.rawbpf import Raw

Load = Callable[..., Program]

pytestmark = pytest.mark.needs("netkit")

SIDES = ["netkit-primary", "netkit-peer"]
HOOKS = ("primary", "peer")


@pytest.fixture
def tracers(compiled: Callable[[str], Path]) -> Iterator[Tracers]:
    with loader.open(compiled("trace")) as obj:
        obj.load()
        yield Tracers(obj)


@pytest.fixture
def links() -> Iterator[ExitStack]:
    """Closes the links that a test hands it."""
    with ExitStack() as stack:
        yield stack


def site_of(ends: tuple[End, End], hook: str) -> Site:
    near, far = ends
    sender, receiver = (near, far) if hook == "primary" else (far, near)
    return Site(netkit.HOOKS, hook, "netkit", near.ns, near.name, near.ifindex, sender, receiver)


@pytest.mark.parametrize("mode", ["l2", "l3"])
def test_each_side_sees_what_it_sends(
    two_ns: tuple[NetNS, NetNS], tracers: Tracers, links: ExitStack, mode: str
) -> None:
    with devices.netkit_pair(*two_ns, mode=mode) as ends:
        primary, peer = (site_of(ends, hook) for hook in HOOKS)
        links.enter_context(primary.attach(tracers["one"]).link or pytest.fail("no link"))
        assert (len(primary.ids()), len(peer.ids())) == (1, 0)
        assert tracers.order(primary) == [1]
        assert tracers.order(peer) == []
        links.enter_context(peer.attach(tracers["two"]).link or pytest.fail("no link"))
        assert (primary.chain().revision, peer.chain().revision) == (2, 2)
        assert tracers.order(primary) == [1]
        assert tracers.order(peer) == [2]


@pytest.mark.parametrize("mode", ["l2", "l3"])
@pytest.mark.parametrize("link", [True, False])
def test_several_on_each_side(
    two_ns: tuple[NetNS, NetNS], tracers: Tracers, links: ExitStack, mode: str, link: bool
) -> None:
    with devices.netkit_pair(*two_ns, mode=mode) as ends:
        for hook in HOOKS:
            site = site_of(ends, hook)
            for name, where in (("one", {}), ("two", {"before": tracers["one"]})):
                placed = site.attach(tracers[name], link=link, **where)
                if placed.link is not None:
                    links.enter_context(placed.link)
            assert tracers.order(site) == [2, 1]
            assert site.chain().revision == 3


@pytest.mark.parametrize(("mode", "arp"), [("l2", True), ("l3", False)])
def test_nobody_is_asked_for_on_l3(
    two_ns: tuple[NetNS, NetNS],
    compiled: Callable[[str], Path],
    links: ExitStack,
    mode: str,
    arp: bool,
) -> None:
    """To an address that nobody has: L2 asks by ARP who it is, L3 sends at once."""
    with (
        devices.netkit_pair(*two_ns, mode=mode) as ends,
        loader.open(compiled("protocols")) as obj,
    ):
        obj.load()
        site = site_of(ends, "primary")
        placed = site.attach(obj.programs["count_protocols"])
        links.enter_context(placed.link or pytest.fail("no link"))
        send_udp(site.ns, "10.98.0.77", 9, count=2)
        assert (obj.get("protocols.arp") > 0) == arp
        assert (obj.get("protocols.ipv4") > 0) == (not arp)


@pytest.mark.parametrize("site", SIDES, indirect=True)
def test_a_policy_is_for_a_side_without_programs(site: Site, load: Load) -> None:
    policy = "policy" if site.hook == "primary" else "peer_policy"
    assert site.passes()
    change(site, **{policy: "blackhole"})
    assert site.drops()
    for code in (programs.NEXT, programs.PASS):
        prog = load(code)
        with site.attach(prog).link or pytest.fail("no link"):
            assert site.passes(), "with a program the policy has no say, NEXT included"
        assert site.drops()
    change(site, **{policy: "forward"})
    with site.attach(load(programs.DROP)).link or pytest.fail("no link"):
        assert site.drops()
    assert site.passes()


@pytest.mark.parametrize("site", SIDES, indirect=True)
def test_what_a_verdict_does(site: Site, tracers: Tracers, load: Load, links: ExitStack) -> None:
    """Any code that is none of netkit's ends the chain and drops (drivers/net/netkit.c)."""
    site.attach(tracers["one"], link=False)
    link = site.attach(load(programs.NEXT)).link or pytest.fail("no link")
    links.enter_context(link)
    site.attach(tracers["two"], link=False)
    assert tracers.order(site) == [1, 2]
    for code in (programs.PASS, programs.DROP, 1, 3, 4, 5, 6, 8, 100):
        link.update(load(code))
        arrives = code == programs.PASS
        dropped = counters(site.sender.ns, site.sender.name)["tx_dropped"]
        tracers.obj.set("trace.count", 0)
        assert site.arrived(1, timeout=2.0 if arrives else 0.1) == int(arrives), code
        seen = tracers.obj.get("trace.order")[: tracers.obj.get("trace.count")]
        assert list(seen) == [1], code
        gone = counters(site.sender.ns, site.sender.name)["tx_dropped"] - dropped
        assert (gone == 0) == arrives, code


def test_devices_that_take_no_programs(
    ns: NetNS, load: Load, links: ExitStack, refused_at: Callable[..., None]
) -> None:
    with devices.device(ns, "veth0") as other, devices.netkit_pair(ns, ns) as (near, far):
        refused_at(ns, other, "veth0", errno.ENXIO, "it is not a netkit device", load)
        refused_at(ns, far.ifindex, far.name, errno.EACCES, "it is the peer of a pair", load)
        with entered(ns):
            assert all(not netkit.chain(near.ifindex, hook).entries for hook in HOOKS)


@pytest.mark.needs("netkit-single")
def test_a_single_device_takes_no_programs(
    ns: NetNS, load: Load, refused_at: Callable[..., None]
) -> None:
    with devices.netkit_single(ns) as made:
        refused_at(ns, made.ifindex, "nk0", errno.EOPNOTSUPP, "a single netkit device", load)


@pytest.fixture
def refused_at() -> Callable[..., None]:
    """Every request to the device is refused with this errno, and netbpf says these words."""

    def check(ns: NetNS, ifindex: int, name: str, number: int, words: str, load: Load) -> None:
        one, two = load(programs.NEXT, "one"), load(programs.NEXT, "two")
        for hook in HOOKS:
            raw = Raw(ns, netkit.HOOKS.hook(hook), ifindex)
            assert raw.query().errno == number
            requests: list[Callable[[], Any]] = [
                lambda raw=raw: raw.attach(one),  # type: ignore[misc]
                lambda raw=raw: raw.detach(one),  # type: ignore[misc]
                lambda raw=raw: raw.create(one),  # type: ignore[misc]
            ]
            for request in requests:
                with pytest.raises(OSError) as caught:
                    request()
                assert caught.value.errno == number
            place = (ifindex, hook)
            calls: list[Callable[[], Any]] = [
                lambda place=place: netkit.chain(*place),  # type: ignore[misc]
                lambda place=place: netkit.attach(*place, one),  # type: ignore[misc]
                lambda place=place: netkit.attach(*place, one, link=False),  # type: ignore[misc]
                lambda place=place: netkit.attach(*place, one, before=two),  # type: ignore[misc]
                lambda place=place: netkit.detach(*place, one),  # type: ignore[misc]
                lambda place=place: netkit.update(*place, one, two),  # type: ignore[misc]
            ]
            for call in calls:
                with entered(ns), pytest.raises(BpfError, match=words) as refused:
                    call()
                assert refused.value.errno == number
                assert f"{name} {hook}" in str(refused.value)
            argv = ["netkit", "attach", "-n", ns.name, name, hook, "builtin:next"]
            result = netbpf("-j", *argv)
            assert (result.status, result.error["errno"]) == (1, errno_name(number))
            assert words in result.error["message"]

    return check


def test_neither_side(netkit: tuple[End, End], load: Load) -> None:
    near, _ = netkit
    place = Hook("ingress", uapi.BPF_TCX_INGRESS + 1000, "netkit", "6.7", "CONFIG_NETKIT")
    raw = Raw(near.ns, place, near.ifindex)
    one = load(programs.NEXT)
    requests: list[Callable[[], object]] = [lambda: raw.attach(one), lambda: raw.create(one)]
    for request in requests:
        with pytest.raises(OSError) as caught:
            request()
        assert caught.value.errno == errno.EINVAL
    assert raw.query().errno == errno.EINVAL


def test_only_where_the_primary_is(netkit: tuple[End, End], load: Load) -> None:
    """Both sides are reached by the primary, in its namespace; elsewhere it is no device."""
    near, far = netkit
    one = load(programs.NEXT, "one")
    for hook in HOOKS:
        raw = Raw(far.ns, site_of(netkit, hook).hooks.hook(hook), near.ifindex + 1000)
        with pytest.raises(OSError) as caught:
            raw.attach(one)
        assert caught.value.errno == errno.ENODEV
        with entered(far.ns), pytest.raises(NotFoundError, match="no device"):
            site_of(netkit, hook).hooks.attach(near.ifindex + 1000, hook, one)


def test_with_either_end_both_chains_go(
    two_ns: tuple[NetNS, NetNS], load: Load, links: ExitStack
) -> None:
    for end in (0, 1):
        with devices.netkit_pair(*two_ns) as ends:
            held = []
            for hook in HOOKS:
                link = site_of(ends, hook).attach(load(programs.NEXT)).link
                held.append(links.enter_context(link or pytest.fail("no link")))
            assert not any(link.info().defunct for link in held)
            run(ends[end].ns, ["ip", "link", "del", ends[end].name])
            assert all(link.info().defunct for link in held)
            with entered(ends[0].ns), pytest.raises(OSError):
                socket.if_nametoindex(ends[0].name)


def test_a_chain_stays_while_its_peer_moves(
    two_ns: tuple[NetNS, NetNS], ns: NetNS, tracers: Tracers, links: ExitStack
) -> None:
    with devices.netkit_pair(*two_ns) as ends:
        near, far = ends
        for name, hook in (("one", "primary"), ("two", "peer")):
            link = site_of(ends, hook).attach(tracers[name]).link
            links.enter_context(link or pytest.fail("no link"))
        run(far.ns, ["ip", "link", "set", far.name, "netns", str(ns.name)])
        run(ns, ["ip", "addr", "add", f"{far.address}/24", "dev", far.name])
        run(ns, ["ip", "link", "set", far.name, "up"])
        with entered(ns):
            moved = End(ns, far.name, socket.if_nametoindex(far.name), far.address)
        assert tracers.order(site_of((near, moved), "primary")) == [1]
        assert tracers.order(site_of((near, moved), "peer")) == [2]


def change(site: Site, **settings: str) -> None:
    with entered(site.ns):
        netkit_device.set(site.device, **settings)
