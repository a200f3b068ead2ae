"""Migrations that fail, are killed or meet another: nothing is missing, all is put back."""

from __future__ import annotations

import errno
import fcntl
import json
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from netbpf import Program, loader
from netbpf.bpf import alone
from netbpf.errors import BpfError, ConflictError, NetbpfError, NetlinkError
from netbpf.netlink import filters
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
        clsact.migrate()
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
    clsact.migrate()
    ids, marks = clsact.site.ids(), marks_of(clsact)
    failing = Fails(getattr(where, what), at, error)
    # A function, so that it takes the place of a method too.
    monkeypatch.setattr(where, what, lambda *args, **kwargs: failing(*args, **kwargs))
    with pytest.raises(type(error)):
        clsact.migrate(back=True)
    assert clsact.shown() == []
    assert clsact.site.ids() == ids
    assert marks_of(clsact) == marks
    assert tracers.order(clsact.site) == [3, 2, 1]
    clsact.migrate(back=True)
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
        clsact.migrate()
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
        clsact.migrate()
    assert clsact.ids() == [tracers["one"].id]
    assert clsact.site.ids() == []


def meanwhile(
    monkeypatch: pytest.MonkeyPatch, name: str, at: int, act: Callable[[], object]
) -> None:
    """Let ``act`` happen right before the step of that number."""
    real, left = getattr(migrating._Mover, name), [at]

    def late(*args: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            act()
        return real(*args)

    monkeypatch.setattr(migrating._Mover, name, late)


def test_somebody_puts_a_filter_before_the_next_one(
    clsact: Clsact, tracers: Tracers, monkeypatch: pytest.MonkeyPatch
) -> None:
    clsact.add(tracers["one"], pref=2)
    clsact.add(tracers["two"], pref=3)
    before = clsact.shown()
    meanwhile(monkeypatch, "_still_first", 2, lambda: clsact.u32(1))
    with pytest.raises(ConflictError, match="is no longer the first filter"):
        clsact.migrate()
    assert [each for each in clsact.shown() if each["kind"] == "bpf"] == before
    assert clsact.site.ids() == []


def test_somebody_comes_between_on_the_way_back(
    clsact: Clsact, tracers: Tracers, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, other = clsact.site, load(programs.NEXT)
    clsact.add(tracers["one"], pref=2)
    clsact.add(tracers["two"], pref=3)
    clsact.migrate()
    ids = site.ids()
    with monkeypatch.context() as patch:
        meanwhile(patch, "_still_last", 2, lambda: clsact.u32(1))
        with pytest.raises(ConflictError, match=r"u32 pref 1 .* came before what was to be first"):
            clsact.migrate(back=True)
    assert (clsact.ids(), site.ids()) == ([], ids)
    clsact.filter("del", "pref", 1)
    with monkeypatch.context() as patch:
        meanwhile(patch, "_still_last", 2, lambda: site.attach(other, link=False))
        with pytest.raises(ConflictError, match="is no longer the last at tcx"):
            clsact.migrate(back=True)
    assert clsact.ids() == []
    assert set(site.ids()) == {*ids, other.id}
    assert [number for number in site.ids() if number != other.id] == ids


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
        clsact.migrate()
    assert clsact.ids() == [theirs.id]
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
    done = clsact.migrate()
    assert [move.half for move in done.moves] == [True, False]
    assert [len(move.pins) for move in done.moves] == [1, 1]
    assert tracers.order(clsact.site) == [1, 2]
    assert clsact.ids() == []
    killed(clsact, back=True)
    assert tracers.order(clsact.site) == [1, 2, 2]
    done = clsact.migrate(back=True)
    assert [move.half for move in done.moves] == [False, True]
    assert clsact.shown() == before
    assert clsact.site.ids() == []
    assert clsact.site.own_pins() == []


def test_what_was_killed_can_go_the_other_way(clsact: Clsact, tracers: Tracers) -> None:
    clsact.add(tracers["one"], pref=1)
    clsact.add(tracers["two"], pref=2)
    before = clsact.shown()
    killed(clsact, back=False)
    clsact.migrate(back=True)
    assert clsact.shown() == before
    assert clsact.site.ids() == []
    clsact.migrate()
    killed(clsact, back=True)
    clsact.migrate()
    assert clsact.shown() == []
    assert tracers.order(clsact.site) == [1, 2]


def test_one_that_hangs_is_not_waited_for_without_end(
    clsact: Clsact, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alone, "_PATIENCE", 0.1)
    clsact.add(load(programs.NEXT))
    with entered(clsact.site.ns), open("/proc/thread-self/ns/net") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ConflictError, match="another change of several steps goes on"):
            migrating.migrate(clsact.site.ifindex)
    assert len(clsact.migrate().moves) == 1


def test_several_at_once(clsact: Clsact, tracers: Tracers) -> None:
    for pref, name in enumerate(("one", "two", "three"), 1):
        clsact.add(tracers[name], pref=pref)
    site = clsact.site
    argv = [sys.executable, "-m", "netbpf", "tcx", "migrate", "-n", site.ns.name, site.device]
    for _ in range(2):
        running = [
            subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(4)
        ]
        errors = [process.communicate(timeout=60)[1].decode() for process in running]
        assert [process.returncode for process in running] == [0] * 4, errors
        assert sorted(errors).count("") == 1, errors
        assert tracers.order(site) == [1, 2, 3]
        argv.append("--back")
    assert len(clsact.ids()) == 3


@pytest.mark.parametrize(
    ("capabilities", "needed"),
    [
        ("-all", "CAP_NET_ADMIN"),
        ("-sys_admin", "CAP_SYS_ADMIN"),
        ("-net_admin", "CAP_NET_ADMIN"),
    ],
)
@pytest.mark.parametrize("back", [False, True], ids=["forth", "back"])
def test_whoever_may_not_is_told_and_changes_nothing(
    clsact: Clsact, load: Load, capabilities: str, needed: str, back: bool
) -> None:
    clsact.add(load(programs.NEXT))
    if back:
        clsact.migrate()
    shown, ids, marks = clsact.shown(), clsact.site.ids(), marks_of(clsact)
    argv = ["setpriv", f"--bounding-set={capabilities}", sys.executable, "-m", "netbpf", "-j"]
    argv += ["tcx", "migrate", clsact.site.device, *(["--back"] if back else [])]
    done = namespaces.run(clsact.site.ns, argv, check=False)
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["errno"]) == (4, "EPERM"), error
    assert needed in error["hint"]
    assert (clsact.shown(), clsact.site.ids(), marks_of(clsact)) == (shown, ids, marks)


