"""``tcx show`` and ``netkit chain``: all that handles a packet, in order, and what comes next."""

from __future__ import annotations

import json
import os
import pty
import re
import socket
import struct
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from fcntl import ioctl
from pathlib import Path
from typing import Any

import pytest

from netbpf import Program, netkit, tcx
from netbpf.bpf.mprog import Placed
from netbpf.bpf.query import Asker
from netbpf.netlink import filters, listing
from netbpf.netns import NetNS, entered
from netbpf.plumbing.packet_path import Reader
from tests.netns_fixtures import devices, hooks, namespaces
from tests.netns_fixtures.cli import netbpf, ok, process
from tests.netns_fixtures.hooks import Site
from tests.netns_fixtures.programs import DROP, NEXT, PASS

Load = Callable[..., Program]
PIPE = 3

ENTRY = {"position", "prog", "link", "load_time", "then", "stats"}
CHAIN = {"netns", "device", "ifindex", "hook", "revision", "entries", "filters", "netkit"}
FILTER = {
    *("kind", "protocol", "priority", "chain", "handle", "block", "name", "prog"),
    *("direct_action", "load_time", "then", "stats"),
}


@pytest.fixture
def tcx_site() -> Iterator[Site]:
    with hooks.site("tcx-ingress") as made:
        yield made


@contextmanager
def clsact(site: Site) -> Iterator[None]:
    """A clsact on the site's device, made by tc."""
    namespaces.run(site.ns, ["tc", "qdisc", "add", "dev", site.device, "clsact"])
    yield
    namespaces.run(site.ns, ["tc", "qdisc", "del", "dev", site.device, "clsact"])


def shown(site: Site) -> Any:
    verb = "show" if site.noun == "tcx" else "chain"
    (chain,) = ok(site.noun, verb, "-n", site.ns.name, site.device, site.hook)["chains"]
    return chain


def then(site: Site) -> list[Any]:
    chain = shown(site)
    return [each["then"] for each in chain["entries"] + chain["filters"]]


def test_keys(tcx_site: Site, load: Load) -> None:
    one, two = load(NEXT, "one"), load(NEXT, "two")
    tcx_site.attach(one, link=False)
    with clsact(tcx_site):
        with entered(tcx_site.ns):
            filters.add(tcx_site.ifindex, "ingress", two.fileno(), name="two", priority=7)
        document = ok("tcx", "show", "-n", tcx_site.ns.name, tcx_site.device)
        # The second witness.
        told = namespaces.run(
            tcx_site.ns, ["tc", "filter", "show", "dev", tcx_site.device, "ingress"]
        )
        assert f"id {two.id} name two" in told.stdout
    assert set(document) == {"schema_version", "chains", "seconds"}
    assert document["seconds"] is None
    ingress, egress = document["chains"]
    assert set(ingress) == set(egress) == CHAIN
    assert (egress["entries"], egress["filters"], egress["netkit"]) == ([], [], None)
    (entry,), (filter_,) = ingress["entries"], ingress["filters"]
    assert set(entry) == ENTRY
    assert set(entry["then"]) == {"next", "pass", "drop", "redirect", "other"}
    assert set(filter_) == FILTER
    assert set(filter_["then"]) == set(entry["then"])
    assert (filter_["priority"], filter_["prog"]["id"], filter_["kind"]) == (7, two.id, "bpf")
    assert (filter_["protocol"], filter_["direct_action"]) == ("all", True)


def test_procfs_tells_the_same_of_links(site: Site, load: Load) -> None:
    with ExitStack() as stack:
        placed = [site.attach(load(NEXT), link=link) for link in (True, False, True)]
        for each in placed:
            if each.link is not None:
                stack.enter_context(each.link)
        told = []
        for each in placed:
            if each.link is not None:
                text = Path(f"/proc/self/fdinfo/{each.link.fileno()}").read_text()
                told.append({line.split()[0]: line.split()[1] for line in text.splitlines()})
        entries = shown(site)["entries"]
        assert [entry["prog"]["id"] for entry in entries] == [each.prog_id for each in placed]
        assert [entry["link"] is None for entry in entries] == [False, True, False]
        assert [(entry["link"]["id"], entry["prog"]["id"]) for entry in entries[::2]] == [
            (int(info["link_id:"]), int(info["prog_id:"])) for info in told
        ]
        me = {"pid": os.getpid(), "comm": Path("/proc/self/comm").read_text().strip()}
        assert all(me in entry["link"]["owners"] for entry in entries[::2])


