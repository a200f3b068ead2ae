"""Bringing a chain into an order: what runs in which order, how many moves, who is left alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from netbpf import Program
from netbpf.bpf.chain import Chain, Entry
from netbpf.bpf.link import Link
from netbpf.bpf.move_rest import PLACEHOLDER
from netbpf.bpf.order import order, plan
from netbpf.errors import BpfError, ConflictError
from netbpf.netns import entered
from tests.netns_fixtures import programs
from tests.netns_fixtures.cli import netbpf, ok
from tests.netns_fixtures.hooks import Site

Load = Callable[..., Program]
NAMES = ("a", "b", "c", "d")


def arrange(site: Site, *names: str) -> int:
    """Order by name; the number of moves."""
    with entered(site.ns):
        done = order(site.hooks, site.ifindex, site.hook, [f"name:{name}" for name in names])
    return len(done.moves)


def names(site: Site) -> str:
    found = [entry.program() for entry in site.chain().entries]
    return "".join(info.name for info in found if info)


def test_every_order_of_four_with_the_fewest_moves(site: Site, load: Load) -> None:
    for name in NAMES:
        site.attach(load(programs.NEXT, name), link=False)
    # Each next order is made from the one before.
    for wanted in itertools.permutations(NAMES):
        before = names(site)
        fewest = 4 - max(
            len(kept)
            for size in range(1, 5)
            for kept in itertools.combinations(before, size)
            if sorted(kept, key=wanted.index) == list(kept)
        )
        assert arrange(site, *wanted) == fewest
        assert names(site) == "".join(wanted)


def test_what_is_not_named_keeps_its_place(site: Site, load: Load) -> None:
    for name in NAMES:
        site.attach(load(programs.NEXT, name), link=False)
    assert arrange(site, "d", "b") == 2
    assert names(site) == "adcb"


def test_links_and_programs_of_the_command_line(site: Site) -> None:
    place = ("-n", site.ns.name, site.device, site.hook)
    for prog, how in (("pass", "--link"), ("count", "--no-link"), ("next", "--link")):
        ok(site.noun, "attach", *place, f"builtin:{prog}", how)
    pins = site.own_pins()
    planned = ok(site.noun, "order", *place, "name:next", "name:count", "name:pass", "--dry-run")
    assert names(site) == "passcountnext"
    done = ok(site.noun, "order", *place, "name:next", "name:count", "name:pass")["ordered"]
    assert names(site) == "nextcountpass"
    assert len(planned["ordered"]["moves"]) == len(done["moves"]) == 2
    assert [each["prog"]["name"] for each in done["entries"]] == ["next", "count", "pass"]
    assert done["revision"] == site.chain().revision
    assert sorted(site.own_pins()) == sorted(pins)
    for path in pins:
        with Link.from_pin(path) as link:
            assert not link.info().defunct
    again = ok(site.noun, "order", *place, "name:next", "name:count", "name:pass")["ordered"]
    assert (again["moves"], again["revision"]) == ([], done["revision"])


def test_what_somebody_holds_is_left_alone(site: Site, load: Load, bpffs: Path) -> None:
    a, b, c = (load(programs.NEXT, name) for name in "abc")
    site.attach(a, link=False)
    with site.attach(b).link or pytest.fail("no link") as link:
        link.pin(str(bpffs / "theirs"))
    site.attach(c, link=False)
    # b stays, the others go around it.
    assert arrange(site, "c", "b", "a") == 2
    assert site.ids() == [c.id, b.id, a.id]
    site.call("detach", c)
    with site.attach(c).link or pytest.fail("no link") as link:
        link.pin(str(bpffs / "too"))
        assert site.ids() == [b.id, a.id, c.id]
        with pytest.raises(ConflictError, match="would have to be moved, and it is held by"):
            arrange(site, "c", "b")
    assert site.ids() == [b.id, a.id, c.id]


def test_a_move_that_fails_takes_the_others_back(
    site: Site, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in NAMES:
        site.attach(load(programs.NEXT, name), link=False)
    from netbpf.bpf import order as ordering

    real, calls = ordering.move_alone, []

    def failing(*args: object, **kwargs: object) -> object:
        calls.append(args)
        if len(calls) == 2:
            raise BpfError("move", 12)
        return real(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(ordering, "move_alone", failing)
    with pytest.raises(BpfError):
        arrange(site, "d", "c", "b", "a")
    assert names(site) == "abcd"


def test_refusals(site: Site) -> None:
    place = ("-n", site.ns.name, site.device, site.hook)
    for prog in ("count", "pass"):
        ok(site.noun, "attach", *place, f"builtin:{prog}")
    refused = netbpf("-j", site.noun, "order", *place, "name:count", "name:nope")
    assert (refused.status, refused.error["code"]) == (1, "not_found")
    refused = netbpf("-j", site.noun, "order", *place, "name:count", "name:count")
    assert (refused.status, refused.error["code"]) == (2, "usage")
    refused = netbpf(
        "-j", site.noun, "order", *place, "name:pass", "name:count", "--expected-revision", 2
    )
    assert (refused.status, refused.error["code"]) == (5, "stale_revision")
    assert "came: pass" in refused.error["message"]
    assert names(site) == "countpass"


@pytest.mark.needs("tcx")
def test_nothing_is_left_of_placeholders(site: Site, load: Load) -> None:
    for name in NAMES:
        site.attach(load(programs.NEXT, name), link=False)
    arrange(site, "d", "c", "b", "a")
    assert PLACEHOLDER not in names(site)
    assert len(site.chain().entries) == 4


def test_a_plan_needs_no_kernel() -> None:
    chain = Chain(1, "ingress", 9, tuple(Entry(i, 10 + i, None) for i in range(5)))
    steps = plan(chain, ["id:14", "id:10", "id:11", "id:12", "id:13"])
    assert [(step.entry.prog_id, step.after, step.position) for step in steps] == [(14, None, 0)]
    with pytest.raises(ValueError, match="one program"):
        plan(chain, ["id:10", "id:10"])
