"""``netbpf watch``: what happens to chains and devices is told, and nothing else."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest

from netbpf import Program, tcx
from netbpf.bpf import move as moving
from netbpf.bpf.anchor import Anchor
from netbpf.netlink import links
from netbpf.netlink.monitor import Lost, Monitor
from netbpf.netns import NetNS, entered
from netbpf.plumbing.watch import Watch
from netbpf.plumbing.watch_events import ChainEvent, DeviceEvent, Event, LostEvent
from tests.netns_fixtures import devices, hooks, namespaces
from tests.netns_fixtures.hooks import Site
from tests.netns_fixtures.programs import NEXT

Load = Callable[..., Program]
DEVICE = {"schema_version", "time", "event", "netns", "device", "ifindex", "old_name", "moved_to"}
CHAIN = {
    *("schema_version", "time", "event", "netns", "device", "ifindex", "hook", "revision"),
    *("came", "went", "replaced", "moved"),
}


class Running:
    """``netbpf watch`` as a process, and the lines that it prints."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._rest = ""

    def next(self, timeout: float = 10) -> Any:
        """The next line as a document."""
        return json.loads(self.line(timeout))

    def line(self, timeout: float = 10) -> str:
        assert self.process.stdout is not None
        deadline = time.monotonic() + timeout
        while "\n" not in self._rest:
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self.process.stdout], [], [], max(left, 0))
            assert ready, f"no line within {timeout} s, but {self._rest!r}"
            data = os.read(self.process.stdout.fileno(), 65536).decode()
            assert data, "the watch has ended"
            self._rest += data
        line, self._rest = self._rest.split("\n", 1)
        return line

    def quiet(self, seconds: float = 1.0) -> bool:
        """Whether nothing is printed for a while."""
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], seconds)
        return not ready and not self._rest


@contextmanager
def watching(ns: NetNS | None, *arguments: str, words: bool = False) -> Iterator[Running]:
    argv = [sys.executable, "-m", "netbpf", *([] if words else ["--json"]), "watch"]
    argv += [*(["-n", str(ns.name)] if ns else []), *arguments]
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            begun = process.stderr.readline()
            assert begun.startswith("netbpf: watching "), begun
            yield Running(process)
        finally:
            process.kill()


def test_a_chain(site: Site, load: Load) -> None:
    one, two, three = load(NEXT, "one"), load(NEXT, "two"), load(NEXT, "three")
    with ExitStack() as stack, watching(site.ns, site.device) as running:
        before = site.chain().revision
        placed = site.attach(one)
        assert placed.link is not None
        stack.enter_context(placed.link)
        came = running.next()
        assert set(came) == CHAIN
        assert (came["event"], came["netns"], came["device"]) == (
            *("chain", site.ns.name, site.device),
        )
        assert (came["ifindex"], came["hook"]) == (site.ifindex, site.hook)
        assert came["revision"] == {"from": before, "to": placed.revision}
        assert came["came"] == [
            {
                "position": 0,
                "prog": {"id": one.id, "name": "one"},
                "link": {"id": placed.link.id},
            }
        ]
        assert (came["went"], came["replaced"], came["moved"]) == ([], [], [])

        site.attach(two, link=False, first=True)
        came = running.next()
        assert [each["prog"]["name"] for each in came["came"]] == ["two"]
        assert (came["came"][0]["position"], came["came"][0]["link"], came["moved"]) == (
            0,
            None,
            [],
        )

        placed.link.update(three)
        (replaced,) = running.next()["replaced"]
        assert (replaced["from"]["prog"]["name"], replaced["to"]["prog"]["name"]) == (
            "one",
            "three",
        )

        site.call("detach", two)
        went = running.next()
        assert [each["prog"] for each in went["went"]] == [{"id": two.id, "name": "two"}]
        assert went["revision"]["to"] == site.chain().revision
        assert running.quiet()


