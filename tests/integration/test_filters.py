"""Filters of clsact read, made and removed; tc is the other witness."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from netbpf import Program
from netbpf.errors import NetlinkError
from netbpf.netlink import filters
from netbpf.netlink.rtnl import Rtnl
from netbpf.netns import entered
from tests.netns_fixtures import clsact as tc
from tests.netns_fixtures import devices, hooks, programs
from tests.netns_fixtures.clsact import Clsact

Load = Callable[..., Program]


@pytest.fixture(params=["tcx-ingress", "tcx-egress"])
def clsact(request: pytest.FixtureRequest, bpffs: Path) -> Iterator[Clsact]:
    """A clsact at each of its hooks in turn."""
    with hooks.site(request.param) as site, tc.clsact(site, bpffs) as made:
        yield made


def listed(clsact: Clsact) -> tuple[filters.Filter, ...]:
    with entered(clsact.site.ns):
        return filters.filters(clsact.site.ifindex, clsact.site.hook)


def test_filters_are_listed_as_tc_lists_them(clsact: Clsact, load: Load) -> None:
    one, two, three = (load(programs.NEXT, name) for name in ("one", "two", "three"))
    clsact.add(one, pref=20, handle=5)
    clsact.add(two, pref=20)
    clsact.add(three, pref=10, protocol="ip", direct=False)
    clsact.filter("add", "protocol", "ip", "pref", 15, "u32", "match", "u32", 0, 0, "classid", 1)
    found = listed(clsact)
    shown = clsact.shown()
    assert [each.kind for each in found] == [each["kind"] for each in shown]
    assert [each.priority for each in found] == [each["pref"] for each in shown]
    assert [each.protocol_name for each in found] == [each["protocol"] for each in shown]
    assert [each.chain for each in found] == [each["chain"] for each in shown]
    ours = [each for each in found if not each.foreign]
    theirs = [each for each in shown if each["kind"] == "bpf"]
    assert [each.prog_id for each in ours] == [three.id, two.id, one.id] == clsact.ids()
    assert [each.handle for each in ours] == [int(each["handle"], 16) for each in theirs]
    assert [each.tag for each in ours] == [each["prog"]["tag"] for each in theirs]
    assert [each.name for each in ours] == [each["bpf_name"] for each in theirs]
    assert [each.direct_action for each in ours] == [False, True, True]
    assert [each.foreign for each in found].count(True) == 2, "a u32 filter, and its table"
    with entered(clsact.site.ns):
        assert filters.cls_bpf(clsact.site.ifindex, clsact.site.hook) == tuple(ours)


def test_all_that_makes_a_filter_special_is_told(clsact: Clsact, load: Load) -> None:
    prog = load(programs.NEXT)
    clsact.add(prog, "classid", "1:7", pref=1)
    clsact.add(prog, "skip_hw", pref=2)
    clsact.add(prog, pref=3, before=("chain", 5))
    device = clsact.site.device
    clsact.add(prog, "action", "mirred", "egress", "redirect", "dev", device, pref=4, direct=False)
    clsact.filter("add", "protocol", "all", "pref", 6, "bpf", "bytecode", "1,6 0 0 4294967295,")
    plain = filters.Filter(0, "", "bpf", 3, 9, 0, 1, direct_action=True)
    assert (plain.classid, plain.skip_hw, plain.actions) == (0, False, False)
    by = {each.priority: each for each in listed(clsact)}
    assert by[1].classid == 1 << 16 | 7
    assert by[2].skip_hw and not by[2].skip_sw and not by[2].in_hw
    assert by[3].chain == 5
    assert by[4].actions and not by[4].direct_action
    assert by[6].prog_id is None and by[6].tag is None
    assert list(by) == [1, 2, 4, 6, 3], "another chain than 0 comes last"


def test_which_devices_have_one(load: Load, bpffs: Path) -> None:
    with hooks.site("tcx-ingress") as site, devices.device(site.ns, "other") as other:
        with entered(site.ns):
            assert filters.with_clsact() == {}
            tc.Clsact(site, bpffs).qdisc()
            assert filters.with_clsact() == {site.ifindex: filters.Clsact("clsact")}
            tc.Clsact(site, bpffs).tc("qdisc", "add", "dev", "other", "ingress")
            found = filters.with_clsact()
            assert found[other] == filters.Clsact("ingress")
            assert (found[other].has("ingress"), found[other].has("egress")) == (True, False)
        with devices.rtnl_in(site.ns) as rtnl:
            assert filters.with_clsact(rtnl=rtnl) == found
            assert filters.filters(site.ifindex, "ingress", rtnl=rtnl) == ()


def test_an_ingress_qdisc_has_no_egress(load: Load, bpffs: Path) -> None:
    with hooks.site("tcx-ingress") as site, entered(site.ns):
        made = tc.Clsact(site, bpffs)
        made.qdisc("ingress")
        made.add(load(programs.NEXT))
        assert len(filters.filters(site.ifindex, "ingress")) == 1
        assert filters.filters(site.ifindex, "egress") == ()


def test_filters_of_a_shared_block_say_so(load: Load, bpffs: Path) -> None:
    prog = load(programs.NEXT)
    prog.pin(str(bpffs / "prog"))
    with hooks.site("tcx-ingress") as site, entered(site.ns):
        made = tc.Clsact(site, bpffs)
        made.qdisc("clsact", "ingress_block", 7)
        made.tc("filter", "add", "block", 7, "pref", 3, "bpf", "da", "pinned", bpffs / "prog")
        qdisc = filters.with_clsact()[site.ifindex]
        assert (qdisc.block("ingress"), qdisc.block("egress")) == (7, None)
        (found,) = filters.filters(site.ifindex, "ingress")
        assert (found.block, found.prog_id) == (7, prog.id)


def test_nothing_there_is_nothing_listed(clsact: Clsact) -> None:
    assert listed(clsact) == ()
    with entered(clsact.site.ns):
        assert filters.filters(2**31 - 1, "ingress") == ()
        assert filters.filters(1, "egress") == ()
        with pytest.raises(ValueError, match="no hook sideways"):
            filters.filters(1, "sideways")


def test_a_filter_is_made_as_tc_would(clsact: Clsact, load: Load) -> None:
    site, prog = clsact.site, load(programs.NEXT, "made")
    with entered(site.ns):
        made = filters.add(site.ifindex, site.hook, prog.fileno(), name="a:[b]", priority=7)
        again = filters.add(
            site.ifindex, site.hook, prog.fileno(), name="x", priority=7, handle=99, skip_hw=True
        )
        assert listed(clsact) == (again, made)
        with pytest.raises(NetlinkError) as refused:
            filters.add(site.ifindex, site.hook, prog.fileno(), name="x", priority=7, handle=99)
    assert refused.value.errno == errno.EEXIST
    newest, oldest = clsact.shown()
    assert (newest["handle"], newest["skip_hw"], newest["bpf_name"]) == ("0x63", True, "x")
    assert (oldest["pref"], oldest["protocol"], oldest["bpf_name"]) == (7, "all", "a:[b]")
    assert oldest["direct-action"] is True
    assert oldest["prog"]["id"] == prog.id
    assert site.passes()


def test_a_made_filter_decides(clsact: Clsact, load: Load) -> None:
    site, wall = clsact.site, load(programs.DROP)
    with entered(site.ns):
        made = filters.add(site.ifindex, site.hook, wall.fileno(), name="wall", priority=1)
        assert site.drops()
        assert filters.delete(made) == made
        assert site.passes()


def test_one_filter_is_removed_and_no_other(clsact: Clsact, load: Load) -> None:
    site, progs = clsact.site, [load(programs.NEXT) for _ in range(3)]
    for prog in progs:
        clsact.add(prog)
    first, second, third = listed(clsact)
    with entered(site.ns):
        assert filters.delete(second).prog_id == progs[1].id
        assert clsact.ids() == [first.prog_id, third.prog_id]
        with pytest.raises(NetlinkError) as refused:
            filters.delete(second)
    assert refused.value.errno == errno.ENOENT
    assert clsact.ids() == [first.prog_id, third.prog_id]
    assert [qdisc["kind"] for qdisc in clsact.qdiscs()] == ["noqueue", "clsact"]


def test_what_was_removed_is_told_though_somebody_exchanged_it(clsact: Clsact, load: Load) -> None:
    mine, theirs = load(programs.NEXT, "mine"), load(programs.NEXT, "theirs")
    clsact.add(mine, handle=1)
    (known,) = listed(clsact)
    theirs.pin(str(clsact.folder / "theirs"))
    words = ["protocol", "all", "pref", 10, "handle", 1, "bpf", "da"]
    clsact.filter("replace", *words, "pinned", clsact.folder / "theirs")
    with entered(clsact.site.ns):
        assert filters.delete(known).prog_id == theirs.id


def test_nothing_wide_is_ever_asked_for(clsact: Clsact, load: Load) -> None:
    """A priority or handle of 0 would mean all filters to the kernel."""
    prog = load(programs.NEXT)
    clsact.add(prog)
    clsact.filter("add", "protocol", "ip", "pref", 15, "u32", "match", "u32", 0, 0, "classid", 1)
    with entered(clsact.site.ns), Rtnl() as rtnl:
        for wrong in (
            filters.Filter(clsact.site.ifindex, clsact.site.hook, "bpf", 3, 0, 0, 1),
            filters.Filter(clsact.site.ifindex, clsact.site.hook, "bpf", 3, 10, 0, 0),
            listed(clsact)[-1],
        ):
            with pytest.raises(ValueError):
                filters.delete(wrong, rtnl=rtnl)
        with pytest.raises(ValueError):
            filters.add(clsact.site.ifindex, "ingress", prog.fileno(), name="x", priority=1 << 16)
    assert len(clsact.shown()) == 3


def test_no_clsact_no_filter(load: Load) -> None:
    prog = load(programs.PASS)
    with (
        hooks.site("tcx-egress") as site,
        entered(site.ns),
        pytest.raises(NetlinkError, match="Parent Qdisc"),
    ):
        filters.add(site.ifindex, "egress", prog.fileno(), name="x", priority=1)
