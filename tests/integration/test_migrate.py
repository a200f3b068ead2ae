"""cls_bpf programs become tcx links and go back: packets, tc and the chain agree."""

from __future__ import annotations

import errno
import fcntl
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from netbpf import Program, loader, tcx
from netbpf.bpf.link import Link
from netbpf.errors import BpfError, ConflictError, NetbpfError, NetlinkError
from netbpf.netlink import filters
from netbpf.netns import entered
from netbpf.tcx import migrate as migrating
from netbpf.tcx.migrate import Migration
from tests.netns_fixtures import clsact as tc
from tests.netns_fixtures import hooks, programs
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


def migrate(clsact: Clsact, *, back: bool = False) -> Migration:
    site = clsact.site
    with entered(site.ns):
        (done,) = (migrating.back if back else migrating.migrate)(site.ifindex, (site.hook,))
    return done


def planned(clsact: Clsact, *, back: bool = False) -> Migration:
    site = clsact.site
    with entered(site.ns):
        (found,) = migrating.plan(site.ifindex, (site.hook,), back=back)
    return found


def u32(clsact: Clsact, pref: int) -> None:
    """A filter of another kind, which matches no packet of a test."""
    words = ["protocol", "ip", "pref", pref, "u32", "match", "ip", "dst", "192.0.2.9/32"]
    clsact.filter("add", *words, "classid", "1:1")


def test_the_order_of_packets_is_kept_and_comes_back(clsact: Clsact, tracers: Tracers) -> None:
    clsact.add(tracers["three"], pref=30)
    clsact.add(tracers["one"], pref=20, handle=9)
    clsact.add(tracers["two"], pref=20)
    before, qdiscs = clsact.shown(), clsact.qdiscs()
    order = tracers.order(clsact.site)
    assert order == [2, 1, 3], "of one priority, the newest runs first"

    done = migrate(clsact)
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

    gone = migrate(clsact, back=True)
    assert clsact.shown() == before, "priorities, handles and names are those of before"
    assert clsact.site.ids() == []
    assert tracers.order(clsact.site) == order
    assert clsact.qdiscs() == qdiscs
    assert clsact.site.own_pins() == []
    assert [move.link_id for move in gone.moves] == [move.link_id for move in done.moves]


def test_verdicts_are_kept(clsact: Clsact, load: Load) -> None:
    wall = load(programs.DROP)
    clsact.add(load(programs.NEXT), pref=1)
    clsact.add(wall, pref=2)
    clsact.add(load(programs.PASS), pref=3)
    assert clsact.site.drops()
    migrate(clsact)
    assert clsact.site.drops()
    assert clsact.ids() == []
    clsact.site.call("detach", wall)
    assert clsact.site.passes()


def test_they_go_behind_what_tcx_has(clsact: Clsact, tracers: Tracers) -> None:
    clsact.site.attach(tracers["two"], link=False)
    clsact.add(tracers["one"])
    assert tracers.order(clsact.site) == [2, 1]
    assert [move.position for move in migrate(clsact).moves] == [1]
    assert tracers.order(clsact.site) == [2, 1]
    migrate(clsact, back=True)
    assert tracers.order(clsact.site) == [2, 1]
    assert clsact.site.ids() == [tracers["two"].id], "what was never a filter stays"


def test_filters_of_other_kinds_stay_behind(clsact: Clsact, tracers: Tracers) -> None:
    clsact.add(tracers["one"], pref=10)
    clsact.add(tracers["two"], pref=20)
    u32(clsact, 30)
    foreign = [each for each in clsact.shown() if each["kind"] == "u32"]
    before = clsact.shown()
    migrate(clsact)
    assert clsact.shown() == foreign
    assert tracers.order(clsact.site) == [1, 2]
    migrate(clsact, back=True)
    assert clsact.shown() == before


def test_nothing_there_is_nothing_done(clsact: Clsact, load: Load) -> None:
    revision = clsact.site.chain().revision
    assert migrate(clsact).moves == ()
    assert migrate(clsact, back=True).moves == ()
    u32(clsact, 5)
    assert migrate(clsact).moves == ()
    clsact.tc("qdisc", "del", "dev", clsact.site.device, "clsact")
    assert migrate(clsact).moves == ()
    assert clsact.site.chain().revision == revision


def test_again_is_nothing(clsact: Clsact, load: Load) -> None:
    clsact.add(load(programs.NEXT))
    assert len(migrate(clsact).moves) == 1
    revision = clsact.site.chain().revision
    assert migrate(clsact).moves == ()
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
    u32(clsact, 5)
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
    for act in (planned, migrate):
        with pytest.raises(NetbpfError, match=words) as refused:
            act(clsact)
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
            migrate(made)
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
        migrate(clsact)
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


