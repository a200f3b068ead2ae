"""Eight processes change one chain at once, half of them without a look at revisions.

Each has programs of its own and takes out only those. What is left at the end is what each left
last, in an order that one after the other could have made too.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from netbpf import Program
from netbpf.bpf.anchor import Anchor
from netbpf.bpf.link import Link
from netbpf.bpf.macros import BPF_F_AFTER, BPF_F_BEFORE
from netbpf.bpf.move import move
from netbpf.errors import ConflictError, StaleRevisionError
from netbpf.netns import entered
from tests.netns_fixtures import programs, rawbpf
from tests.netns_fixtures.cli import netbpf
from tests.netns_fixtures.hooks import Site
from tests.netns_fixtures.rawprocess import at_once

Load = Callable[..., Program]

# One hundred at one hook; each change costs an RCU grace period, and all wait for one lock.
ROUNDS = {"ingress": 100}
FEWER, FEW = 8, 3
CONFLICTS = (StaleRevisionError, ConflictError)
TRIES = 2000


@dataclass
class Tally:
    """What a process met."""

    moved: int = 0
    conflicts: int = 0
    errors: list[str] = field(default_factory=list)


class Worker:
    """One process's part: attach, move and detach a program of its own, again and again."""

    def __init__(self, site: Site, number: int, left: Program, right: Program) -> None:
        self.site, self.left, self.right = site, left, right
        self.prog = programs.load_returning(programs.NEXT, f"worker{number}")
        self.random = random.Random(number)
        self.tally = Tally()

    def somewhere(self) -> dict[str, Any]:
        """A place at random."""
        return self.random.choice(
            [
                {"first": True},
                {"last": True},
                {"before": self.left},
                {"after": self.left},
                {"before": self.right},
                {"after": self.right},
            ]
        )

    def round(self) -> None:
        self.attach(**self.somewhere())
        self.move(**self.somewhere())
        self.detach()

    def until_done(self, call: Callable[[], object]) -> None:
        """Again after each conflict."""
        for _ in range(TRIES):
            try:
                call()
            except CONFLICTS:
                self.tally.conflicts += 1
            else:
                return
        raise AssertionError(f"in conflict {TRIES} times")

    def attach(self, **where: Any) -> None:
        raise NotImplementedError

    def move(self, **where: Any) -> None:
        raise NotImplementedError

    def detach(self) -> None:
        raise NotImplementedError


class Api(Worker):
    """By netbpf's functions; by a link in every other round where ``links`` says so."""

    def __init__(self, *args: Any, links: bool = False) -> None:
        super().__init__(*args)
        self.links, self.link = links, None
        self.place = (self.site.hooks, self.site.ifindex, self.site.hook)

    def attach(self, **where: Any) -> None:
        by_link = self.links and self.random.random() < 0.5

        def call() -> None:
            self.link = self.site.attach(self.prog, link=by_link, **where).link

        self.until_done(call)

    def move(self, **where: Any) -> None:
        if self.link is not None:
            return
        try:
            with entered(self.site.ns):
                move(*self.place, self.prog, Anchor(**where))
        except CONFLICTS:
            self.tally.conflicts += 1
        else:
            self.tally.moved += 1

    def detach(self) -> None:
        if self.link is not None:
            link: Link = self.link
            self.until_done(lambda: self.site.call("detach", link))
            link.close()
            self.link = None
        else:
            self.until_done(lambda: self.site.call("detach", self.prog))


class CommandLine(Worker):
    """By the command line: a conflict is exit status 5."""

    def run(self, verb: str, *rest: str) -> bool:
        site = self.site
        place = [site.noun, verb, "-n", site.ns.name, site.device, site.hook]
        result = netbpf("-j", *place, f"id:{self.prog.id}", *rest)
        if result.status == 5:
            self.tally.conflicts += 1
        elif result.status != 0:
            raise AssertionError(f"{verb} {rest}: {result.status} {result.out}")
        return result.status == 0

    def options(self, where: dict[str, Any]) -> list[str]:
        ((word, target),) = where.items()
        return [f"--{word}"] if target is True else [f"--{word}", f"id:{target.id}"]

    def attach(self, **where: Any) -> None:
        options = self.options(where)
        assert any(self.run("attach", "--no-link", *options) for _ in range(TRIES))

    def move(self, **where: Any) -> None:
        self.tally.moved += self.run("move", *self.options(where))

    def detach(self) -> None:
        assert any(self.run("detach") for _ in range(TRIES))


