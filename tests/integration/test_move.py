"""Moving an entry: the packets' order afterwards, and who stands in the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from netbpf import Program, loader
from netbpf.bpf.anchor import Anchor
from netbpf.bpf.link import Link
from netbpf.bpf.move import move
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


def test_a_failed_second_step_puts_it_back(
    site: Site, tracers: Tracers, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two", "three"):
        site.attach(tracers[name], link=False)
    real, calls = type(site.hooks).attach, []

    def failing(self: object, *args: object, **kwargs: object) -> object:
        calls.append(kwargs)
        if len(calls) == 1:
            raise BpfError("attach", 12)
        return real(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(type(site.hooks), "attach", failing)
    with entered(site.ns), pytest.raises(BpfError):
        move(site.hooks, site.ifindex, site.hook, "name:one", Anchor(last=True))
    assert tracers.order(site) == [1, 2, 3]


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