def test_moves_within_a_chain(site: Site, load: Load) -> None:
    loaded = [load(NEXT, f"prog{number}") for number in range(3)]
    for prog in loaded:
        site.attach(prog, link=False)
    with entered(site.ns), Watch([site.device]) as watch:
        moving.move(site.hooks, site.ifindex, site.hook, loaded[0], Anchor(last=True))
        (event,) = [each for each in watch.events(0) if isinstance(each, ChainEvent)]
    assert [(a.position, b.position) for a, b in event.change.moved] == [(0, 2)]
    assert not event.change.came and not event.change.went
    assert event.as_json()["moved"][0]["from"] == 0
    assert event.as_json()["moved"][0]["to"]["position"] == 2


def test_changed_and_back(site: Site, load: Load) -> None:
    with entered(site.ns), Watch([site.device]) as watch:
        site.attach(load(NEXT), link=False)
        list(watch.events(0))
        extra = load(NEXT)
        site.attach(extra, link=False)
        site.call("detach", extra)
        (event,) = watch.events(0)
        assert isinstance(event, ChainEvent)
        assert event.before and event.after and event.before.entries == event.after.entries
        assert event.after.revision == event.before.revision + 2
        assert "changed, and back again" in str(event)
        assert list(watch.events(0)) == []


def test_a_chain_that_came_to_its_old_revision(load: Load) -> None:
    """An empty tcx chain forgets its revision: the same number, another program."""
    with hooks.site("tcx-ingress") as site, entered(site.ns):
        one, two = load(NEXT, "one"), load(NEXT, "two")
        site.attach(one, link=False)
        with Watch([site.device]) as watch:
            site.call("detach", one)
            assert site.attach(two, link=False).revision == 2
            found: list[Event] = []
            deadline = time.monotonic() + 20
            while not found and time.monotonic() < deadline:
                found = list(watch.events(0))
            (event,) = found
    assert isinstance(event, ChainEvent)
    assert [each.prog_id for each in event.change.came] == [two.id]
    assert [each.prog_id for each in event.change.went] == [one.id]


def test_devices(two_ns: tuple[NetNS, NetNS]) -> None:
    a, b = two_ns
    with watching(a) as running, devices.rtnl_in(a) as rtnl:
        ifindex = links.add(rtnl, "one", "veth", data=[("VETH_INFO_PEER", peer("other"))])
        appeared = {running.next()["device"] for _ in range(2)}
        assert appeared == {"one", "other"}
        links.change(rtnl, ifindex, up=True)
        up = running.next()
        assert set(up) == DEVICE
        assert (up["event"], up["device"], up["ifindex"]) == ("device_up", "one", ifindex)
        assert (up["netns"], up["old_name"], up["moved_to"]) == (a.name, None, None)
        links.change(rtnl, ifindex, up=False)
        assert running.next()["event"] == "device_down"
        links.change(rtnl, ifindex, attributes=[("IFLA_IFNAME", "two")])
        renamed = running.next()
        assert (renamed["event"], renamed["device"], renamed["old_name"]) == (
            *("device_renamed", "two", "one"),
        )
        links.change(rtnl, ifindex, attributes=[("IFLA_NET_NS_FD", b.fileno())])
        moved = running.next()
        assert (moved["event"], moved["device"]) == ("device_moved", "two")
        assert moved["moved_to"]["netns"] == b.name
        with devices.rtnl_in(b) as there:
            assert links.get(there, "two").ifindex == moved["moved_to"]["ifindex"]
            links.delete(there, moved["moved_to"]["ifindex"])
        assert (gone := running.next())["event"] == "device_gone"
        assert gone["device"] == "other"
        assert running.quiet(0.5)


def peer(name: str) -> Any:
    return {"attrs": [("IFLA_IFNAME", name)]}


