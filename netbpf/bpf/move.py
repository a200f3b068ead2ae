"""Moving an entry to another place in its chain.

The kernel has no move, and a program can be in a chain once. So its new place is first taken by a
placeholder, a program that does nothing; then another placeholder goes into the old place and the
program into the new one, both in place, which takes effect at once: for some microseconds between
those two the program does not run. Each step leaves a chain that works, and when one fails, those
before it are taken back. What a move leaves that is killed half-way, the next one clears away
(`netbpf.bpf.move_rest`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from netbpf.bpf import mprog_request as request
from netbpf.bpf import pin as pins
from netbpf.bpf.alone import alone
from netbpf.bpf.anchor import Anchor
from netbpf.bpf.bpffs import reach
from netbpf.bpf.chain import Chain, Entry, Target
from netbpf.bpf.link import Link
from netbpf.bpf.move_rest import BESIDE, clear, exactly, placeholder
from netbpf.bpf.mprog import Expected, Hooks, Placed
from netbpf.bpf.owners import link_owners
from netbpf.bpf.prog import Program
from netbpf.errors import BpfError, ConflictError, NetbpfError, StaleRevisionError
from netbpf.interrupts import held

_TRIES = 8


@dataclass(frozen=True, slots=True)
class Moved:
    """Where the entry went; ``pins`` are those of its link, which is a new one."""

    placed: Placed
    old_position: int
    pins: tuple[str, ...] = ()


def landing(chain: Chain, entry: Entry, anchor: Anchor) -> int:
    """The position that ``entry`` will have once it is moved.

    :raises ValueError: the anchor names the entry itself, or a replacement.
    :raises NotFoundError, AmbiguousError: what it names is not there, or not one.
    """
    if anchor.replace is not None:
        raise ValueError("a move replaces nothing")
    relative = anchor.before if anchor.before is not None else anchor.after
    if relative is not None and chain.find(relative) == entry:
        raise ValueError(f"{relative} is what is to be moved: name another one")
    position = anchor.land(chain).position
    return position - 1 if position > entry.position else position


def plan(
    chain: Chain, target: Target, anchor: Anchor, named_pin: str | None = None
) -> tuple[Entry, int, list[str]]:
    """What a move would take, where that would land, and the pins of its link; changes nothing.

    :raises ValueError, NotFoundError, AmbiguousError, ConflictError: as `move` would.
    """
    entry = chain.find(target)
    position = landing(chain, entry, anchor)
    return entry, position, _own_pins(entry, named_pin) if entry.link_id else []


def move(
    hooks: Hooks,
    ifindex: int,
    hook: str,
    target: Target,
    anchor: Anchor,
    *,
    named_pin: str | None = None,
    expected_revision: Expected = None,
) -> Moved:
    """Take what ``target`` names out of its place in the chain and put it where ``anchor`` says.

    A program that is there already stays untouched. A link cannot be attached twice, so its program
    gets a new link, under the old one's pins: only a link that nobody holds but netbpf's own pins
    (and ``named_pin``) is moved. In a full chain there is no room for a placeholder: the program is
    taken out and attached again then, and does not run for one RCU grace period, 10 to 30 ms.

    :raises ConflictError: somebody else holds the link.
    :raises StaleRevisionError, NotFoundError, AmbiguousError, BpfError: as for ``Hooks.attach``.
    """
    with alone("move"):
        return move_alone(hooks, ifindex, hook, target, anchor, named_pin, expected_revision)


def move_alone(
    hooks: Hooks,
    ifindex: int,
    hook: str,
    target: Target,
    anchor: Anchor,
    named_pin: str | None,
    expected_revision: Expected,
) -> Moved:
    """`move`, for a caller who is `netbpf.bpf.alone.alone` already."""
    for attempt in range(_TRIES):
        chain = hooks.expected(ifindex, hook, "move at", expected_revision)
        if clear(hooks, chain):
            # The revision rose, for no reason that the caller has to hear of.
            chain, expected_revision = hooks.chain(ifindex, hook), None
        entry, position, paths = plan(chain, target, anchor, named_pin)
        if position == entry.position:
            placed = Placed(ifindex, hook, position, chain.revision, entry.prog_id, entry.link_id)
            return Moved(placed, position, tuple(paths))
        with Program.from_id(entry.prog_id) as prog, held():
            try:
                placed = _Move(hooks, chain, entry, prog, paths).to(anchor)
            except StaleRevisionError:
                # Only the first step asks for the revision: nothing is changed yet.
                if expected_revision is None and attempt < _TRIES - 1:
                    continue
                raise
        return Moved(placed, entry.position, tuple(paths))
    raise AssertionError("the last try returns or raises")


class _Move:
    """One move of ``entry``, which runs ``prog``; ``paths`` are its link's pins."""

    def __init__(
        self, hooks: Hooks, chain: Chain, entry: Entry, prog: Program, paths: list[str]
    ) -> None:
        self.hooks, self.chain, self.entry = hooks, chain, entry
        self.prog, self.paths = prog, paths

    def to(self, anchor: Anchor) -> Placed:
        with placeholder() as new_place, placeholder() as old_place:
            try:
                made = self._attach(new_place, anchor, self.chain)
            except BpfError as error:
                if error.code != "chain_full":
                    raise
                return self._by_detaching(anchor)
            if made.link is None:
                self._exchange_programs(old_place, new_place)
            else:
                with made.link:
                    self._exchange_links(made.link, old_place, new_place)
        return self._placed(made)

    def _attach(self, prog: Program, anchor: Anchor, expected: Expected) -> Placed:
        return self.hooks.attach(
            self.chain.ifindex,
            self.chain.hook,
            prog,
            before=anchor.before,
            after=anchor.after,
            first=anchor.first,
            last=anchor.last,
            link=self.entry.link_id is not None,
            expected_revision=expected,
        )

    def _exchange_programs(self, old_place: Program, new_place: Program) -> None:
        try:
            self._replace(self.prog, old_place)
            try:
                self._replace(new_place, self.prog)
            except BaseException:
                self._replace(old_place, self.prog)
                raise
        except BaseException:
            self._detach(new_place)
            raise
        self._detach(old_place)

    def _exchange_links(self, link: Link, old_place: Program, new_place: Program) -> None:
        """``link`` keeps the new place; closing it without a pin gives that place up."""
        with Link.from_id(self.entry.link_id or 0) as old, _pinned_beside(link, self.paths):
            old.update(old_place, old=self.prog)
            try:
                link.update(self.prog, old=new_place)
            except BaseException:
                old.update(self.prog, old=old_place)
                raise
            old.detach()

    def _replace(self, old: Program, new: Program) -> None:
        place = self.hooks.hook(self.chain.hook)
        try:
            request.replace_program(place, self.chain.ifindex, new, old)
        except OSError as error:
            raise self.hooks.refused(self.chain, "update", error, new) from error

    def _detach(self, placeholder: Program) -> None:
        with suppress(NetbpfError):
            # Gone already is as good.
            self.hooks.detach(self.chain.ifindex, self.chain.hook, placeholder)

    def _by_detaching(self, anchor: Anchor) -> Placed:
        self.hooks.detach(
            self.chain.ifindex,
            self.chain.hook,
            exactly(self.entry),
            expected_revision=self.chain.revision,
        )
        try:
            made = self._attach(self.prog, anchor, None)
        except NetbpfError:
            self._keep(self._attach(self.prog, self._where_it_was(), None))
            raise
        self._keep(made)
        return self._placed(made)

    def _where_it_was(self) -> Anchor:
        """Before the nearest follower that is still there, else at the end."""
        now = self.hooks.chain(self.chain.ifindex, self.chain.hook)
        for follower in self.chain.entries[self.entry.position + 1 :]:
            if now.with_program(follower.prog_id):
                return Anchor(before=f"id:{follower.prog_id}")
        return Anchor()

    def _keep(self, made: Placed) -> None:
        if made.link is not None:
            with made.link, _pinned_beside(made.link, self.paths):
                pass

    def _placed(self, made: Placed) -> Placed:
        chain = self.hooks.chain(self.chain.ifindex, self.chain.hook)
        now = chain.with_program(self.entry.prog_id)
        return Placed(
            ifindex=chain.ifindex,
            hook=chain.hook,
            position=now.position if now else None,
            revision=chain.revision,
            prog_id=self.entry.prog_id,
            link_id=made.link_id,
        )


