"""Detaching by position, by raw bpf(2): what goes, and where the kernel takes another than named.

netbpf always names what it takes out; these are the ways in which others do it.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from netbpf import Program
from netbpf.bpf.macros import BPF_F_AFTER, BPF_F_BEFORE, BPF_F_ID, BPF_F_LINK, BPF_F_REPLACE
from tests.netns_fixtures import programs, rawbpf
from tests.netns_fixtures.hooks import Site
from tests.netns_fixtures.rawbpf import Raw

Load = Callable[..., Program]
BEFORE, AFTER, ID, LINK = BPF_F_BEFORE, BPF_F_AFTER, BPF_F_ID, BPF_F_LINK


def filled(site: Site, load: Load, count: int) -> tuple[Raw, list[Program]]:
    raw = rawbpf.at(site)
    progs = [load(programs.NEXT, f"p{number}") for number in range(1, count + 1)]
    for each in progs:
        raw.attach(each)
    return raw, progs


def ids(progs: list[Program]) -> list[int]:
    return [each.id for each in progs]


def refusal(call: Callable[[], None]) -> str:
    with pytest.raises(OSError) as caught:
        call()
    return errno.errorcode[caught.value.errno or 0]


def test_first_and_last_by_position(site: Site, load: Load) -> None:
    raw, (_, two, three, _) = filled(site, load, 4)
    raw.detach(0, BEFORE)
    assert raw.query().count == 3
    raw.detach(0, AFTER)
    assert raw.query().progs == ids([two, three])
    raw.detach()
    assert raw.query().progs == ids([two]), "nothing named: the last one"
    for flags in (BEFORE, AFTER):
        # A program that is named stands at a position; the ends are beyond all positions.
        assert refusal(lambda f=flags: raw.detach(two, f)) == "ERANGE"  # type: ignore[misc]
    raw.detach(two)
    assert raw.query().progs == []
    for flags in (0, BEFORE, AFTER):
        assert refusal(lambda flags=flags: raw.detach(0, flags)) == "ENOENT"  # type: ignore[misc]
    assert refusal(lambda: raw.detach(two)) == "ENOENT"


def test_detach_before(site: Site, load: Load) -> None:
    raw, (one, two, three, four) = filled(site, load, 4)
    raw.detach(one, BEFORE, relative=two)
    assert raw.query().progs == ids([two, three, four])
    assert refusal(lambda: raw.detach(one, BEFORE, relative=two)) == "ENOENT"
    assert refusal(lambda: raw.detach(two, BEFORE, relative=four)) == "ERANGE"
    assert refusal(lambda: raw.detach(two, BEFORE, relative=one)) == "ENOENT"
    raw.detach(two, BEFORE | ID, relative=three.id)
    assert raw.query().progs == ids([three, four])
    raw.detach(0, BEFORE, relative=four)
    answer = raw.query()
    assert (answer.progs, answer.revision) == (ids([four]), 8)


def test_detach_after(site: Site, load: Load) -> None:
    raw, (one, two, three, four) = filled(site, load, 4)
    raw.detach(two, AFTER, relative=one)
    assert raw.query().progs == ids([one, three, four])
    assert refusal(lambda: raw.detach(two, AFTER, relative=one)) == "ENOENT"
    for relative in (one, three, four):
        assert refusal(lambda r=relative: raw.detach(one, AFTER, relative=r)) == "ERANGE"  # type: ignore[misc]
    raw.detach(three, AFTER | ID, relative=one.id)
    raw.detach(0, AFTER, relative=one)
    answer = raw.query()
    assert (answer.progs, answer.revision) == (ids([one]), 8)


def test_at_the_ends_the_neighbour_itself_goes(site: Site, load: Load) -> None:
    # pos_before gives -1, which means the front; pos_after gives the total, which means the back.
    raw, (one, two, three) = filled(site, load, 3)
    raw.detach(0, BEFORE, relative=one)
    assert raw.query().progs == ids([two, three])
    raw.detach(0, AFTER, relative=three)
    assert raw.query().progs == ids([two])


def test_links_are_never_taken_by_position(site: Site, load: Load) -> None:
    raw = rawbpf.at(site)
    bare, linked = load(programs.NEXT, "bare"), load(programs.NEXT, "linked")
    raw.attach(bare)
    with raw.create(linked) as link:
        for call in (
            lambda: raw.detach(0, AFTER),
            lambda: raw.detach(),
            lambda: raw.detach(linked),
            lambda: raw.detach(0, AFTER | LINK, relative=link),
            lambda: raw.detach(0, AFTER | LINK | ID, relative=link.id),
        ):
            assert refusal(call) == "EBUSY"
        raw.detach(0, BEFORE | LINK, relative=link)
        assert raw.query().links == [link.id]
        # The only one is first and last, and a link's.
        assert refusal(lambda: raw.detach(0, BEFORE)) == "EBUSY"


def test_a_full_chain(site: Site, load: Load) -> None:
    raw, progs = filled(site, load, 63)
    one_more = load(programs.NEXT, "one_more")
    full = raw.query()
    assert full.count == 63
    for flags in (0, BEFORE, AFTER):
        assert refusal(lambda flags=flags: raw.attach(one_more, flags)) == "ERANGE"  # type: ignore[misc]
        assert refusal(lambda flags=flags: raw.create(one_more, flags).close()) == "ERANGE"  # type: ignore[misc]
    for relative in (progs[0], progs[62]):
        for flags in (BEFORE, AFTER):
            assert (
                refusal(lambda f=flags, r=relative: raw.attach(one_more, f, relative=r))  # type: ignore[misc]
                == "ERANGE"
            )
    assert refusal(lambda: raw.attach(progs[3])) == "EEXIST", "that is looked at first"
    assert refusal(lambda: raw.attach(one_more, revision=1)) == "ESTALE"
    # The position behind the last one is beyond the limit, so nothing named takes nothing.
    assert refusal(lambda: raw.detach()) == "ERANGE"
    assert refusal(lambda: raw.detach(0, AFTER)) == "ERANGE"
    assert raw.query() == full
    # What does not make it longer is done.
    raw.attach(one_more, BPF_F_REPLACE, replace=progs[62])
    raw.detach(0, BEFORE)
    assert raw.query().progs == ids([*progs[1:62], one_more])