def test_a_device_deleted_and_made_again(ns: NetNS, load: Load) -> None:
    prog = load(NEXT, "again")
    with watching(ns, "dev0") as running:
        for _ in range(2):
            with devices.device(ns, "dev0") as ifindex:
                made = running.next()
                assert (made["event"], made["ifindex"]) == ("device_appeared", ifindex)
                assert running.next()["event"] == "device_up"
                with entered(ns):
                    tcx.attach(ifindex, "ingress", prog, link=False)
                came = running.next()
                assert came["came"][0]["prog"]["name"] == "again"
                assert came["revision"] == {"from": 1, "to": 2}
            events = [running.next() for _ in range(3)]
            (chain,) = [each for each in events if each["event"] == "chain"]
            assert (chain["revision"], len(chain["went"])) == ({"from": 2, "to": None}, 1)
            assert [each["event"] for each in events if each is not chain] == [
                *("device_down", "device_gone"),
            ]


def test_the_same_number_again(ns: NetNS, load: Load) -> None:
    """The number of a device that is gone goes to another one, between two rounds."""
    prog = load(NEXT)
    with entered(ns), devices.rtnl_in(ns) as rtnl:
        first = links.add(rtnl, "first", "veth", data=[("VETH_INFO_PEER", peer("firstp"))])
        tcx.attach(first, "ingress", prog, link=False)
        with Watch(["first", "second"]) as watch:
            links.delete(rtnl, first)
            namespaces.run(ns, ["ip", "link", "add", "second", "index", str(first), "type", "veth"])
            tcx.attach(first, "ingress", prog, link=False)
            events = list(watch.events(0))
        links.delete(rtnl, first)
    whats = [each.what for each in events if isinstance(each, DeviceEvent)]
    assert whats == ["gone", "appeared"]
    chains = [each for each in events if isinstance(each, ChainEvent)]
    assert [(bool(each.before), bool(each.after)) for each in chains] == [
        *((True, False), (False, True)),
    ]


def test_a_device_that_arrives_with_programs(two_ns: tuple[NetNS, NetNS], load: Load) -> None:
    a, b = two_ns
    with devices.device(a, "mover") as ifindex, entered(a):
        tcx.attach(ifindex, "egress", load(NEXT, "luggage"), link=False)
        with watching(b) as running, devices.rtnl_in(a) as rtnl:
            links.change(rtnl, ifindex, attributes=[("IFLA_NET_NS_FD", b.fileno())])
            assert running.next()["event"] == "device_appeared"
            came = running.next()
            assert (came["revision"], came["hook"]) == ({"from": None, "to": 2}, "egress")
            assert came["came"][0]["prog"]["name"] == "luggage"
        with devices.rtnl_in(b) as there:
            links.delete(there, links.get(there, "mover").ifindex)


def test_more_than_the_socket_holds(ns: NetNS) -> None:
    with entered(ns), devices.rtnl_in(ns) as rtnl, Watch() as watch:
        watch._stack.close()
        with Monitor(queue=2048) as small:
            watch._monitor = small
            first = links.add(rtnl, "d0", "veth", data=[("VETH_INFO_PEER", peer("p0"))])
            for number in range(200):
                links.change(rtnl, first, up=number % 2 == 0)
            with pytest.raises(Lost):
                list(small.heard())
            # Until all is read, the kernel does not say it again.
            small.skip()
            for number in range(200):
                links.change(rtnl, first, up=number % 2 == 0)
            links.change(rtnl, first, up=True)
            events = list(watch.events(0))
            assert any(isinstance(each, LostEvent) for each in events)
            assert watch._home.devices[first].up
            assert {each.device for each in events if isinstance(each, DeviceEvent)} >= {"d0", "p0"}
            links.delete(rtnl, first)
            assert [e.what for e in watch.events(0) if isinstance(e, DeviceEvent)][-1] == "gone"


def test_a_bridge_that_a_port_leaves(ns: NetNS) -> None:
    """The bridge tells that its port left with the message for a device that is gone."""
    with devices.device(ns, "port") as ifindex, entered(ns), Watch(["port"]) as watch:
        with suppress(AssertionError):
            namespaces.run(ns, ["ip", "link", "add", "br0", "type", "bridge"])
            namespaces.run(ns, ["ip", "link", "set", "port", "master", "br0"])
            namespaces.run(ns, ["ip", "link", "set", "port", "nomaster"])
        assert not [e for e in watch.events(0) if isinstance(e, DeviceEvent) and e.what == "gone"]
        assert ifindex in watch._home.devices


