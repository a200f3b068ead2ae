"""Rtnetlink sockets and namespace ids on the running kernel."""

from __future__ import annotations

import asyncio
import subprocess
import threading

import pytest

from netbpf import netns
from netbpf.errors import NetlinkError, NotFoundError
from netbpf.netlink import addresses, links, nsids
from netbpf.netlink.rtnl import Refusal, Rtnl
from tests.netns_fixtures import rawlink
from tests.netns_fixtures.devices import rtnl_in
from tests.netns_fixtures.namespaces import run


def add_veth(rtnl, name, **more):
    """A pair of veth devices, NAME and NAMEp."""
    nest = {"attrs": [("IFLA_IFNAME", f"{name}p")]}
    return links.add(rtnl, name, "veth", data=[("VETH_INFO_PEER", nest)], **more)


def ip(ns, *argv: str) -> str:
    return run(ns, ["ip", *argv]).stdout


def test_a_socket_belongs_to_the_namespace_it_was_opened_in(two_ns):
    a, b = two_ns
    with rtnl_in(a) as at_a, rtnl_in(b) as at_b:
        add_veth(at_a, "only-a")
        assert [link.name for link in links.dump(at_a)] == ["lo", "only-ap", "only-a"]
        assert [link.name for link in links.dump(at_b)] == ["lo"]
        # Where the asking thread stands makes no difference any more.
        with netns.entered(b):
            assert links.get(at_a, "only-a").kind == "veth"
    assert "only-a" in ip(a, "link")


def test_threads_ask_side_by_side(two_ns):
    found = {}

    def ask(ns):
        with netns.entered(ns), Rtnl() as rtnl:
            for number in range(20):
                add_veth(rtnl, f"{ns.name[-4:]}-{number}")
            found[ns.name] = {link.name[:4] for link in links.dump(rtnl, kind="veth")}

    threads = [threading.Thread(target=ask, args=(ns,)) for ns in two_ns]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {ns.name: {ns.name[-4:]} for ns in two_ns}


def test_it_works_inside_a_running_event_loop(ns):
    async def ask():
        with netns.entered(ns), Rtnl() as rtnl:
            return links.get(rtnl, "lo").ifindex

    assert asyncio.run(ask()) == 1


def test_ask_for_many_devices(ns):
    """More than one datagram's worth."""
    batch = "".join(f"link add d{number} type veth\n" for number in range(150))
    with netns.entered(ns):
        subprocess.run(["ip", "-batch", "-"], input=batch, text=True, check=True)
        with Rtnl() as rtnl:
            assert len(links.dump(rtnl, kind="veth")) == 300
            assert len(links.dump(rtnl)) == 301


def test_make_change_delete(ns):
    with rtnl_in(ns) as rtnl:
        ifindex = add_veth(rtnl, "d0", attributes=[("IFLA_MTU", 1400)])
        assert rawlink.link(ns, ifindex)[3] == b"d0\0"
        assert "mtu 1400" in ip(ns, "link", "show", "dev", "d0")
        links.change(rtnl, ifindex, up=True, attributes=[("IFLA_MTU", 1300)])
        shown = ip(ns, "link", "show", "dev", "d0")
        assert "mtu 1300" in shown and "UP" in shown
        addresses.add(rtnl, ifindex, addresses.parse("10.7.0.1/24"))
        assert "inet 10.7.0.1/24" in ip(ns, "addr", "show", "d0")
        assert addresses.by_device(rtnl) == {1: ["127.0.0.1/8"], ifindex: ["10.7.0.1/24"]}
        assert addresses.by_device(rtnl, ifindex) == {ifindex: ["10.7.0.1/24"]}
        addresses.delete(rtnl, ifindex, addresses.parse("10.7.0.1/24"))
        assert "inet" not in ip(ns, "addr", "show", "d0")
        links.delete(rtnl, ifindex)
        with pytest.raises(OSError, match="RTM_GETLINK"):
            rawlink.link(ns, ifindex)


def test_refusals_in_the_kernels_words(ns):
    with rtnl_in(ns) as rtnl:
        with pytest.raises(NotFoundError, match="no device nope"):
            links.get(rtnl, "nope")
        with pytest.raises(NotFoundError, match="no device with ifindex 99"):
            links.get(rtnl, 99)
        with pytest.raises(Refusal) as caught:
            links.add(rtnl, "x0", "no-such-kind")
        assert caught.value.extack == "Unknown device type"
        ifindex = add_veth(rtnl, "d0")
        with pytest.raises(Refusal) as caught:
            links.change(rtnl, ifindex, attributes=[("IFLA_MTU", 20)])
        assert caught.value.extack == "mtu less than device minimum"


def test_namespace_ids(two_ns):
    a, b = two_ns
    with rtnl_in(a) as rtnl:
        assert nsids.get(rtnl, b) is None
        assert nsids.assign(rtnl, b, 7) == 7
        assert nsids.ensure(rtnl, b) == 7
        with pytest.raises(NetlinkError, match="EEXIST"):
            nsids.assign(rtnl, b)
        assert nsids.ensure(rtnl, a) >= 0
    assert f"nsid 7 (iproute2 netns name: {b.name})" in ip(a, "netns", "list-id")


def test_a_device_of_another_namespace_by_its_id(veth):
    first, second = veth
    with rtnl_in(first.ns) as rtnl:
        own = links.get(rtnl, first.name)
        assert own.peer_nsid == nsids.get(rtnl, second.ns)
        other = links.get(rtnl, own.peer_ifindex, nsid=own.peer_nsid)
    assert other.name == second.name
    assert f"{second.ifindex}: {second.name}" in ip(second.ns, "link")
