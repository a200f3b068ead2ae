"""A command killed at any of its steps: the chain is as it was, or the one change is complete.

The steps are those of tests/netns_fixtures/killed.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from netbpf import Program
from netbpf.bpf import pin as pins
from netbpf.bpf.link import Link
from netbpf.netns import entered
from netbpf.plumbing import gc
from tests.netns_fixtures import hooks, programs
from tests.netns_fixtures.cli import ok
from tests.netns_fixtures.hooks import Site
from tests.netns_fixtures.killed import IN_LAB, killed_before

BY = ["--link"] if IN_LAB else ["--link", "--no-link"]


@dataclass(frozen=True)
class Look:
    """What others see: the chain's programs and links, and netbpf's own pins of links."""

    progs: tuple[int, ...]
    links: tuple[int | None, ...]
    pins: tuple[str, ...]

    @classmethod
    def at(cls, site: Site) -> Look:
        entries = site.chain().entries
        look = cls(
            tuple(entry.prog_id for entry in entries),
            tuple(entry.link_id for entry in entries),
            tuple(sorted(site.own_pins())),
        )
        for path in look.pins:
            with Link.from_pin(path) as link:
                assert not link.info().defunct, f"{path} pins a link of nothing"
                assert link.id in look.links
        return look


@dataclass(frozen=True)
class Scene:
    """A hook where a program stands that no command touches."""

    site: Site
    still: Program

    def run(self, verb: str, *rest: object) -> list[object]:
        site = self.site
        return ["-j", site.noun, verb, "-n", site.ns.name, site.device, site.hook, *rest]

    def attach(self, what: str, *rest: object) -> Any:
        return ok(*self.run("attach", what, *rest))["attached"]

    def clear(self) -> None:
        for entry in self.site.chain().entries:
            if entry.prog_id != self.still.id:
                ok(*self.run("detach", f"id:{entry.prog_id}"))
        for path in self.site.own_pins():
            pins.remove(path)
        assert Look.at(self.site) == Look((self.still.id,), (None,), ())

    def sweep(
        self, arguments: Callable[[], list[object]], done: Callable[[Look, Look], bool]
    ) -> tuple[int, int]:
        """Kill the command before each of its steps; how many there were, and how many were done.

        ``arguments`` prepares the chain and gives the command line.
        """
        complete = 0
        for step in itertools.count():
            command = arguments()
            before = Look.at(self.site)
            killed = killed_before(step, *command)
            after = Look.at(self.site)
            if after == before:
                assert killed
                # The next command does what the killed one did not.
                ok(*command[1:])
                after = Look.at(self.site)
            else:
                complete += 1
            assert done(before, after), f"killed before step {step}: {before} became {after}"
            self.clear()
            if not killed:
                return step, complete
        raise AssertionError("it is done at some time")


SITE = "netkit-peer" if IN_LAB else "tcx-ingress"
"""One hook of each kind: the steps are the same at the others, and there are many."""


@pytest.fixture(params=[pytest.param(SITE, marks=pytest.mark.needs(hooks.SITES[SITE]))])
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    with (
        hooks.site(request.param) as site,
        programs.load_returning(programs.NEXT, "still") as still,
    ):
        site.attach(still, link=False)
        yield Scene(site, still)


def linked(before: Look, after: Look) -> bool:
    """One more, by a link that is pinned once."""
    return (
        after.progs[:-1] == before.progs
        and after.links[:-1] == before.links
        and after.links[-1] is not None
        and len(after.pins) == len(before.pins) + 1
    )


def gone(before: Look, after: Look) -> bool:
    """One less, and its pin with it."""
    return (after.progs, after.links, after.pins) == (before.progs[:-1], before.links[:-1], ())


def exchanged(before: Look, after: Look) -> bool:
    """Another program in the same place, by the same link."""
    return (
        after.progs[:-1] == before.progs[:-1]
        and after.progs[-1] != before.progs[-1]
        and (after.links, after.pins) == (before.links, before.pins)
    )


def bare(before: Look, after: Look) -> bool:
    """One more, by itself."""
    return (
        after.progs[:-1] == before.progs
        and after.links == (*before.links, None)
        and after.pins == before.pins
    )


@pytest.mark.parametrize("by", BY)
def test_attach(scene: Scene, by: str) -> None:
    done = linked if by == "--link" else bare
    steps, complete = scene.sweep(lambda: scene.run("attach", "builtin:count", by), done)
    assert 1 <= complete <= steps


def test_attach_with_a_pin_elsewhere(scene: Scene, bpffs: Path) -> None:
    numbers = itertools.count()

    def arguments() -> list[object]:
        for old in bpffs.glob("*/it"):
            old.unlink()
        return scene.run("attach", "builtin:next", "--pin", bpffs / f"at{next(numbers)}" / "it")

    def one_more(before: Look, after: Look) -> bool:
        (path,) = bpffs.glob("*/it")
        with Link.from_pin(str(path)) as link:
            assert link.id == after.links[-1]
        return after.progs[:-1] == before.progs and not after.pins

    scene.sweep(arguments, one_more)


@pytest.mark.parametrize("by", BY)
def test_update(scene: Scene, by: str) -> None:
    def arguments() -> list[object]:
        scene.attach("builtin:next", by)
        return scene.run("update", "name:next", "builtin:count")

    scene.sweep(arguments, exchanged)


@pytest.mark.parametrize("by", BY)
def test_detach(scene: Scene, by: str) -> None:
    def arguments() -> list[object]:
        scene.attach("builtin:next", by)
        return scene.run("detach", "name:next")

    scene.sweep(arguments, gone)


def test_link_detach(scene: Scene) -> None:
    def arguments() -> list[object]:
        made = scene.attach("builtin:next")
        return ["-j", "link", "detach", f"link:{made['link']['id']}"]

    scene.sweep(arguments, gone)


@pytest.mark.parametrize("by", BY)
def test_move(scene: Scene, by: str) -> None:
    """The kernel has no move: between two exchanges, microseconds, the program runs nowhere.

    Killed anywhere else it stands where it was or where it goes, and the next move tidies up.
    """
    windows = 0
    for step in itertools.count():
        made = scene.attach("builtin:next", by)
        command = scene.run("move", f"id:{made['prog']['id']}", "--first")
        killed = killed_before(step, *command)
        progs = scene.site.ids()
        if made["prog"]["id"] in progs:
            ok(*command[1:])
            after = Look.at(scene.site)
            assert after.progs == (made["prog"]["id"], scene.still.id), f"before step {step}"
            assert len(after.pins) == (1 if by == "--link" else 0)
        else:
            windows += 1
        scene.clear()
        if not killed:
            break
    assert windows <= 1


def test_gc_finishes_a_move(scene: Scene) -> None:
    """It clears away what a killed move left, whichever step it came to."""
    found = 0
    for step in itertools.count():
        made = scene.attach("builtin:next", BY[0])
        killed = killed_before(step, *scene.run("move", f"id:{made['prog']['id']}", "--first"))
        with entered(scene.site.ns):
            left = [each for each in gc.find().garbage if each.kind == "unfinished_move"]
            found += bool(left)
            assert all(each.removed for each in gc.remove(left[:1]))
        progs = scene.site.ids()
        assert set(progs) <= {made["prog"]["id"], scene.still.id}
        assert not [path for path in scene.site.own_pins() if path.endswith("-moving")]
        scene.clear()
        if not killed:
            break
    assert found >= 3
