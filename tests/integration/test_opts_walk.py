"""Changes at random, by functions and by commands, beside a plain list of what is due."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from netbpf import Program
from netbpf.errors import BpfError
from tests.netns_fixtures import programs, rawbpf
from tests.netns_fixtures.cli import netbpf
from tests.netns_fixtures.hooks import Site

STEPS = 40
PROGRAMS = 7


@dataclass
class Due:
    """An entry that has to be there: a program, and the id of the link that owns it."""

    prog: Program
    link: int = 0


class Walk:
    """One change after another, each checked against the kernel's own account."""

    def __init__(self, site: Site, seed: int, stack: ExitStack) -> None:
        self.site, self.random = site, random.Random(seed)
        self.raw = rawbpf.at(site)
        self.spare = [
            stack.enter_context(programs.load_returning(programs.NEXT, f"walk{number}"))
            for number in range(PROGRAMS)
        ]
        self.due: list[Due] = []
        self.changes = 0

    def step(self) -> None:
        verbs = ["attach", "attach", "attach", "detach", "update", "replace", "move", "wrong"]
        verb = self.random.choice(verbs)
        if verb == "attach" and self.spare:
            self.attach()
        elif verb == "wrong" and self.due:
            self.wrong()
        elif verb in ("detach", "update", "replace", "move") and self.due:
            getattr(self, verb)(self.random.choice(self.due))
        answer = self.raw.query()
        assert answer.progs == [each.prog.id for each in self.due]
        assert answer.links == [each.link for each in self.due]

    def somewhere(self, but: Due | None = None) -> tuple[dict[str, Any], int]:
        """A place, and which one it is in the list without ``but``."""
        others = [each for each in self.due if each is not but]
        places: list[tuple[dict[str, Any], int]] = [
            ({"first": True}, 0),
            ({"last": True}, len(others)),
        ]
        for position, each in enumerate(others):
            places += [
                ({"before": self.named(each)}, position),
                ({"after": self.named(each)}, position + 1),
            ]
        return self.random.choice(places)

    def named(self, entry: Due) -> str:
        """One of the names of an entry."""
        names = [f"id:{entry.prog.id}", f"name:{entry.prog.info().name}"]
        if entry.link:
            names.append(f"link:{entry.link}")
        return self.random.choice(names)

    def take_spare(self) -> Program:
        return self.spare.pop(self.random.randrange(len(self.spare)))

    def attach(self) -> None:
        prog, link = self.take_spare(), self.random.random() < 0.5
        where, position = self.somewhere()
        entry = Due(prog, self.attached(prog, link, where))
        self.due.insert(position, entry)

    def detach(self, entry: Due) -> None:
        self.detached(self.named(entry))
        self.due.remove(entry)
        self.spare.append(entry.prog)

    def update(self, entry: Due) -> None:
        if self.spare:
            new = self.take_spare()
            self.updated(self.named(entry), new)
            self.spare.append(entry.prog)
            entry.prog = new

    def replace(self, entry: Due) -> None:
        """With the neighbours as a condition, which holds or does not."""
        if not self.spare:
            return
        new, target = self.take_spare(), self.named(entry)
        where, position = self.somewhere(entry)
        for word in ("first", "last"):
            where.pop(word, None)
        fits = not where or position == self.due.index(entry)
        self.spare.append(new)
        expected = errno.EBUSY if entry.link else None if fits else errno.ERANGE
        found = self.replaced(new, target, where)
        assert found == expected
        if found is None:
            self.spare.remove(new)
            self.spare.append(entry.prog)
            entry.prog = new

    def move(self, entry: Due) -> None:
        where, position = self.somewhere(entry)
        link = self.moved(self.named(entry), where)
        self.due.remove(entry)
        entry.link = link
        self.due.insert(position, entry)

    def wrong(self) -> None:
        """What is there already."""
        where, _ = self.somewhere()
        assert self.refused(self.random.choice(self.due).prog, where) == errno.EEXIST

    def attached(self, prog: Program, link: bool, where: dict[str, Any]) -> int:
        raise NotImplementedError

    def detached(self, target: str) -> None:
        raise NotImplementedError

    def updated(self, target: str, prog: Program) -> None:
        raise NotImplementedError

    def replaced(self, prog: Program, target: str, where: dict[str, Any]) -> int | None:
        raise NotImplementedError

    def moved(self, target: str, where: dict[str, Any]) -> int:
        raise NotImplementedError

    def refused(self, prog: Program, where: dict[str, Any]) -> int | None:
        raise NotImplementedError