class Fails:
    """Stands for a function: does what it does, but fails at one call."""

    def __init__(self, real: Callable[..., Any], at: int, error: BaseException) -> None:
        self.real, self.left, self.error = real, at, error

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.left -= 1
        if self.left == 0:
            raise self.error
        return self.real(*args, **kwargs)


REFUSED = NetlinkError("remove a filter", errno.EPERM)
FAILURES = [
    (filters, "delete", REFUSED),
    (migrating.HOOKS, "attach", BpfError("attach", errno.ENOMEM)),
    (migrating.pins, "create_own", BpfError("pin", errno.ENOSPC)),
    (filters, "delete", KeyboardInterrupt()),
]


@pytest.mark.parametrize("at", [1, 2, 3])
@pytest.mark.parametrize(("where", "what", "error"), FAILURES)
def test_a_failure_in_the_middle_is_put_back(
    clsact: Clsact,
    tracers: Tracers,
    monkeypatch: pytest.MonkeyPatch,
    at: int,
    where: Any,
    what: str,
    error: BaseException,
) -> None:
    for pref, name in enumerate(("one", "two", "three"), 10):
        clsact.add(tracers[name], pref=10 if pref < 12 else 20)
    before = clsact.shown()
    monkeypatch.setattr(where, what, Fails(getattr(where, what), at, error))
    with pytest.raises(type(error)):
        migrate(clsact)
    assert clsact.shown() == before
    assert clsact.site.ids() == []
    assert clsact.site.own_pins() == []
    assert tracers.order(clsact.site) == [2, 1, 3]


@pytest.mark.parametrize("at", [1, 2, 3])
@pytest.mark.parametrize(
    ("where", "what", "error"),
    [
        (filters, "add", NetlinkError("add a filter", errno.ENOMEM)),
        (migrating.Link, "detach", BpfError("detach", errno.EPERM)),
    ],
)
def test_a_failure_on_the_way_back_is_put_back(
    clsact: Clsact,
    tracers: Tracers,
    monkeypatch: pytest.MonkeyPatch,
    at: int,
    where: Any,
    what: str,
    error: BaseException,
) -> None:
    for name in ("one", "two", "three"):
        clsact.add(tracers[name])
    before = clsact.shown()
    migrate(clsact)
    ids, marks = clsact.site.ids(), marks_of(clsact)
    failing = Fails(getattr(where, what), at, error)
    # A function, so that it takes the place of a method too.
    monkeypatch.setattr(where, what, lambda *args, **kwargs: failing(*args, **kwargs))
    with pytest.raises(type(error)):
        migrate(clsact, back=True)
    assert clsact.shown() == []
    assert clsact.site.ids() == ids
    assert marks_of(clsact) == marks
    assert tracers.order(clsact.site) == [3, 2, 1]
    migrate(clsact, back=True)
    assert clsact.shown() == before


def marks_of(clsact: Clsact) -> list[str]:
    """The pins of the site, without the links' numbers."""
    return sorted(path.rpartition("_")[0] for path in clsact.site.own_pins())


def test_what_cannot_be_put_back_is_told(
    clsact: Clsact, tracers: Tracers, monkeypatch: pytest.MonkeyPatch
) -> None:
    clsact.add(tracers["one"], pref=1)
    clsact.add(tracers["two"], pref=2)
    monkeypatch.setattr(filters, "delete", Fails(filters.delete, 2, REFUSED))
    full = NetlinkError("add a filter", errno.ENOMEM)
    monkeypatch.setattr(filters, "add", Fails(filters.add, 1, full))
    with pytest.raises(NetlinkError) as refused:
        migrate(clsact)
    assert f"one (id:{tracers['one'].id}) stays at tcx: add a filter" in (refused.value.hint or "")
    assert tracers.order(clsact.site) == [1, 2], "nothing is missing all the same"


