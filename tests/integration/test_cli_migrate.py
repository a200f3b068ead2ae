"""``netbpf tcx migrate``: its document, its words, what it refuses, and what it leaves."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from netbpf import Program
from tests.netns_fixtures import clsact as tc
from tests.netns_fixtures import hooks, programs
from tests.netns_fixtures.cli import Result, netbpf, ok
from tests.netns_fixtures.clsact import Clsact

Load = Callable[..., Program]


@pytest.fixture(params=["tcx-ingress", "tcx-egress"])
def clsact(request: pytest.FixtureRequest, bpffs: Path) -> Iterator[Clsact]:
    """A clsact at each of its hooks in turn."""
    with hooks.site(request.param) as site, tc.clsact(site, bpffs) as made:
        yield made


def words(clsact: Clsact, *rest: object) -> list[object]:
    site = clsact.site
    return ["tcx", "migrate", "-n", site.ns.name, site.device, site.hook, *rest]


def migrated(clsact: Clsact, *rest: object) -> Any:
    (found,) = ok(*words(clsact, *rest))["migrated"]
    return found


def refused(clsact: Clsact, *rest: object) -> Result:
    return netbpf("-j", *words(clsact, *rest))


def test_the_document(clsact: Clsact, load: Load) -> None:
    clsact.site.attach(load(programs.NEXT), link=False)
    prog = load(programs.NEXT, "counter")
    clsact.add(prog, pref=7, handle=5)
    name = clsact.shown()[0]["bpf_name"]
    done = migrated(clsact)
    assert set(done) == {"device", "ifindex", "hook", "to", "revision", "entries", "warnings"}
    assert (done["device"], done["ifindex"]) == (clsact.site.device, clsact.site.ifindex)
    assert (done["hook"], done["to"]) == (clsact.site.hook, "tcx")
    assert (done["revision"], done["warnings"]) == (clsact.site.chain().revision, [])
    (entry,) = done["entries"]
    assert set(entry) == {"position", "prog", "link", "filter"}
    assert entry["position"] == 1
    assert entry["prog"] == {"id": prog.id, "name": "counter"}
    assert entry["link"]["id"] == clsact.site.chain().entries[1].link_id
    (path,) = entry["link"]["pins"]
    assert os.path.dirname(path) == "/sys/fs/bpf/netbpf"
    assert path in clsact.site.own_pins()
    assert entry["filter"] == {"priority": 7, "handle": 5, "protocol": "all", "name": name}

    gone = migrated(clsact, "--back")
    assert gone["to"] == "clsact"
    (returned,) = gone["entries"]
    assert returned == {**entry, "position": 0}
    assert clsact.site.own_pins() == []


def test_both_hooks_without_one(clsact: Clsact, load: Load) -> None:
    clsact.add(load(programs.NEXT))
    site = clsact.site
    found = ok("tcx", "migrate", "-n", site.ns.name, site.device)["migrated"]
    assert [each["hook"] for each in found] == ["ingress", "egress"]
    assert [len(each["entries"]) for each in found] == [
        int(site.hook == "ingress"),
        int(site.hook == "egress"),
    ]


def test_dry_run_changes_nothing(clsact: Clsact, load: Load) -> None:
    clsact.add(load(programs.NEXT, "mine"), pref=3)
    before, revision = clsact.shown(), clsact.site.chain().revision
    document = ok(*words(clsact, "--dry-run"))
    assert document["dry_run"] is True
    (entry,) = document["migrated"][0]["entries"]
    assert (entry["position"], entry["link"], entry["filter"]["priority"]) == (0, None, 3)
    said = netbpf(*words(clsact, "--dry-run"))
    assert "would move mine (id:" in said.out
    assert (clsact.shown(), clsact.site.chain().revision) == (before, revision)
    assert clsact.site.own_pins() == []
    migrated(clsact)
    back = ok(*words(clsact, "--dry-run", "--back"))["migrated"][0]
    assert back["entries"][0]["link"]["pins"] == clsact.site.own_pins()
    assert clsact.shown() == []


def test_the_words(clsact: Clsact, load: Load) -> None:
    prog = load(programs.NEXT, "mine")
    clsact.add(prog, pref=3)
    said = netbpf(*words(clsact))
    line, pin = said.out.splitlines()
    place = f"{clsact.site.device} {clsact.site.hook}"
    number = clsact.site.chain().entries[0].link_id
    assert line.startswith(f"{place}: mine (id:{prog.id}) from bpf pref 3 handle 0x1 ")
    assert line.endswith(f" to position 0 by link:{number}")
    assert pin == f"pinned at {clsact.site.own_pins()[0]}"
    assert netbpf(*words(clsact)).err == "netbpf: no program of cls_bpf is here\n"
    said = netbpf(*words(clsact, "--back"))
    assert said.out.startswith(f"{place}: mine (id:{prog.id}) from link:{number} to bpf pref 3")
    assert netbpf(*words(clsact, "--back")).err == "netbpf: no link here was migrated\n"


def test_refusals(clsact: Clsact, load: Load) -> None:
    clsact.add(load(programs.NEXT, "mine"), pref=3, protocol="ip")
    result = refused(clsact)
    assert (result.status, result.error["code"]) == (1, "not_migratable")
    assert "protocol ip only" in result.error["message"]
    assert refused(clsact, "--dry-run").error == result.error
    clsact.filter("del", "pref", 3)
    clsact.add(load(programs.NEXT), pref=3)
    migrated(clsact)
    behind = load(programs.NEXT, "behind")
    clsact.site.attach(behind, link=False)
    result = refused(clsact, "--back")
    assert (result.status, result.error["code"]) == (5, "conflict")
    clsact.site.call("detach", behind)
    clsact.tc("qdisc", "del", "dev", clsact.site.device, "clsact")
    result = refused(clsact, "--back")
    assert (result.status, result.error["code"]) == (1, "no_clsact")
    assert result.error["hint"] == f"tc qdisc add dev {clsact.site.device} clsact"
    sideways = netbpf("-j", "tcx", "migrate", "-n", clsact.site.ns.name, "veth-a", "sideways")
    assert sideways.status == 2
    missing = netbpf("-j", "tcx", "migrate", "-n", clsact.site.ns.name, "not-there")
    assert (missing.status, missing.error["code"]) == (1, "not_found")


def test_other_links_and_pins_are_left_alone(clsact: Clsact, load: Load, bpffs: Path) -> None:
    site = clsact.site
    place = ["-n", site.ns.name, site.device, site.hook]
    ok("tcx", "attach", *place, "builtin:count", "--pin", bpffs / "mine")
    ok("tcx", "attach", *place, "builtin:next")
    clsact.add(load(programs.NEXT, "filter"))
    migrated(clsact)
    link = site.chain().entries[2].link_id
    ok("link", "pin", link, bpffs / "another")
    pins = site.own_pins()
    assert len(pins) == 2
    gone = migrated(clsact, "--back")
    assert gone["warnings"] == [
        f"{bpffs}/another goes on pinning link:{link}, which becomes defunct"
    ]
    assert [entry.position for entry in site.chain().entries] == [0, 1]
    assert len(site.own_pins()) == 1
    (found,) = [each for each in ok("link", "show")["links"] if each["id"] == link]
    assert found["defunct"] is True


def test_show_sees_the_same(clsact: Clsact, load: Load) -> None:
    site = clsact.site
    clsact.add(load(programs.NEXT, "mine"))
    migrated(clsact)
    place = ["-n", site.ns.name, site.device, site.hook]
    (chain,) = ok("tcx", "show", *place)["chains"]
    assert [entry["prog"]["name"] for entry in chain["entries"]] == ["mine"]
    detached = ok("tcx", "detach", *place, "name:mine")["detached"]
    assert detached["link"]["pins"], "the pin of a migrated link is netbpf's own"
    assert site.own_pins() == []


@pytest.mark.parametrize("name", ["x" * 255, "ä.o:[tc] \n\x1b[31m", "prog.o:[classifier/a-b_c]"])
def test_names_of_filters(clsact: Clsact, load: Load, name: str) -> None:
    from netbpf.netlink import filters
    from netbpf.netns import entered

    prog = load(programs.NEXT, "mine")
    with entered(clsact.site.ns):
        filters.add(
            clsact.site.ifindex, clsact.site.hook, prog.fileno(), name=name, priority=3, handle=1
        )
    said = netbpf(*words(clsact))
    assert said.status == 0
    assert "\x1b" not in said.out
    entry = migrated(clsact, "--back")["entries"][0]
    # A name that no pin's name has room for comes back as the program's.
    assert entry["filter"]["name"] == (name if len(name) < 100 else "mine")
    assert [each.name for each in listed(clsact)] == [entry["filter"]["name"]]


def listed(clsact: Clsact) -> Any:
    from netbpf.netlink import filters
    from netbpf.netns import entered

    with entered(clsact.site.ns):
        return filters.filters(clsact.site.ifindex, clsact.site.hook)