@contextmanager
def _pinned_beside(link: Link, paths: list[str]) -> Iterator[None]:
    """Pin ``link`` beside each path, then let it take the path's name when the block succeeds.

    So at every moment one of both links is pinned, and no name is missing.
    """
    made = []
    try:
        for path in map(reach, paths):
            fresh = path + BESIDE
            link.pin(fresh)
            made.append(fresh)
        yield
    except BaseException:
        for fresh in made:
            pins.remove(fresh)
        raise
    for fresh in made:
        # A rename on a bpffs replaces what is there (fs/libfs.c: simple_rename).
        os.rename(fresh, fresh.removesuffix(BESIDE))


def _own_pins(entry: Entry, named: str | None) -> list[str]:
    """The pins of the entry's link; nobody else may hold it.

    :raises ConflictError: a process or another's pin holds it, or nothing that would stay.
    """
    number = entry.link_id or 0
    holders = foreign_holders([number], {number: named})[number]
    if holders:
        raise ConflictError(
            f"link:{number} is held by {', '.join(holders)}, and moving it would end it",
            hint="let its holder move it; a pin of your own is moved when you name it, pin:PATH",
        )
    return pins.link_pins([number])[number]


def foreign_holders(
    link_ids: list[int], named: dict[int, str | None] | None = None
) -> dict[int, list[str]]:
    """Who holds each link besides netbpf's own pins and the one ``named``: ``comm[pid]``, paths."""
    named = named or {}
    owners, paths = link_owners(link_ids), pins.link_pins(link_ids)
    return {
        number: [
            *(f"{each.comm}[{each.pid}]" for each in owners[number] if each.pid != os.getpid()),
            *(p for p in paths[number] if not pins.is_own(p) and p != named.get(number)),
        ]
        for number in link_ids
    }