def test_all_namespaces(two_ns: tuple[NetNS, NetNS], load: Load) -> None:
    a, _ = two_ns
    name = namespaces.random_name("w")[:15]
    with watching(None, name, f"{name}x", "--all-netns") as running:
        with devices.device(a, name) as ifindex:
            appeared = running.next()
            assert (appeared["event"], appeared["netns"]) == ("device_appeared", a.name)
            with entered(a):
                tcx.attach(ifindex, "ingress", load(NEXT, "far"), link=False)
            event = running.next()
            if event["event"] == "device_up":
                event = running.next()
            assert (event["netns"], event["came"][0]["prog"]["name"]) == (a.name, "far")
        assert running.next()["event"] == "chain"
        assert running.next()["event"] == "device_gone"
        # A namespace that comes later.
        with namespaces.namespace() as later, devices.device(later, f"{name}x"):
            late = running.next()
            assert (late["event"], late["netns"]) == ("device_appeared", later.name)


def test_namespaces_are_not_kept(ns: NetNS) -> None:
    """A pair goes when the namespace of one end ends, watched or not."""
    name = namespaces.random_name("k")[:14]
    with devices.rtnl_in(ns) as rtnl:
        with namespaces.namespace() as short:
            nest = {"attrs": [("IFLA_IFNAME", name), ("IFLA_NET_NS_FD", short.fileno())]}
            links.add(rtnl, f"{name}p", "veth", data=[("VETH_INFO_PEER", nest)])
            process = watching(None, name, "--all-netns")
            running = process.__enter__()
        try:
            deadline = time.monotonic() + 10
            while any(link.name == f"{name}p" for link in links.dump(rtnl)):
                assert time.monotonic() < deadline, "the namespace lives on"
                time.sleep(0.05)
            assert running.next()["event"] == "device_gone"
        finally:
            process.__exit__(None, None, None)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it(ns: NetNS, number: signal.Signals) -> None:
    with watching(ns) as running:
        running.process.send_signal(number)
        assert running.process.wait(10) == 0
        assert running.process.stderr is not None
        assert running.process.stderr.read() == ""


def test_count_and_timeout(ns: NetNS) -> None:
    with watching(ns, "--timeout", "0.3") as running:
        assert running.process.wait(10) == 0
    with watching(ns, "--count", "1") as running, devices.device(ns):
        running.line()
        assert running.process.wait(10) == 0


def test_a_closed_pipe(ns: NetNS) -> None:
    with watching(ns) as running:
        assert running.process.stdout is not None
        running.process.stdout.close()
        with devices.device(ns):
            assert running.process.wait(10) in (0, 1)
        assert running.process.stderr is not None
        assert running.process.stderr.read() == ""


def test_words(ns: NetNS, load: Load) -> None:
    with devices.device(ns) as ifindex, watching(ns, "dev0", words=True) as running:
        with entered(ns):
            tcx.attach(ifindex, "ingress", load(NEXT, "hello"), link=False)
        stamp, words = running.line().split(" ", 1)
        assert words.startswith(f"{ns.name}:dev0 ingress revision 1 to 2: came: hello (id:")
        assert stamp.endswith("Z")


def test_noticed_within_a_second(ns: NetNS, load: Load) -> None:
    """Two hundred chains; bench/watch.py has a thousand and the share of the processor."""
    prog = load(NEXT)
    with ExitStack() as stack:
        ifindexes = [stack.enter_context(devices.device(ns, f"m{n:03}")) for n in range(100)]
        with watching(ns) as running, entered(ns):
            for ifindex in (ifindexes[0], ifindexes[-1]):
                tcx.attach(ifindex, "ingress", prog, link=False)
                begin = time.monotonic()
                assert running.next()["ifindex"] == ifindex
                assert time.monotonic() - begin < 1.0