def test_a_signal_comes_when_all_is_done(clsact: Clsact, tracers: Tracers) -> None:
    for pref, name in enumerate(("one", "two", "three"), 1):
        clsact.add(tracers[name], pref=pref)
    site = clsact.site
    for back in (False, True):
        code = f"""
            import os, signal, sys
            from netbpf.tcx import migrate
            real = migrate._Mover.{"to_clsact" if back else "to_tcx"}
            def interrupted(*words):
                os.kill(os.getpid(), signal.SIGINT)
                return real(*words)
            setattr(migrate._Mover, real.__name__, interrupted)
            from netbpf.cli.main import main
            sys.exit(main(sys.argv[1:]))
        """
        argv = [sys.executable, "-c", textwrap.dedent(code), "tcx", "migrate", site.device]
        done = namespaces.run(site.ns, [*argv, *(["--back"] if back else [])], check=False)
        assert done.returncode in (0, 130), done.stderr
        assert len(clsact.ids()) == (3 if back else 0)
        assert len(site.ids()) == (0 if back else 3)
        assert tracers.order(site) == [1, 2, 3]


def test_others_change_filters_and_chain_all_the_while(
    clsact: Clsact, tracers: Tracers, load: Load
) -> None:
    site, other = clsact.site, load(programs.NEXT, "other")
    names = ("one", "two", "three")
    for pref, name in enumerate(names, 10):
        clsact.add(tracers[name], pref=pref)
    ours = [tracers[name].id for name in names]
    stop = threading.Event()

    def interfere() -> None:
        while not stop.is_set():
            clsact.u32(5)
            site.attach(other, link=False)
            clsact.filter("del", "pref", 5)
            site.call("detach", other)

    others = threading.Thread(target=interfere)
    others.start()
    outcomes = {"done": 0, "refused": 0}
    deadline = time.monotonic() + 3
    try:
        while time.monotonic() < deadline:
            for back in (False, True):
                try:
                    clsact.migrate(back=back)
                    outcomes["done"] += 1
                except NetbpfError as error:
                    # Somebody came between, or stood in the way from the start.
                    assert error.code in ("conflict", "not_migratable"), error
                    outcomes["refused"] += 1
    finally:
        stop.set()
        others.join()
    assert min(outcomes.values()) > 0, outcomes
    there = [number for number in site.ids() if number in ours] + clsact.ids()
    assert there == ours, "each is at one place, in the same order"
    assert tracers.order(site) == [1, 2, 3]
    clsact.migrate(back=True)
    assert clsact.ids() == ours
    assert site.own_pins() == []