class ByFunctions(Walk):
    """netbpf's API; links are held open by the test, which no move may end."""

    def __init__(self, site: Site, seed: int, stack: ExitStack) -> None:
        super().__init__(site, seed, stack)
        self.stack = stack

    def attached(self, prog: Program, link: bool, where: dict[str, Any]) -> int:
        placed = self.site.attach(prog, link=link, **where)
        if placed.link is None:
            return 0
        self.stack.enter_context(placed.link)
        return placed.link.id

    def detached(self, target: str) -> None:
        self.site.call("detach", target)

    def updated(self, target: str, prog: Program) -> None:
        self.site.call("update", target, prog)

    def replaced(self, prog: Program, target: str, where: dict[str, Any]) -> int | None:
        try:
            self.site.attach(prog, replace=target, link=False, **where)
        except BpfError as error:
            return error.errno
        return None

    def move(self, entry: Due) -> None:
        # Its links are held by this process; the command line moves.
        self.update(entry)

    def refused(self, prog: Program, where: dict[str, Any]) -> int | None:
        try:
            self.site.attach(prog, **where)
        except BpfError as error:
            return error.errno
        return None


class ByCommands(Walk):
    """The command line, whose links are held by pins."""

    def run(self, verb: str, *rest: str) -> Any:
        site = self.site
        return netbpf("-j", site.noun, verb, "-n", site.ns.name, site.device, site.hook, *rest)

    def done(self, verb: str, *rest: str) -> Any:
        result = self.run(verb, *rest)
        assert result.status == 0, result.out
        words = {"attach": "attached", "detach": "detached", "update": "updated", "move": "moved"}
        return result.json[words[verb]]

    def attached(self, prog: Program, link: bool, where: dict[str, Any]) -> int:
        words = [f"id:{prog.id}", "--link" if link else "--no-link", *options(where)]
        would = self.done("attach", *words, "--dry-run")
        made = self.done("attach", *words)
        assert would["position"] == made["position"]
        return made["link"]["id"] if link else 0

    def detached(self, target: str) -> None:
        self.done("detach", target)

    def updated(self, target: str, prog: Program) -> None:
        self.done("update", target, f"id:{prog.id}")

    def replaced(self, prog: Program, target: str, where: dict[str, Any]) -> int | None:
        return number(self.run("attach", f"id:{prog.id}", "--replace", target, *options(where)))

    def moved(self, target: str, where: dict[str, Any]) -> int:
        made = self.done("move", target, *options(where))
        return made["link"]["id"] if made["link"] else 0

    def refused(self, prog: Program, where: dict[str, Any]) -> int | None:
        return number(self.run("attach", f"id:{prog.id}", "--no-link", *options(where)))


def options(where: dict[str, Any]) -> list[str]:
    """``--before REF``, ``--first``."""
    return [
        word
        for key, value in where.items()
        for word in ([f"--{key}"] if value is True else [f"--{key}", value])
    ]


def number(result: Any) -> int | None:
    """The errno of a refused command."""
    return None if result.status == 0 else getattr(errno, result.error["errno"])


@pytest.mark.parametrize("kind", [ByFunctions, ByCommands], ids=["functions", "commands"])
def test_a_walk(site: Site, kind: Callable[..., Walk]) -> None:
    steps = STEPS // 4 if "NETBPF_LAB" in os.environ else STEPS
    with ExitStack() as stack:
        walk = kind(site, 4, stack)
        for _ in range(steps):
            walk.step()
        pins = len(site.own_pins())
        assert pins == (0 if kind is ByFunctions else sum(bool(each.link) for each in walk.due))
        for each in list(walk.due):
            walk.detach(each)
    assert (site.ids(), site.own_pins()) == ([], [])
