"""Chains on every kind of hook: what the calls change is seen in the packets.

Places and orders are in test_opts_order.py, refusals in test_opts_refused.py, links that lose their
device in test_links_life.py.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from netbpf import Program, loader
from netbpf.bpf.link import Link
from netbpf.errors import (
    AmbiguousError,
    BpfError,
    ConflictError,
    NotFoundError,
    StaleRevisionError,
)
from netbpf.netns import entered
from tests.netns_fixtures import programs
from tests.netns_fixtures.hooks import Site, Tracers

Load = Callable[..., Program]


@pytest.fixture
def tracers(compiled: Callable[[str], Path]) -> Iterator[Tracers]:
    with loader.open(compiled("trace")) as obj:
        obj.load()
        yield Tracers(obj)


def test_drop_first_stops_traffic_and_update_brings_it_back(site: Site, load: Load) -> None:
    with load(programs.NEXT, "follower") as follower, load(programs.DROP, "wall") as wall:
        with site.attach(follower).link or pytest.fail("no link"):
            assert site.passes()
            placed = site.attach(wall, first=True)
            with placed.link or pytest.fail("no link") as link, load(programs.NEXT, "gap") as gap:
                assert site.drops()
                before = site.chain().revision
                updated = site.call("update", link, gap)
                assert site.passes()
                assert (updated.position, updated.link_id) == (0, link.id)
                assert updated.old_prog_id == wall.id
                assert site.chain().revision == before + 1
                assert link.info().prog_id == gap.id
            assert site.ids() == [follower.id], "a closed link takes its program along"
        assert site.ids() == []


def test_update_of_a_bare_program(site: Site, tracers: Tracers) -> None:
    for name in ("one", "two"):
        site.attach(tracers[name], link=False)
    site.call("update", "name:two", tracers["three"])
    assert tracers.order(site) == [1, 3]


def test_update_guarded_by_old(site: Site, tracers: Tracers) -> None:
    site.attach(tracers["one"], link=False)
    with pytest.raises(ConflictError, match="position 0 is held by one"):
        site.call("update", "name:one", tracers["two"], old=tracers["three"])
    assert tracers.order(site) == [1]
    site.call("update", "name:one", tracers["two"], old=tracers["one"])
    assert tracers.order(site) == [2]


def test_revision_rises_with_each_change(site: Site, load: Load) -> None:
    seen = [site.chain().revision]
    one, two = load(programs.NEXT, "one"), load(programs.NEXT, "two")
    seen.append(site.attach(one, link=False).revision)
    seen.append(site.attach(two, link=False).revision)
    seen.append(site.call("detach", one).revision)
    # The kernel tells no revision of an empty netkit side.
    assert seen == [0 if site.noun == "netkit" else 1, 2, 3, 4]


@pytest.mark.parametrize("link", [True, False])
def test_stale_revision(site: Site, load: Load, link: bool) -> None:
    site.attach(load(programs.NEXT, "one"), link=False)
    two = load(programs.NEXT, "two")
    with pytest.raises(StaleRevisionError, match=r"not at revision 7, it is at 2 now"):
        site.attach(two, link=link, expected_revision=7)
    placed = site.attach(two, link=link, expected_revision=2)
    assert placed.revision == 3
    for verb, args in (("detach", ["name:one"]), ("update", ["name:one", load(0, "three")])):
        with pytest.raises(StaleRevisionError):
            site.call(verb, *args, expected_revision=2)
    if placed.link:
        placed.link.close()


def test_an_empty_chain_can_be_expected(site: Site, load: Load) -> None:
    # The revision that an emptied netkit side reports is not the one that it checks.
    one = load(programs.NEXT, "one")
    site.attach(one, link=False)
    site.call("detach", one)
    assert site.attach(one, link=False, expected_revision=0).position == 0


def test_a_chain_holds_63(site: Site, load: Load) -> None:
    many = [load(programs.NEXT, f"p{number}") for number in range(64)]
    for number, each in enumerate(many[:63]):
        assert site.attach(each, link=False).position == number
    with pytest.raises(BpfError) as caught:
        site.attach(many[63], link=False)
    assert (caught.value.errno, caught.value.code) == (errno.ERANGE, "chain_full")
    assert "holds 63 programs" in str(caught.value)
    assert site.passes()
    site.call("detach", many[30])
    assert site.attach(many[63], after=many[29], link=False).position == 30


def test_detach_takes_what_was_named(site: Site, load: Load) -> None:
    one, two, three = (load(programs.NEXT, name) for name in ("one", "two", "three"))
    site.attach(one, link=False)
    with site.attach(two).link or pytest.fail("no link") as link:
        site.attach(three, link=False)
        removed = site.call("detach", two)
        assert (removed.entry.position, removed.entry.link_id) == (1, link.id)
        assert link.info().defunct
        with pytest.raises(BpfError, match="defunct"):
            link.update(three)
    with pytest.raises(NotFoundError, match="no program name:two in the chain"):
        site.call("detach", "name:two")
    assert site.ids() == [one.id, three.id]


def test_two_of_a_name_are_told_apart(site: Site, load: Load) -> None:
    twins = [load(code, "twin") for code in (programs.NEXT, programs.PASS)]
    for each in twins:
        site.attach(each, link=False)
    with pytest.raises(AmbiguousError) as caught:
        site.call("detach", "name:twin")
    assert all(f"id:{each.id}" in str(caught.value) for each in twins)
    site.call("detach", f"tag:{twins[1].info().tag}")
    assert site.ids() == [twins[0].id]


def test_relative_to_a_pin(site: Site, load: Load, bpffs: Path) -> None:
    one, two, three = (load(programs.NEXT, name) for name in ("one", "two", "three"))
    with site.attach(one).link or pytest.fail("no link") as link:
        link.pin(str(bpffs / "link"))
    two.pin(str(bpffs / "prog"))
    site.attach(two, link=False)
    assert site.attach(three, before=f"pin:{bpffs}/prog", link=False).position == 1
    four = load(programs.NEXT, "four")
    assert site.attach(four, before=str(bpffs / "link"), link=False).position == 0
    with Link.from_pin(str(bpffs / "link")) as link:
        assert site.chain().with_link(link.id) is not None
    (bpffs / "link").unlink()
    # The kernel lets go of what a removed pin held a moment later, from a work queue.
    deadline = time.monotonic() + 5
    while one.id in site.ids():
        assert time.monotonic() < deadline, "the pin was the last that held the link"
        time.sleep(0.01)


def test_no_such_device(site: Site, load: Load) -> None:
    one = load(programs.NEXT, "one")
    with entered(site.ns), pytest.raises(NotFoundError, match="no device ifindex 9999"):
        site.hooks.attach(9999, site.hook, one)
    with entered(site.ns), pytest.raises(NotFoundError, match="no device ifindex 9999"):
        site.hooks.chain(9999, site.hook)


def test_another_namespace_is_another_device(site: Site, load: Load) -> None:
    # The same ifindex is another device elsewhere, or none.
    placed = site.attach(load(programs.DROP, "wall"), link=False)
    with entered(site.sender.ns if site.sender.ns is not site.ns else site.receiver.ns):
        try:
            assert site.hooks.chain(site.ifindex, site.hook).entries == ()
        except (NotFoundError, BpfError):
            pass
    assert placed.position == 0
    assert site.drops()


def test_no_such_hook(site: Site) -> None:
    with pytest.raises(ValueError, match="no hook sideways"):
        site.hooks.chain(site.ifindex, "sideways")


def test_a_link_cannot_replace(site: Site, load: Load) -> None:
    with pytest.raises(ValueError, match="BPF_LINK_CREATE takes no BPF_F_REPLACE"):
        site.attach(load(programs.NEXT, "one"), replace="name:x", link=True)


def test_what_was_read_is_what_is_changed(site: Site, load: Load) -> None:
    """While others change the chain all the time, every attach lands directly before its anchor."""
    anchor, mover = load(programs.NEXT, "anchor"), load(programs.NEXT, "mover")
    site.attach(anchor, link=False)
    stop = threading.Event()

    def disturb() -> None:
        with entered(site.ns):
            while not stop.is_set():
                site.hooks.attach(site.ifindex, site.hook, mover, link=False, first=True)
                site.hooks.detach(site.ifindex, site.hook, mover)

    other = threading.Thread(target=disturb)
    other.start()
    try:
        for _ in range(10):
            prog = load(programs.NEXT, "ours")
            site.attach(prog, before=anchor, link=False)
            ids = site.ids()
            assert ids.index(prog.id) == ids.index(anchor.id) - 1
    finally:
        stop.set()
        other.join()
    assert len(site.ids()) == 11
