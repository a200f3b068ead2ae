"""Moving an entry: the packets' order afterwards, and who stands in the way."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from netbpf import Program, loader
from netbpf.bpf import mprog_request as request
from netbpf.bpf.anchor import Anchor
from netbpf.bpf.link import Link
from netbpf.bpf.move import move
from netbpf.bpf.move_rest import PLACEHOLDER
from netbpf.bpf.mprog_conditions import MAX_PROGRAMS
from netbpf.errors import BpfError, ConflictError, NotFoundError, StaleRevisionError
from netbpf.netns import entered
from tests.netns_fixtures import programs
from tests.netns_fixtures.cli import netbpf, ok
from tests.netns_fixtures.hooks import Site, Tracers

Load = Callable[..., Program]


@pytest.fixture
def tracers(compiled: Callable[[str], Path]) -> Iterator[Tracers]:
    with loader.open(compiled("trace")) as obj:
        obj.load()
        yield Tracers(obj)


@pytest.mark.parametrize(
    ("what", "anchor", "order"),
    [
        ("name:one", Anchor(last=True), [2, 3, 1]),
        ("name:one", Anchor(after="name:two"), [2, 1, 3]),
        ("name:three", Anchor(first=True), [3, 1, 2]),
        ("name:three", Anchor(before="name:two"), [1, 3, 2]),
        ("name:two", Anchor(before="name:three"), [1, 2, 3]),
    ],
)
def test_the_order_of_packets_follows(
    site: Site, tracers: Tracers, what: str, anchor: Anchor, order: list[int]
) -> None:
    for name in ("one", "two", "three"):
        site.attach(tracers[name], link=False)
    revision = site.chain().revision
    with entered(site.ns):
        moved = move(site.hooks, site.ifindex, site.hook, what, anchor)
    assert tracers.order(site) == order
    assert site.ids()[moved.placed.position or 0] == moved.placed.prog_id
    if order == [1, 2, 3]:
        assert site.chain().revision == revision, "what is there already is left alone"


def test_a_pinned_link_keeps_its_pin(site: Site) -> None:
    place = ["-n", site.ns.name, site.device, site.hook]
    noun = site.noun
    one = ok(noun, "attach", *place, "builtin:count")["attached"]
    ok(noun, "attach", *place, "builtin:pass")
    moved = ok(noun, "move", *place, "name:count", "--last")["moved"]
    assert (moved["old_position"], moved["position"]) == (0, 1)
    pins = moved["link"]["pins"]
    assert pins == one["link"]["pins"]
    with Link.from_pin(pins[0]) as link:
        entry = site.chain().with_link(link.id)
        assert entry is not None
        assert (entry.position, entry.prog_id) == (1, one["prog"]["id"])
    assert len(site.own_pins()) == 2


def test_a_link_that_somebody_holds_is_left_alone(site: Site, load: Load, bpffs: Path) -> None:
    one, two = load(programs.NEXT, "one"), load(programs.NEXT, "two")
    with site.attach(one).link or pytest.fail("no link") as link:
        link.pin(str(bpffs / "theirs"))
    site.attach(two, link=False)
    with entered(site.ns), pytest.raises(ConflictError, match="theirs"):
        move(site.hooks, site.ifindex, site.hook, one, Anchor(last=True))
    assert site.ids() == [one.id, two.id]
    with entered(site.ns):
        move(
            site.hooks,
            site.ifindex,
            site.hook,
            one,
            Anchor(last=True),
            named_pin=str(bpffs / "theirs"),
        )
    assert site.ids() == [two.id, one.id]


@pytest.mark.parametrize("by_link", [False, True])
@pytest.mark.parametrize("step", [1, 2])
def test_a_failed_step_puts_it_back(
    site: Site, tracers: Tracers, monkeypatch: pytest.MonkeyPatch, by_link: bool, step: int
) -> None:
    place = ("-n", site.ns.name, site.device, site.hook)
    for name in ("one", "two", "three"):
        if by_link:
            ok(site.noun, "attach", *place, f"id:{tracers[name].id}")
        else:
            site.attach(tracers[name], link=False)
    before, pins = site.chain(), site.own_pins()
    if by_link:
        fail_once(monkeypatch, Link, "update", step, BpfError("update link", errno.ENOLINK))
    else:
        fail_once(monkeypatch, request, "replace_program", step, OSError(errno.ENOMEM, "x"))
    with entered(site.ns), pytest.raises(BpfError):
        move(site.hooks, site.ifindex, site.hook, "name:one", Anchor(last=True))
    assert tracers.order(site) == [1, 2, 3]
    assert site.chain().entries == before.entries, "the links are the same too"
    assert site.own_pins() == pins


def fail_once(
    monkeypatch: pytest.MonkeyPatch, where: Any, name: str, when: int, error: Exception
) -> None:
    """Let the call of that number fail as if the kernel had refused it."""
    real, calls = getattr(where, name), []

    def failing(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        if len(calls) == when:
            raise error
        return real(*args, **kwargs)

    monkeypatch.setattr(where, name, failing)


@pytest.mark.parametrize("by_link", [False, True])
def test_a_full_chain(site: Site, load: Load, by_link: bool) -> None:
    place = ("-n", site.ns.name, site.device, site.hook)
    one = load(programs.NEXT, "one")
    ok(site.noun, "attach", *place, f"id:{one.id}", "--link" if by_link else "--no-link")
    for _ in range(MAX_PROGRAMS - 1):
        site.attach(load(programs.NEXT), link=False)
    ok(site.noun, "move", *place, "name:one", "--last")
    assert site.ids()[-1] == one.id
    assert len(site.ids()) == MAX_PROGRAMS
    assert len(site.own_pins()) == by_link


def test_refusals(site: Site, load: Load) -> None:
    one, two = load(programs.NEXT, "one"), load(programs.NEXT, "two")
    site.attach(one, link=False)
    site.attach(two, link=False)
    with entered(site.ns):
        place = (site.hooks, site.ifindex, site.hook)
        with pytest.raises(ValueError, match="is what is to be moved"):
            move(*place, one, Anchor(before="name:one"))
        with pytest.raises(NotFoundError):
            move(*place, "name:nope", Anchor(first=True))
        with pytest.raises(NotFoundError):
            move(*place, one, Anchor(after="name:nope"))
        with pytest.raises(StaleRevisionError):
            move(*place, one, Anchor(last=True), expected_revision=99)
    assert site.ids() == [one.id, two.id]


@pytest.mark.needs("tcx")
def test_where_to_has_to_be_said() -> None:
    result = netbpf("-j", "tcx", "move", "lo", "ingress", "name:x")
    assert (result.status, result.error["code"]) == (2, "usage")


def test_anothers_program_of_that_name_stays(site: Site, load: Load) -> None:
    one, two = load(programs.NEXT, "one"), load(programs.DROP, PLACEHOLDER)
    site.attach(one, link=False)
    site.attach(two, link=False)
    with entered(site.ns):
        move(site.hooks, site.ifindex, site.hook, one, Anchor(last=True))
    assert site.ids() == [two.id, one.id]
