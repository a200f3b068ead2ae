"""Places in a chain of programs and links together: each change is seen in the packets' order."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from netbpf import Program, loader
from netbpf.bpf.link import Link
from netbpf.bpf.mprog import Placed
from netbpf.errors import BpfError, NotFoundError
from tests.netns_fixtures import programs, rawbpf
from tests.netns_fixtures.hooks import Site, Tracers


class Stand:
    """The tracers, attached to a hook in turn, by link or by themselves."""

    def __init__(self, site: Site, tracers: Tracers, stack: ExitStack) -> None:
        self.site, self.tracers, self._stack = site, tracers, stack

    def __getitem__(self, name: str) -> Program:
        return self.tracers[name]

    def attach(self, name: str, **where: object) -> Placed:
        placed = self.site.attach(self.tracers[name], **where)
        if placed.link is not None:
            self._stack.enter_context(placed.link)
        return placed

    def link(self, name: str, **where: object) -> Link:
        made = self.attach(name, **where).link
        assert made is not None
        return made

    def order(self) -> list[int]:
        """As the packets met them; the chain says the same."""
        seen = self.tracers.order(self.site)
        names = {self.tracers[name].id: n for n, name in enumerate(NAMES, start=1)}
        assert [names[each] for each in self.site.ids()] == seen
        assert self.site.ids() == rawbpf.at(self.site).query().progs
        return seen


NAMES = ("one", "two", "three", "four", "five")


@pytest.fixture
def stand(site: Site, compiled: Callable[[str], Path]) -> Iterator[Stand]:
    with ExitStack() as stack:
        obj = stack.enter_context(loader.open(compiled("trace_five")))
        obj.load()
        yield Stand(site, Tracers(obj), stack)


@pytest.mark.parametrize("link", [True, False], ids=["links", "programs"])
def test_prepend_and_append(stand: Stand, link: bool) -> None:
    stand.attach("one", link=link)
    for name in ("two", "three"):
        assert stand.attach(name, link=link, first=True).position == 0
    assert stand.order() == [3, 2, 1]
    assert stand.attach("four", link=link, last=True).position == 3
    assert stand.attach("five", link=not link).position == 4
    assert stand.order() == [3, 2, 1, 4, 5]
    assert stand.site.chain().revision == 6


@pytest.mark.parametrize("link", [True, False], ids=["links", "programs"])
def test_before_and_after_each_kind_of_neighbour(stand: Stand, link: bool) -> None:
    """A neighbour by program, by link, by id and by name, whichever way it was attached."""
    two = stand.link("two")
    stand.attach("four", link=False)
    assert stand.attach("one", before=two, link=link).position == 0
    assert stand.attach("three", after=f"link:{two.id}", link=link).position == 2
    assert stand.order() == [1, 2, 3, 4]
    assert stand.attach("five", before=f"id:{stand['four'].id}", link=link).position == 3
    assert stand.order() == [1, 2, 3, 5, 4]


@pytest.mark.parametrize("where", ["before", "after"])
@pytest.mark.parametrize("target", ["program", "link"])
def test_a_program_of_a_link_is_named_either_way(stand: Stand, where: str, target: str) -> None:
    stand.attach("one", link=False)
    link = stand.link("two")
    stand.attach("three", link=False)
    named = {"program": stand["two"], "link": link}[target]
    stand.attach("four", **{where: named})
    assert stand.order() == ([1, 4, 2, 3] if where == "before" else [1, 2, 4, 3])


def test_what_is_not_in_the_chain_is_no_neighbour(stand: Stand) -> None:
    stand.attach("one", link=False)
    gone = stand.link("two")
    gone.detach()
    revision = stand.site.chain().revision
    for link in (True, False):
        for target in (stand["three"], f"id:{stand['three'].id}", gone, f"link:{gone.id}"):
            for where in ("before", "after"):
                with pytest.raises(NotFoundError, match="in the chain"):
                    stand.attach("four", link=link, **{where: target})
    assert stand.order() == [1]
    assert stand.site.chain().revision == revision


def test_mixed(stand: Stand) -> None:
    """Programs are replaced by programs, links only by themselves."""
    stand.attach("one", link=False)
    two = stand.link("two")
    for name, old, number in (
        ("two", "one", errno.EEXIST),
        ("one", "two", errno.EEXIST),
        ("three", "two", errno.EBUSY),
    ):
        with pytest.raises(BpfError) as caught:
            stand.attach(name, replace=stand[old], link=False)
        assert caught.value.errno == number
    stand.attach("three", replace=stand["one"], link=False)
    four = stand.link("four")
    with pytest.raises(BpfError) as caught:
        stand.attach("two", replace=stand["four"], link=False)
    assert caught.value.errno == errno.EEXIST
    chain = stand.site.chain()
    assert [entry.link_id for entry in chain.entries] == [None, two.id, four.id]
    assert chain.revision == 5
    assert stand.order() == [3, 2, 4]


def test_demixed(stand: Stand) -> None:
    """Links and programs go one by one, and the others keep their places."""
    stand.attach("one", link=False)
    two = stand.link("two")
    stand.attach("three", link=False)
    four = stand.link("four")
    stand.site.call("detach", stand["one"])
    assert stand.order() == [2, 3, 4]
    two.close()
    assert stand.order() == [3, 4]
    stand.site.call("detach", four)
    assert stand.order() == [3]
    stand.site.call("detach", "name:three")
    assert stand.order() == []


def test_replace_where_it_stands(stand: Stand) -> None:
    stand.attach("one", link=False)
    stand.attach("two", before=stand["one"], link=False, expected_revision=2)
    assert stand.order() == [2, 1]
    stand.attach("three", replace=stand["two"], link=False, expected_revision=3)
    assert stand.order() == [3, 1]
    placed = stand.attach("two", replace="name:three", before=stand["one"], link=False)
    assert (placed.position, placed.revision) == (0, 5)
    for where, target in (("after", "one"), ("before", "two")):
        with pytest.raises(BpfError) as caught:
            stand.attach("three", replace=stand["two"], link=False, **{where: stand[target]})
        assert (caught.value.errno, caught.value.code) == (errno.ERANGE, "position")
    stand.attach("three", replace=stand["one"], after=stand["two"], link=False)
    assert stand.order() == [2, 3]
    assert stand.site.chain().revision == 6


def test_replace_in_a_full_chain(stand: Stand, load: Callable[..., Program]) -> None:
    """The place that is asked for decides, not the length."""
    stand.attach("one", link=False)
    stand.attach("two", link=False)
    raw = rawbpf.at(stand.site)
    for _ in range(61):
        raw.attach(load(programs.NEXT))
    with pytest.raises(BpfError) as caught:
        stand.attach("three", replace=stand["two"], before=stand["one"], link=False)
    assert (caught.value.errno, caught.value.code) == (errno.ERANGE, "position")
    stand.attach("three", replace=stand["two"], after=stand["one"], link=False)
    assert stand.site.ids()[:2] == [stand["one"].id, stand["three"].id]