def test_somebody_removes_a_filter_meanwhile(
    clsact: Clsact, tracers: Tracers, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pref, name in enumerate(("one", "two"), 1):
        clsact.add(tracers[name], pref=pref)
    attach, left = migrating.HOOKS.attach, [2]

    def slow(*args: Any, **kwargs: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            clsact.filter("del", "pref", 2)
        return attach(*args, **kwargs)

    monkeypatch.setattr(migrating.HOOKS, "attach", slow)
    with pytest.raises(ConflictError, match="somebody changed the filters"):
        migrate(clsact)
    assert clsact.ids() == [tracers["one"].id]
    assert clsact.site.ids() == []


def test_somebody_exchanges_a_program_meanwhile(
    clsact: Clsact, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, theirs = load(programs.NEXT), load(programs.PASS)
    clsact.add(mine, handle=1)
    theirs.pin(str(clsact.folder / "theirs"))
    attach = migrating.HOOKS.attach

    def slow(*args: Any, **kwargs: Any) -> Any:
        words = ["protocol", "all", "pref", 10, "handle", 1, "bpf", "da", "pinned"]
        clsact.filter("replace", *words, clsact.folder / "theirs")
        return attach(*args, **kwargs)

    monkeypatch.setattr(migrating.HOOKS, "attach", slow)
    with pytest.raises(ConflictError, match="somebody changed the filters"):
        migrate(clsact)
    assert clsact.ids() == [theirs.id]
    assert clsact.site.ids() == []


def test_back_needs_a_clsact_and_makes_none(clsact: Clsact, load: Load) -> None:
    prog = load(programs.NEXT)
    clsact.add(prog)
    migrate(clsact)
    clsact.tc("qdisc", "del", "dev", clsact.site.device, "clsact")
    with pytest.raises(NetbpfError, match="there is no clsact to go to") as refused:
        migrate(clsact, back=True)
    assert refused.value.hint == f"tc qdisc add dev {clsact.site.device} clsact"
    assert clsact.site.ids() == [prog.id]
    assert [qdisc["kind"] for qdisc in clsact.qdiscs()] == ["noqueue"]
    clsact.qdisc()
    migrate(clsact, back=True)
    assert clsact.ids() == [prog.id]


def test_back_lets_nothing_be_overtaken(clsact: Clsact, tracers: Tracers) -> None:
    clsact.add(tracers["one"])
    migrate(clsact)
    clsact.site.attach(tracers["two"], link=False)
    with pytest.raises(ConflictError, match=r"two \(id:\d+\) stands behind one \(id:\d+\)"):
        migrate(clsact, back=True)
    assert tracers.order(clsact.site) == [1, 2]


@pytest.mark.parametrize("theirs", [5, 10, 20])
def test_back_goes_before_filters_that_came_meanwhile(
    clsact: Clsact, tracers: Tracers, theirs: int
) -> None:
    clsact.add(tracers["one"], pref=10, handle=1)
    clsact.add(tracers["two"], pref=20, handle=1)
    migrate(clsact)
    clsact.add(tracers["three"], pref=theirs, handle=1)
    assert tracers.order(clsact.site) == [1, 2, 3]
    migrate(clsact, back=True)
    assert clsact.ids() == [tracers[name].id for name in ("one", "two", "three")]
    assert tracers.order(clsact.site) == [1, 2, 3]
    assert clsact.shown()[-1]["pref"] == theirs


def test_back_goes_before_filters_of_another_kind(clsact: Clsact, tracers: Tracers) -> None:
    clsact.add(tracers["one"], pref=10)
    migrate(clsact)
    u32(clsact, 10)
    migrate(clsact, back=True)
    assert [each["kind"] for each in clsact.shown()] == ["bpf", "u32", "u32"]
    assert clsact.shown()[0]["pref"] == 9
    migrate(clsact)
    clsact.filter("del", "pref", 10)
    u32(clsact, 1)
    with pytest.raises(ConflictError, match="no priority is left before u32 pref 1"):
        migrate(clsact, back=True)
    assert tracers.order(clsact.site) == [1]


def test_links_that_were_moved_or_updated_go_back_as_they_are(
    clsact: Clsact, tracers: Tracers, load: Load
) -> None:
    from netbpf.bpf.anchor import Anchor
    from netbpf.bpf.move import move

    clsact.add(tracers["one"], pref=1)
    clsact.add(tracers["two"], pref=2)
    migrate(clsact)
    with entered(clsact.site.ns):
        move(tcx.HOOKS, clsact.site.ifindex, clsact.site.hook, "name:two", Anchor(first=True))
    clsact.site.call("update", "name:one", tracers["three"])
    assert tracers.order(clsact.site) == [2, 3]
    migrate(clsact, back=True)
    assert tracers.order(clsact.site) == [2, 3]
    assert clsact.ids() == [tracers["two"].id, tracers["three"].id]
    assert clsact.site.ids() == []


def killed(clsact: Clsact, *, back: bool) -> None:
    """Migrate in a process of its own, which dies between the two steps of its first move."""
    code = f"""
        import os
        from netbpf.netlink import filters
        from netbpf.netns import NetNS, entered
        from netbpf.tcx import migrate
        name = "detach" if {back} else "delete"
        setattr(migrate.Link if {back} else filters, name, lambda *a, **k: os.kill(os.getpid(), 9))
        with NetNS.from_name({clsact.site.ns.name!r}) as ns, entered(ns):
            act = migrate.back if {back} else migrate.migrate
            act({clsact.site.ifindex}, ({clsact.site.hook!r},))
    """
    argv = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(argv, check=False, timeout=60, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_the_next_one_ends_what_was_killed(clsact: Clsact, tracers: Tracers) -> None:
    clsact.add(tracers["one"], pref=1)
    clsact.add(tracers["two"], pref=2)
    before = clsact.shown()
    killed(clsact, back=False)
    assert tracers.order(clsact.site) == [1, 1, 2], "twice, but not missing"
    done = migrate(clsact)
    assert [move.half for move in done.moves] == [True, False]
    assert [len(move.pins) for move in done.moves] == [1, 1]
    assert tracers.order(clsact.site) == [1, 2]
    assert clsact.ids() == []
    killed(clsact, back=True)
    assert tracers.order(clsact.site) == [1, 2, 2]
    done = migrate(clsact, back=True)
    assert [move.half for move in done.moves] == [False, True]
    assert clsact.shown() == before
    assert clsact.site.ids() == []
    assert clsact.site.own_pins() == []


def test_what_was_killed_can_go_the_other_way(clsact: Clsact, tracers: Tracers) -> None:
    clsact.add(tracers["one"], pref=1)
    clsact.add(tracers["two"], pref=2)
    before = clsact.shown()
    killed(clsact, back=False)
    migrate(clsact, back=True)
    assert clsact.shown() == before
    assert clsact.site.ids() == []
    migrate(clsact)
    killed(clsact, back=True)
    migrate(clsact)
    assert clsact.shown() == []
    assert tracers.order(clsact.site) == [1, 2]


def test_one_that_hangs_is_not_waited_for_without_end(
    clsact: Clsact, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrating, "_PATIENCE", 0.1)
    clsact.add(load(programs.NEXT))
    with entered(clsact.site.ns), open("/proc/thread-self/ns/net") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ConflictError, match="another migration goes on"):
            migrating.migrate(clsact.site.ifindex)
    assert len(migrate(clsact).moves) == 1


def test_several_at_once(clsact: Clsact, tracers: Tracers) -> None:
    for pref, name in enumerate(("one", "two", "three"), 1):
        clsact.add(tracers[name], pref=pref)
    site = clsact.site
    argv = [sys.executable, "-m", "netbpf", "tcx", "migrate", "-n", site.ns.name, site.device]
    for _ in range(2):
        running = [
            subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(4)
        ]
        assert [process.communicate(timeout=60)[1].count(b"Error") for process in running] == [
            0
        ] * 4
        assert [process.returncode for process in running] == [0] * 4
        assert tracers.order(site) == [1, 2, 3]
        argv.append("--back")
    assert len(clsact.ids()) == 3


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
    (warning,) = planned(clsact).warnings
    assert warning.startswith(f"strange (id:{strange.id}) returns {name}")
    assert "to cls_bpf STOLEN and TRAP end a packet" in warning
    assert migrate(clsact).warnings == (warning,)


def test_a_program_before_them_that_skips_the_rest_is_warned_of(clsact: Clsact, load: Load) -> None:
    site, piping = clsact.site, load(PIPE, "piping")
    site.attach(piping, link=False)
    clsact.add(load(programs.DROP, "wall"))
    assert site.drops(), "clsact runs after PIPE"
    (warning,) = planned(clsact).warnings
    assert warning.startswith(
        f"piping (id:{piping.id}), which stands before them, returns PIPE (3)"
    )
    migrate(clsact)
    assert site.passes(), "as the warning says: tcx skips the rest of its chain"


@pytest.mark.parametrize("code", [STOLEN, TRAP])
def test_what_the_warning_says_of_stolen_packets_is_so(
    clsact: Clsact, load: Load, code: int
) -> None:
    clsact.add(load(code))
    assert clsact.site.drops()
    migrate(clsact)
    assert clsact.site.passes()
    migrate(clsact, back=True)
    assert clsact.site.drops()


@pytest.mark.parametrize("code", [RECLASSIFY, PIPE, QUEUED, 6, 99])
def test_what_the_warning_says_of_other_codes_is_so(clsact: Clsact, load: Load, code: int) -> None:
    clsact.add(load(code), pref=1)
    clsact.add(load(programs.DROP), pref=2)
    assert clsact.site.drops(), "cls_bpf goes on to the next filter"
    migrate(clsact)
    assert clsact.site.passes(), "tcx skips the rest of its chain"
