"""BPF_PROG_QUERY on every kind of hook: buffers too small, flags, and what an empty chain says."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from netbpf import Program
from netbpf.bpf import query
from netbpf.bpf.macros import BPF_F_BEFORE, BPF_F_QUERY_EFFECTIVE, BPF_F_REPLACE
from netbpf.errors import StaleRevisionError
from netbpf.netns import entered
from tests.netns_fixtures import programs, rawbpf
from tests.netns_fixtures.hooks import Site
from tests.netns_fixtures.namespaces import run

Load = Callable[..., Program]


def test_what_a_query_tells(site: Site, load: Load) -> None:
    raw = rawbpf.at(site)
    one, two, three, four, five = (load(programs.NEXT, f"p{n}") for n in range(1, 6))
    for each in (one, two, three):
        raw.attach(each)
    with raw.create(four) as link:
        whole = raw.query()
        assert (whole.errno, whole.count, whole.revision, whole.attach_flags) == (0, 4, 5, 0)
        assert whole.progs == [one.id, two.id, three.id, four.id]
        assert raw.query(4).links[3:] == [link.id]

        counted = raw.query(ids=False)
        assert (counted.errno, counted.count, counted.revision) == (0, 4, 5)
        assert raw.query(0).count == 4, "no room asked for: the count alone, and no error"
        assert raw.query(0).errno == 0

        for room in (1, 3):
            short = raw.query(room)
            assert (short.errno, short.count, short.revision) == (errno.ENOSPC, 4, 5)
            assert short.progs == whole.progs[:room], "as many as there is room for"
        raw.attach(five, BPF_F_REPLACE, replace=two)
        assert raw.query().progs == [one.id, five.id, three.id, four.id]
        assert raw.query().revision == 6


@pytest.mark.parametrize(
    "flags", [{"query_flags": BPF_F_QUERY_EFFECTIVE}, {"attach_flags": BPF_F_BEFORE}]
)
def test_a_query_takes_no_flags(site: Site, load: Load, flags: dict[str, int]) -> None:
    raw = rawbpf.at(site)
    raw.attach(load(programs.NEXT, "one"))
    assert raw.query(**flags).errno == errno.EINVAL


def test_no_such_device(site: Site) -> None:
    assert rawbpf.Raw(site.ns, site.hooks.hook(site.hook), 9999).query().errno == errno.ENODEV


def test_the_two_hooks_of_a_device_are_two_chains(site: Site, load: Load) -> None:
    here = rawbpf.at(site)
    (other,) = set(site.hooks.names) - {site.hook}
    there = rawbpf.Raw(site.ns, site.hooks.hook(other), site.ifindex)
    prog = load(programs.NEXT, "both")
    here.attach(prog)
    assert (here.query().count, there.query().count) == (1, 0)
    there.attach(prog, BPF_F_BEFORE)
    assert (here.query().count, there.query().count) == (1, 1)
    here.detach(prog)
    assert (here.query().count, there.query().count) == (0, 1)


def test_a_chain_longer_than_the_room_is_read_whole(
    site: Site, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    progs = [load(programs.NEXT, f"p{number}") for number in range(5)]
    for each in progs:
        rawbpf.at(site).attach(each)
    monkeypatch.setattr(query, "_ROOM", 2)
    asker = query.Asker()
    with entered(site.ns):
        found = asker.chain(site.ifindex, site.hooks.hook(site.hook).attach_type)
    assert found == (6, [each.id for each in progs], [0] * 5)


def test_the_revision_of_a_chain_that_was_emptied(site: Site, load: Load) -> None:
    raw = rawbpf.at(site)
    one = load(programs.NEXT, "one")
    assert (raw.query().count, raw.query().revision) == (0, 1)
    raw.attach(one, revision=1)
    raw.detach(one, revision=2)
    assert (raw.query().count, raw.query().revision) == (0, 1)
    if site.noun == "tcx":
        # The kernel freed the entry, so the count begins anew.
        raw.attach(one, revision=1)
        assert site.chain().revision == 2
    else:
        # A side's entry stays and counts on, though an empty one says 1.
        for revision in (1, 2):
            with pytest.raises(OSError) as caught:
                raw.attach(one, revision=revision)
            assert caught.value.errno == errno.ESTALE
        with pytest.raises(StaleRevisionError, match="expect 0 there"):
            site.attach(one, expected_revision=1)
        assert site.chain().revision == 0
        raw.attach(one, revision=3)
        assert raw.query().revision == 4


@pytest.mark.needs("tcx")
@pytest.mark.parametrize("site", ["tcx-ingress", "tcx-egress"], indirect=True)
def test_clsact_keeps_the_count_of_an_emptied_tcx_chain(site: Site, load: Load) -> None:
    run(site.ns, ["tc", "qdisc", "add", "dev", site.device, "clsact"])
    raw, one = rawbpf.at(site), load(programs.NEXT, "one")
    assert raw.query().revision == 1
    raw.attach(one)
    raw.detach(one)
    answer = raw.query()
    assert (answer.count, answer.revision) == (0, 3)
    with pytest.raises(OSError) as caught:
        raw.attach(one, revision=1)
    assert caught.value.errno == errno.ESTALE
    chain = site.chain()
    assert (chain.revision, chain.entries) == (3, ())
    site.attach(one, link=False, expected_revision=3)
    assert site.passes()