def test_bpftool_sees_the_same_filters(tcx_site: Site, load: Load) -> None:
    made = [load(NEXT), load(NEXT)]
    with clsact(tcx_site):
        with entered(tcx_site.ns):
            for each in made:
                filters.add(tcx_site.ifindex, "ingress", each.fileno(), name="f", priority=5)
        told = json.loads(namespaces.run(tcx_site.ns, ["bpftool", "-j", "net", "show"]).stdout)
        theirs = [each["id"] for each in told[0]["tc"] if each["kind"] == "clsact/ingress"]
        ours = [each["prog"]["id"] for each in shown(tcx_site)["filters"]]
        # Of one priority, the newest runs first.
        assert ours == theirs == [made[1].id, made[0].id]


def test_load_time(site: Site, load: Load) -> None:
    before = int(time.time())
    site.attach(load(NEXT), link=False)
    (entry,) = shown(site)["entries"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", entry["load_time"])
    import calendar

    loaded = calendar.timegm(time.strptime(entry["load_time"], "%Y-%m-%dT%H:%M:%SZ"))
    assert before - 1 <= loaded <= time.time() + 1


@pytest.mark.parametrize("code", [NEXT, PASS, DROP, PIPE])
def test_what_each_verdict_does_next_is_what_packets_do(site: Site, load: Load, code: int) -> None:
    """A program that decides so, then one that drops: whether packets get through tells."""
    site.attach(load(code), link=False)
    site.attach(load(DROP), link=False)
    first, last = then(site)
    assert first["next"] == "program"
    key = {NEXT: "next", PASS: "pass", DROP: "drop", PIPE: "other"}[code]
    leads = first[key]
    assert (
        leads
        == {
            "next": "program",
            "pass": last["pass"],
            "drop": "drop",
            "other": "drop" if site.noun == "netkit" else last["pass"],
        }[key]
    )
    assert site.passes() if leads not in ("drop", "program") else site.drops()


@pytest.mark.parametrize(
    ("code", "key", "passes"),
    [(NEXT, "next", False), (PASS, "pass", True), (PIPE, "other", False)],
)
def test_filters_come_after_the_chain(
    tcx_site: Site, load: Load, code: int, key: str, passes: bool
) -> None:
    tcx_site.attach(load(code), link=False)
    drop = load(DROP)
    with clsact(tcx_site):
        assert tcx_site.passes()
        assert then(tcx_site)[0][key] == "stack"
        with entered(tcx_site.ns):
            filters.add(tcx_site.ifindex, "ingress", drop.fileno(), name="wall", priority=1)
        entry, _ = then(tcx_site)
        assert entry[key] == ("stack" if passes else "filters")
        assert tcx_site.passes() if passes else tcx_site.drops()


def test_filters_lead_to_each_other(tcx_site: Site, load: Load) -> None:
    made = [load(NEXT), load(DROP)]
    with clsact(tcx_site):
        with entered(tcx_site.ns):
            for priority, prog in enumerate(made, 1):
                filters.add(tcx_site.ifindex, "ingress", prog.fileno(), name="x", priority=priority)
        assert [each["next"] for each in then(tcx_site)] == ["filter", "stack"]
        assert tcx_site.drops()
        # A device with filters and no chain is in the list.
        listed = ok("tcx", "show", "-n", tcx_site.ns.name)["chains"]
    assert [(each["device"], each["hook"], each["entries"]) for each in listed] == [
        (tcx_site.device, "ingress", [])
    ]


@pytest.mark.needs("netkit")
def test_netkits_own_programs_come_last(two_ns: tuple[NetNS, NetNS], load: Load) -> None:
    a, b = two_ns
    wall = load(DROP, "wall")
    with (
        devices.netkit_pair(a, b) as (near, far),
        devices.netkit_pair(
            a, a, names=("nk1", "nk1p"), addrs=("10.97.0.1/24", "10.97.0.2/24")
        ) as (primary, peer),
    ):
        with entered(a):
            netkit.attach(near.ifindex, "primary", wall, link=False)
            netkit.attach(primary.ifindex, "peer", wall, link=False)
            tcx.attach(near.ifindex, "egress", load(NEXT), link=False)
        chains = ok("tcx", "show", "-n", a.name)["chains"]
        found = {(each["device"], each["hook"]): each for each in chains}
        assert set(found) == {("nk0", "egress"), ("nk1p", "egress")}
        egress = found["nk0", "egress"]
        assert set(egress["netkit"]) == CHAIN
        assert [each["prog"]["id"] for each in egress["netkit"]["entries"]] == [wall.id]
        assert (egress["netkit"]["hook"], egress["netkit"]["device"]) == ("primary", "nk0")
        assert egress["entries"][0]["then"]["next"] == "netkit"
        assert egress["entries"][0]["then"]["pass"] == "netkit"
        assert egress["netkit"]["entries"][0]["then"]["next"] == "other_end"
        # The peer's side is read by way of the primary, which is in the same namespace.
        inner = found["nk1p", "egress"]["netkit"]
        assert (inner["hook"], inner["device"], inner["ifindex"]) == (
            "peer",
            "nk1",
            primary.ifindex,
        )
        # From the other namespace the primary cannot be asked.
        (_, lonely) = ok("tcx", "show", "-n", b.name, far.name)["chains"]
        assert lonely["netkit"] is None
        table = netbpf("tcx", "show", "-n", a.name).out
        assert "wall" in table and "primary" in table
        assert peer.ifindex


def test_all_namespaces(two_ns: tuple[NetNS, NetNS], load: Load) -> None:
    prog = load(NEXT, "everywhere")
    with devices.veth_pair(*two_ns) as ends:
        for end in ends:
            with entered(end.ns):
                tcx.attach(end.ifindex, "egress", prog, link=False)
        found = [
            (each["netns"], each["device"], each["entries"][0]["prog"]["id"])
            for each in ok("tcx", "show", "--all-netns")["chains"]
            if each["netns"] in (two_ns[0].name, two_ns[1].name)
        ]
    assert sorted(found) == sorted((end.ns.name, end.name, prog.id) for end in ends)


def on_terminal(columns: int, *arguments: str) -> str:
    """What a command prints on a terminal of that width."""
    env = {key: value for key, value in os.environ.items() if key != "COLUMNS"}
    main, side = pty.openpty()
    try:
        ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        process(*arguments, capture_output=False, text=False, stdout=side, stderr=side, env=env)
        out = b""
        os.set_blocking(main, False)
        while True:
            try:
                out += os.read(main, 65536)
            except BlockingIOError:
                break
    finally:
        os.close(main)
        os.close(side)
    return re.sub(r"\x1b\[[0-9;]*m", "", out.decode())


def test_terminals_and_pipes(tcx_site: Site, load: Load) -> None:
    made = tcx_site.attach(load(NEXT, "fifteen_letters"))
    assert made.link is not None
    with made.link:
        _on_terminals(tcx_site, made)


def _on_terminals(tcx_site: Site, made: Placed) -> None:
    arguments = ["tcx", "show", "-n", str(tcx_site.ns.name), tcx_site.device, "ingress"]
    for columns in (40, 80, 200):
        out = on_terminal(columns, *arguments)
        assert all(len(line) <= columns for line in out.splitlines()) or columns == 40
        # A column of 80 may be narrower than the name.
        assert "fifteen_letters" in out or columns == 80
        assert str(made.prog_id) in out
    out = on_terminal(40, *arguments)
    assert f"fifteen_letters (id:{made.prog_id}) by link:{made.link_id}" in out
    # Any table without room is lines; one that fits stays a table.
    out = on_terminal(40, "link", "show", str(made.link_id))
    assert out.splitlines()[:3] == [
        f"id: {made.link_id}",
        "  type: tcx",
        f"  prog: {made.prog_id}",
    ]
    assert on_terminal(79, "link", "show", str(made.link_id)).startswith("ID")
    piped = process(*arguments).stdout.splitlines()
    assert len(piped) == 2 + len([line for line in piped[2:] if line])
    assert piped[0].split() == [
        *("DEVICE", "HOOK", "REV", "POS", "PROG", "ID", "TAG", "LINK", "PINS,", "OWNERS"),
        *("LOADED", "THEN"),
    ]


def test_usage(tcx_site: Site) -> None:
    wrong = netbpf("tcx", "show", "-n", tcx_site.ns.name, tcx_site.device, "primary")
    assert (wrong.status, wrong.out) == (2, "")
    assert netbpf("tcx", "show", "-n", tcx_site.ns.name, "--seconds", "2").status == 2
    missing = netbpf("tcx", "show", "-n", tcx_site.ns.name, "nosuchdev", "-j")
    assert missing.json["error"]["code"] == "not_found"


def test_listing_is_what_the_c_library_lists(ns: NetNS) -> None:
    with devices.device(ns, "with-é"), devices.device(ns, "b0"), entered(ns):
        ours = [(each.ifindex, each.name) for each in listing.devices()]
        assert ours == sorted(socket.if_nameindex())
        namespaces.run(ns, ["tc", "qdisc", "add", "dev", "b0", "clsact"])
        namespaces.run(ns, ["tc", "qdisc", "add", "dev", "b0p", "ingress"])
        assert listing.with_clsact() == set(filters.with_clsact())
        assert len(listing.with_clsact()) == 2


def test_a_device_that_goes_meanwhile(ns: NetNS, monkeypatch: pytest.MonkeyPatch) -> None:
    with devices.device(ns), entered(ns):
        real = listing.devices()
        ghost = listing.Listed(999_999, "ghost")
        monkeypatch.setattr(listing, "devices", lambda: [*real[:1], ghost, *real[1:]])
        assert {path.device for path in Reader().paths()} == {each.name for each in real}


def test_asking_again_and_again(site: Site, load: Load) -> None:
    """One asker, 40 programs more each time, and the short form agrees."""
    asker, attach_type = Asker(), site.hooks.hook(site.hook).attach_type
    loaded = [load(NEXT) for _ in range(40)]
    with entered(site.ns):
        for count in (0, 1, 40):
            have = len(asker.chain(site.ifindex, attach_type)[1])
            for prog in loaded[have:count]:
                site.attach(prog, link=False)
            revision, progs, links = asker.chain(site.ifindex, attach_type)
            assert progs == [prog.id for prog in loaded[:count]]
            assert links == [0] * count
            assert asker.state(site.ifindex, attach_type) == (revision, count)


def test_more_than_there_is_room_for(
    site: Site, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netbpf.bpf.query._ROOM", 2)
    loaded = [load(NEXT) for _ in range(5)]
    for prog in loaded:
        site.attach(prog, link=False)
    with entered(site.ns):
        found = Asker().chain(site.ifindex, site.hooks.hook(site.hook).attach_type)
    assert found[1] == [prog.id for prog in loaded]


def test_the_quick_way_says_the_same(tcx_site: Site, load: Load) -> None:
    """`tcx show --json` passes by the parser, which has the same to say."""
    placed = tcx_site.attach(load(NEXT))
    assert placed.link is not None
    with placed.link, entered(tcx_site.ns):
        for names in ([], [tcx_site.device], [tcx_site.device, "egress"]):
            quick = process("tcx", "show", *names, "--json")
            parsed = process("tcx", "show", "--json", "--", *names)
            assert (quick.returncode, quick.stderr) == (0, "")
            assert quick.stdout == parsed.stdout
        for names, status in ((["nosuchdev"], 1), ([tcx_site.device, "primary"], 2)):
            quick = process("tcx", "show", *names, "-j")
            parsed = process("tcx", "show", "-j", "--", *names)
            assert (quick.returncode, parsed.returncode) == (status, status)
            assert quick.stdout == parsed.stdout
            assert "error" in json.loads(quick.stdout)


def test_many_threads_ask_at_once(load: Load) -> None:
    """Buffers are used again, and never by two threads."""
    with hooks.site("tcx-ingress") as one, hooks.site("tcx-egress") as other:
        expected = {}
        for count, site in ((3, one), (5, other)):
            for _ in range(count):
                site.attach(load(NEXT), link=False)
            expected[site.ns.inode] = site.ids()
        wrong: list[object] = []

        def ask(site: Site) -> None:
            with entered(site.ns):
                for _ in range(2000):
                    found = [each.prog_id for each in tcx.chain(site.ifindex, site.hook).entries]
                    if found != expected[site.ns.inode]:
                        wrong.append(found)

        threads = [threading.Thread(target=ask, args=(site,)) for site in (one, other) * 4]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong
