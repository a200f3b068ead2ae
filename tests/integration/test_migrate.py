"""cls_bpf programs become tcx links and go back: packets, tc and the chain agree."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from netbpf import Program, loader, tcx
from netbpf.bpf.link import Link
from netbpf.errors import ConflictError, NetbpfError
from netbpf.netns import entered
from netbpf.tcx import migrate as migrating
from tests.netns_fixtures import clsact as tc
from tests.netns_fixtures import hooks, namespaces, programs
from tests.netns_fixtures.clsact import Clsact
from tests.netns_fixtures.hooks import Tracers

Load = Callable[..., Program]


@pytest.fixture(params=["tcx-ingress", "tcx-egress"])
def clsact(request: pytest.FixtureRequest, bpffs: Path) -> Iterator[Clsact]:
    """A clsact at each of its hooks in turn."""
    with hooks.site(request.param) as site, tc.clsact(site, bpffs) as made:
        yield made


@pytest.fixture
def tracers(compiled: Callable[[str], Path]) -> Iterator[Tracers]:
    with loader.open(compiled("trace")) as obj:
        obj.load()
        yield Tracers(obj)


def test_the_order_of_packets_is_kept_and_comes_back(clsact: Clsact, tracers: Tracers) -> None:
    clsact.add(tracers["three"], pref=30)
    clsact.add(tracers["one"], pref=20, handle=9)
    clsact.add(tracers["two"], pref=20)
    before, qdiscs = clsact.shown(), clsact.qdiscs()
    order = tracers.order(clsact.site)
    assert order == [2, 1, 3], "of one priority, the newest runs first"

    done = clsact.migrate()
    assert clsact.site.ids() == [tracers[name].id for name in ("two", "one", "three")]
    assert tracers.order(clsact.site) == order
    assert clsact.shown() == []
    assert clsact.qdiscs() == qdiscs
    assert [move.position for move in done.moves] == [0, 1, 2]
    assert done.revision == clsact.site.chain().revision
    for move, entry in zip(done.moves, clsact.site.chain().entries, strict=True):
        assert (move.link_id, move.prog_id) == (entry.link_id, entry.prog_id)
        (path,) = move.pins
        with Link.from_pin(path) as link:
            assert link.id == entry.link_id

    gone = clsact.migrate(back=True)
    assert clsact.shown() == before, "priorities, handles and names are those of before"
    assert clsact.site.ids() == []
    assert tracers.order(clsact.site) == order
    assert clsact.qdiscs() == qdiscs
    assert clsact.site.own_pins() == []
    assert [move.link_id for move in gone.moves] == [move.link_id for move in done.moves]


def test_priorities_that_the_kernel_chose_come_back(clsact: Clsact, tracers: Tracers) -> None:
    for name in ("one", "two", "three"):
        tracers[name].pin(str(clsact.folder / name))
        clsact.filter("add", "bpf", "da", "pinned", clsact.folder / name)
    before = clsact.shown()
    assert [each["pref"] for each in before] == [49150, 49151, 49152], "the newest goes first"
    assert tracers.order(clsact.site) == [3, 2, 1]
    clsact.migrate()
    assert tracers.order(clsact.site) == [3, 2, 1]
    clsact.migrate(back=True)
    assert clsact.shown() == before


def test_links_survive_what_takes_filters_along(clsact: Clsact, tracers: Tracers) -> None:
    clsact.add(tracers["one"])
    clsact.migrate()
    site = clsact.site
    with namespaces.namespace() as other:
        namespaces.run(site.ns, ["ip", "link", "set", site.device, "netns", other.name])
        shown = namespaces.run(other, ["tc", "qdisc", "show", "dev", site.device, "clsact"])
        assert shown.stdout == "", "a device that moves loses its clsact"
        with entered(other):
            (entry,) = tcx.chain(site.ifindex, site.hook).entries
            assert entry.prog_id == tracers["one"].id
            with pytest.raises(NetbpfError, match="there is no clsact to go to"):
                migrating.back(site.ifindex, (site.hook,))
            namespaces.run(other, ["tc", "qdisc", "add", "dev", site.device, "clsact"])
            (done,) = migrating.back(site.ifindex, (site.hook,))
            assert [move.prog_id for move in done.moves] == [tracers["one"].id]
            assert tcx.chain(site.ifindex, site.hook).entries == ()


def test_verdicts_are_kept(clsact: Clsact, load: Load) -> None:
    wall = load(programs.DROP)
    clsact.add(load(programs.NEXT), pref=1)
    clsact.add(wall, pref=2)
    clsact.add(load(programs.PASS), pref=3)
    assert clsact.site.drops()
    clsact.migrate()
    assert clsact.site.drops()
    assert clsact.ids() == []
    clsact.site.call("detach", wall)
    assert clsact.site.passes()


def test_they_go_behind_what_tcx_has(clsact: Clsact, tracers: Tracers) -> None:
    clsact.site.attach(tracers["two"], link=False)
    clsact.add(tracers["one"])
    assert tracers.order(clsact.site) == [2, 1]
    assert [move.position for move in clsact.migrate().moves] == [1]
    assert tracers.order(clsact.site) == [2, 1]
    clsact.migrate(back=True)
    assert tracers.order(clsact.site) == [2, 1]
    assert clsact.site.ids() == [tracers["two"].id], "what was never a filter stays"


def test_filters_of_other_kinds_stay_behind(clsact: Clsact, tracers: Tracers) -> None:
    clsact.add(tracers["one"], pref=10)
    clsact.add(tracers["two"], pref=20)
    clsact.u32(30)
    foreign = [each for each in clsact.shown() if each["kind"] == "u32"]
    before = clsact.shown()
    clsact.migrate()
    assert clsact.shown() == foreign
    assert tracers.order(clsact.site) == [1, 2]
    clsact.migrate(back=True)
    assert clsact.shown() == before


def test_nothing_there_is_nothing_done(clsact: Clsact, load: Load) -> None:
    revision = clsact.site.chain().revision
    assert clsact.migrate().moves == ()
    assert clsact.migrate(back=True).moves == ()
    clsact.u32(5)
    assert clsact.migrate().moves == ()
    clsact.tc("qdisc", "del", "dev", clsact.site.device, "clsact")
    assert clsact.migrate().moves == ()
    assert clsact.site.chain().revision == revision


def test_again_is_nothing(clsact: Clsact, load: Load) -> None:
    clsact.add(load(programs.NEXT))
    assert len(clsact.migrate().moves) == 1
    revision = clsact.site.chain().revision
    assert clsact.migrate().moves == ()
    assert clsact.site.chain().revision == revision


def protocol(clsact: Clsact, prog: Program, other: Program) -> None:
    clsact.add(prog, protocol="ip")


def classifier(clsact: Clsact, prog: Program, other: Program) -> None:
    clsact.add(prog, direct=False)


def classic(clsact: Clsact, prog: Program, other: Program) -> None:
    clsact.filter("add", "protocol", "all", "pref", 10, "bpf", "bytecode", "1,6 0 0 0,")


def other_chain(clsact: Clsact, prog: Program, other: Program) -> None:
    clsact.add(prog, before=("chain", 3))


def classid(clsact: Clsact, prog: Program, other: Program) -> None:
    clsact.add(prog, "classid", "1:2")


def actions(clsact: Clsact, prog: Program, other: Program) -> None:
    device = clsact.site.device
    clsact.add(prog, "action", "mirred", "egress", "redirect", "dev", device)


def behind_another(clsact: Clsact, prog: Program, other: Program) -> None:
    clsact.u32(5)
    clsact.add(prog)


def twice(clsact: Clsact, prog: Program, other: Program) -> None:
    clsact.add(prog, pref=5)
    clsact.add(prog, pref=6)


def at_tcx_already(clsact: Clsact, prog: Program, other: Program) -> None:
    clsact.site.attach(prog, link=False)
    clsact.add(prog)


@pytest.mark.parametrize(
    ("arrange", "words"),
    [
        (protocol, "it sees packets of protocol ip only, and at tcx it would see all"),
        (classifier, "it only classifies"),
        (classic, "it is classic BPF"),
        (other_chain, "it is in chain 3, which only other filters lead to"),
        (classid, "it has classid 1:2"),
        (actions, "it has actions"),
        (behind_another, r"it stands behind u32 pref 5 .*, which stays, and would overtake it"),
        (twice, "its program is in several filters"),
        (at_tcx_already, "its program is in the tcx chain already, at position 0"),
    ],
)
def test_what_would_change_its_meaning_is_refused(
    clsact: Clsact, load: Load, arrange: Callable[..., None], words: str
) -> None:
    prog, other = load(programs.NEXT, "prog"), load(programs.NEXT, "other")
    clsact.add(other, pref=1)
    arrange(clsact, prog, other)
    shown, ids = clsact.shown(), clsact.site.ids()
    for act in (clsact.planned, clsact.migrate):
        with pytest.raises(NetbpfError, match=words) as refused:
            act()
        assert refused.value.code == "not_migratable"
        assert "other" not in refused.value.message.replace("other filters", "")
    assert clsact.shown() == shown
    assert clsact.site.ids() == ids


def test_a_shared_block_is_refused(bpffs: Path, load: Load) -> None:
    prog = load(programs.NEXT)
    prog.pin(str(bpffs / "prog"))
    with hooks.site("tcx-ingress") as site:
        made = Clsact(site, bpffs)
        made.qdisc("clsact", "ingress_block", 7)
        made.tc("filter", "add", "block", 7, "pref", 3, "bpf", "da", "pinned", bpffs / "prog")
        with pytest.raises(NetbpfError, match="block 7, which other devices share"):
            made.migrate()
        assert site.ids() == []


def test_an_ingress_qdisc_serves_too(bpffs: Path, tracers: Tracers) -> None:
    with hooks.site("tcx-ingress") as site:
        made = Clsact(site, bpffs)
        made.qdisc("ingress")
        made.add(tracers["one"])
        with entered(site.ns):
            ingress, egress = migrating.migrate(site.ifindex)
            assert (len(ingress.moves), egress.moves) == (1, ())
            assert tracers.order(site) == [1]
            ingress, egress = migrating.back(site.ifindex)
        assert (len(ingress.moves), egress.moves) == (1, ())
        assert made.ids() == [tracers["one"].id]


def test_a_full_chain_is_refused_before_anything_moves(clsact: Clsact, load: Load) -> None:
    for _ in range(62):
        clsact.site.attach(load(programs.NEXT), link=False)
    for pref in (1, 2):
        clsact.add(load(programs.NEXT), pref=pref)
    with pytest.raises(NetbpfError, match="would hold 64 programs, and has room for 63"):
        clsact.migrate()
    assert len(clsact.ids()) == 2
    assert len(clsact.site.ids()) == 62


def test_both_hooks_at_once_all_or_none(bpffs: Path, load: Load) -> None:
    one, two = load(programs.NEXT, "one"), load(programs.NEXT, "two")
    with hooks.site("tcx-ingress") as site, entered(site.ns), tc.clsact(site, bpffs) as made:
        made.add(one)
        two.pin(str(bpffs / "two"))
        egress = ["filter", "add", "dev", site.device, "egress", "protocol", "ip", "pref", 1]
        made.tc(*egress, "bpf", "da", "pinned", bpffs / "two")
        with pytest.raises(NetbpfError, match=r"egress: .*protocol ip only"):
            migrating.migrate(site.ifindex)
        assert site.ids() == []
        made.tc("filter", "del", "dev", site.device, "egress")
        egress[6] = "all"
        made.tc(*egress, "bpf", "da", "pinned", bpffs / "two")
        done = migrating.migrate(site.ifindex)
        assert [each.hook for each in done] == ["ingress", "egress"]
        assert site.ids() == [one.id]
        assert [e.prog_id for e in tcx.chain(site.ifindex, "egress").entries] == [two.id]
        assert len(migrating.back(site.ifindex)) == 2
        assert site.ids() == []


def test_back_needs_a_clsact_and_makes_none(clsact: Clsact, load: Load) -> None:
    prog = load(programs.NEXT)
    clsact.add(prog)
    clsact.migrate()
    clsact.tc("qdisc", "del", "dev", clsact.site.device, "clsact")
    with pytest.raises(NetbpfError, match="there is no clsact to go to") as refused:
        clsact.migrate(back=True)
    assert refused.value.hint == f"tc qdisc add dev {clsact.site.device} clsact"
    assert clsact.site.ids() == [prog.id]
    assert [qdisc["kind"] for qdisc in clsact.qdiscs()] == ["noqueue"]
    clsact.qdisc()
    clsact.migrate(back=True)
    assert clsact.ids() == [prog.id]


def test_back_lets_nothing_be_overtaken(clsact: Clsact, tracers: Tracers) -> None:
    clsact.add(tracers["one"])
    clsact.migrate()
    clsact.site.attach(tracers["two"], link=False)
    with pytest.raises(ConflictError, match=r"two \(id:\d+\) stands behind one \(id:\d+\)"):
        clsact.migrate(back=True)
    assert tracers.order(clsact.site) == [1, 2]


@pytest.mark.parametrize("theirs", [5, 10, 20])
def test_back_goes_before_filters_that_came_meanwhile(
    clsact: Clsact, tracers: Tracers, theirs: int
) -> None:
    clsact.add(tracers["one"], pref=10, handle=1)
    clsact.add(tracers["two"], pref=20, handle=1)
    clsact.migrate()
    clsact.add(tracers["three"], pref=theirs, handle=1)
    assert tracers.order(clsact.site) == [1, 2, 3]
    clsact.migrate(back=True)
    assert clsact.ids() == [tracers[name].id for name in ("one", "two", "three")]
    assert tracers.order(clsact.site) == [1, 2, 3]
    assert clsact.shown()[-1]["pref"] == theirs


def test_back_goes_before_filters_of_another_kind(clsact: Clsact, tracers: Tracers) -> None:
    clsact.add(tracers["one"], pref=10)
    clsact.migrate()
    clsact.u32(10)
    clsact.migrate(back=True)
    assert [each["kind"] for each in clsact.shown()] == ["bpf", "u32", "u32"]
    assert clsact.shown()[0]["pref"] == 9
    clsact.migrate()
    clsact.filter("del", "pref", 10)
    clsact.u32(1)
    with pytest.raises(ConflictError, match="no priority is left before u32 pref 1"):
        clsact.migrate(back=True)
    assert tracers.order(clsact.site) == [1]


def test_links_that_were_moved_or_updated_go_back_as_they_are(
    clsact: Clsact, tracers: Tracers, load: Load
) -> None:
    from netbpf.bpf.anchor import Anchor
    from netbpf.bpf.move import move

    clsact.add(tracers["one"], pref=1)
    clsact.add(tracers["two"], pref=2)
    clsact.migrate()
    with entered(clsact.site.ns):
        move(tcx.HOOKS, clsact.site.ifindex, clsact.site.hook, "name:two", Anchor(first=True))
    clsact.site.call("update", "name:one", tracers["three"])
    assert tracers.order(clsact.site) == [2, 3]
    clsact.migrate(back=True)
    assert tracers.order(clsact.site) == [2, 3]
    assert clsact.ids() == [tracers["two"].id, tracers["three"].id]
    assert clsact.site.ids() == []


RECLASSIFY, PIPE, STOLEN, QUEUED, TRAP = 1, 3, 4, 5, 8


@pytest.mark.parametrize(
    ("code", "name"), [(RECLASSIFY, "RECLASSIFY"), (PIPE, "PIPE"), (STOLEN, "STOLEN"), (99, "99")]
)
def test_codes_that_mean_something_else_are_warned_of(
    clsact: Clsact, load: Load, code: int, name: str
) -> None:
    strange = load(code, "strange")
    clsact.add(load(programs.NEXT, "plain"), pref=1)
    clsact.add(strange, pref=2)
    (warning,) = clsact.planned().warnings
    assert warning.startswith(f"strange (id:{strange.id}) returns {name}")
    assert "to cls_bpf STOLEN and TRAP end a packet" in warning
    assert clsact.migrate().warnings == (warning,)


def test_a_program_before_them_that_skips_the_rest_is_warned_of(clsact: Clsact, load: Load) -> None:
    site, piping = clsact.site, load(PIPE, "piping")
    site.attach(piping, link=False)
    clsact.add(load(programs.DROP, "wall"))
    assert site.drops(), "clsact runs after PIPE"
    (warning,) = clsact.planned().warnings
    assert warning.startswith(
        f"piping (id:{piping.id}), which stands before them, returns PIPE (3)"
    )
    clsact.migrate()
    assert site.passes(), "as the warning says: tcx skips the rest of its chain"


@pytest.mark.parametrize("code", [STOLEN, TRAP])
def test_what_the_warning_says_of_stolen_packets_is_so(
    clsact: Clsact, load: Load, code: int
) -> None:
    clsact.add(load(code))
    assert clsact.site.drops()
    clsact.migrate()
    assert clsact.site.passes()
    clsact.migrate(back=True)
    assert clsact.site.drops()


@pytest.mark.parametrize("code", [RECLASSIFY, PIPE, QUEUED, 6, 99])
def test_what_the_warning_says_of_other_codes_is_so(clsact: Clsact, load: Load, code: int) -> None:
    clsact.add(load(code), pref=1)
    clsact.add(load(programs.DROP), pref=2)
    assert clsact.site.drops(), "cls_bpf goes on to the next filter"
    clsact.migrate()
    assert clsact.site.passes(), "tcx skips the rest of its chain"