class Bare(Worker):
    """By bpf(2) as C programs do it: no revision, no look at the chain, nothing done again."""

    def __init__(self, *args: Any, links: bool = False) -> None:
        super().__init__(*args)
        self.raw, self.links, self.link = rawbpf.at(self.site), links, None

    def attach(self, **where: Any) -> None:
        ((word, target),) = where.items()
        flag = BPF_F_BEFORE if word in ("first", "before") else BPF_F_AFTER
        relative = 0 if target is True else target
        if self.links:
            self.link = self.raw.create(self.prog, flag, relative=relative)
        else:
            self.raw.attach(self.prog, flag, relative=relative)

    def move(self, **where: Any) -> None:
        self.detach()
        self.attach(**where)
        self.tally.moved += 1

    def detach(self) -> None:
        if self.link is not None:
            self.link.close()
            self.link = None
        else:
            self.raw.detach(self.prog)


FINALS: list[tuple[Callable[..., Worker], str]] = [
    (Api, "left"),
    (lambda *args: Api(*args, links=True), "gone"),
    (CommandLine, "middle"),
    (Api, "right"),
    (Bare, "left"),
    (Bare, "middle"),
    (lambda *args: Bare(*args, links=True), "gone"),
    (Bare, "right"),
]
"""Each process, and where its program stays: left of both that stand still, between, right."""


def run(worker: Worker, rounds: int, final: str) -> dict[str, Any]:
    tally = worker.tally
    try:
        for _ in range(rounds):
            worker.round()
        match final:
            case "left":
                worker.attach(before=worker.left)
            case "middle":
                worker.attach(after=worker.left)
            case "right":
                worker.attach(last=True)
    except BaseException as error:
        tally.errors.append(f"{type(worker).__name__}: {error!r}")
    return vars(tally)


def test_nobody_loses_what_is_theirs(site: Site, load: Load) -> None:
    left, right = load(programs.NEXT, "left"), load(programs.NEXT, "right")
    for each in (left, right):
        site.attach(each, link=False)
    rounds = FEW if "NETBPF_LAB" in os.environ else ROUNDS.get(site.hook, FEWER)
    expected: dict[str, set[int]] = {"left": set(), "middle": set(), "right": set()}
    with ExitStack() as stack:
        workers = []
        for number, (make, final) in enumerate(FINALS):
            worker = make(site, number, left, right)
            stack.enter_context(worker.prog)
            workers.append((worker, final))
            if final != "gone":
                expected[final].add(worker.prog.id)
        start = site.chain().revision
        parts = [partial(run, worker, rounds, final) for worker, final in workers]
        tallies = [Tally(**tally) for tally in at_once(parts)]
    assert not any(tally.errors for tally in tallies), f"all that fails is a conflict: {tallies}"
    assert all(tally.moved for tally in tallies), f"each got its turn: {tallies}"

    ids = site.ids()
    at_left, at_right = ids.index(left.id), ids.index(right.id)
    assert at_left < at_right
    assert set(ids[:at_left]) == expected["left"]
    assert set(ids[at_left + 1 : at_right]) == expected["middle"]
    assert set(ids[at_right + 1 :]) == expected["right"]
    assert len(ids) == len(set(ids)) == 8
    assert site.passes()
    # No change was lost, and none was made that nobody asked for.
    assert site.chain().revision >= start + 2 * len(FINALS) * rounds


class Guarded(CommandLine):
    """Changes the chain only at the revision that was looked at; counts what was done."""

    def __init__(self, *args: Any, commands: bool = False) -> None:
        super().__init__(*args)
        self.commands, self.there = commands, False

    def round(self) -> None:
        for _ in range(TRIES):
            revision = self.site.chain().revision
            if self.change(revision):
                self.there = not self.there
                self.tally.moved += 1
                return
        raise AssertionError(f"in conflict {TRIES} times")

    def change(self, revision: int) -> bool:
        if self.commands:
            guard = ["--expected-revision", str(revision)]
            return (
                self.run("detach", *guard)
                if self.there
                else self.run("attach", "--no-link", *guard)
            )
        try:
            if self.there:
                self.site.call("detach", self.prog, expected_revision=revision)
            else:
                self.site.attach(self.prog, link=False, expected_revision=revision)
        except StaleRevisionError:
            self.tally.conflicts += 1
            return False
        return True


def test_a_guarded_change_is_made_to_the_chain_that_was_seen(site: Site, load: Load) -> None:
    """Each success is one revision: nobody changed what somebody else had changed meanwhile."""
    left, right = load(programs.NEXT, "left"), load(programs.NEXT, "right")
    for each in (left, right):
        site.attach(each, link=False)
    rounds = 4 if "NETBPF_LAB" in os.environ else 10
    with ExitStack() as stack:
        workers = [Guarded(site, number, left, right, commands=number == 0) for number in range(4)]
        for worker in workers:
            stack.enter_context(worker.prog)
        start = site.chain().revision
        parts = [partial(run, worker, rounds, "gone") for worker in workers]
        tallies = [Tally(**tally) for tally in at_once(parts)]
    assert not any(tally.errors for tally in tallies), tallies
    assert [tally.moved for tally in tallies] == [rounds] * 4
    assert site.chain().revision == start + 4 * rounds
    assert site.ids() == [left.id, right.id]
