"""Moving an entry to another place in its chain.

The kernel has no move: a program can be in a chain once, so it is taken out and put in again, and
does not run in between (two RCU grace periods, 10 to 30 ms). When it cannot be put where it was
asked for, it goes back to where it was.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from netbpf.bpf import pin as pins
from netbpf.bpf.anchor import Anchor
from netbpf.bpf.chain import Chain, Entry, Target
from netbpf.bpf.link import Link
from netbpf.bpf.mprog import Hooks, Placed
from netbpf.bpf.owners import link_owners
from netbpf.bpf.prog import Program
from netbpf.errors import ConflictError, NetbpfError, StaleRevisionError
from netbpf.interrupts import held


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


def move(
    hooks: Hooks,
    ifindex: int,
    hook: str,
    target: Target,
    anchor: Anchor,
    *,
    named_pin: str | None = None,
    expected_revision: int | None = None,
) -> Moved:
    """Take what ``target`` names out of its chain and put it in again where ``anchor`` says.

    A program that is there already stays untouched. A link cannot be attached twice, so its program
    gets a new link, under the old one's pins: only a link that nobody holds but netbpf's own pins
    (and ``named_pin``) is moved.

    :raises ConflictError: somebody else holds the link.
    :raises StaleRevisionError, NotFoundError, AmbiguousError, BpfError: as for ``Hooks.attach``.
    """
    chain = hooks.chain(ifindex, hook)
    if expected_revision not in (None, 0, chain.revision):
        raise StaleRevisionError(
            f"move at {hook}", expected=expected_revision, current=chain.revision
        )
    entry = chain.find(target)
    position = landing(chain, entry, anchor)
    paths = _own_pins(entry, named_pin) if entry.link_id else []
    if position == entry.position:
        placed = Placed(ifindex, hook, position, chain.revision, entry.prog_id, entry.link_id)
        return Moved(placed, position, tuple(paths))
    with Program.from_id(entry.prog_id) as prog, held():
        hooks.detach(ifindex, hook, _exactly(entry), expected_revision=chain.revision)
        try:
            placed = _attach(hooks, ifindex, hook, prog, anchor, entry)
        except NetbpfError:
            _put_back(hooks, ifindex, hook, prog, chain, entry, paths)
            raise
        if placed.link is not None:
            with placed.link:
                _take_over(placed.link, paths)
    return Moved(placed, entry.position, tuple(paths))


def _exactly(entry: Entry) -> str:
    return f"link:{entry.link_id}" if entry.link_id else f"id:{entry.prog_id}"


def _attach(
    hooks: Hooks, ifindex: int, hook: str, prog: Program, anchor: Anchor, entry: Entry
) -> Placed:
    return hooks.attach(
        ifindex,
        hook,
        prog,
        before=anchor.before,
        after=anchor.after,
        first=anchor.first,
        last=anchor.last,
        link=entry.link_id is not None,
    )


def _put_back(
    hooks: Hooks,
    ifindex: int,
    hook: str,
    prog: Program,
    chain: Chain,
    entry: Entry,
    paths: list[str],
) -> None:
    """Attach where it was: before the nearest follower that is still there, else at the end."""
    still = {each.prog_id for each in hooks.chain(ifindex, hook).entries}
    followers = chain.entries[entry.position + 1 :]
    follower = next((each for each in followers if each.prog_id in still), None)
    anchor = Anchor(before=f"id:{follower.prog_id}") if follower else Anchor()
    placed = _attach(hooks, ifindex, hook, prog, anchor, entry)
    if placed.link is not None:
        with placed.link:
            _take_over(placed.link, paths)


def _take_over(link: Link, paths: list[str]) -> None:
    """Let the old link's pins stand for the new one: each name is exchanged at once."""
    for path in paths:
        # A rename on a bpffs replaces what is there (fs/libfs.c: simple_rename).
        fresh = f"{path}-new"
        link.pin(fresh)
        os.rename(fresh, path)


def _own_pins(entry: Entry, named: str | None) -> list[str]:
    """The pins of the entry's link; nobody else may hold it.

    :raises ConflictError: a process or another's pin holds it, or nothing that would stay.
    """
    number = entry.link_id or 0
    owners = [owner for owner in link_owners([number])[number] if owner.pid != os.getpid()]
    paths = pins.link_pins([number])[number]
    foreign = [path for path in paths if not pins.is_own(path) and path != named]
    if owners or foreign:
        holders = [f"{owner.comm}[{owner.pid}]" for owner in owners] + foreign
        raise ConflictError(
            f"link:{number} is held by {', '.join(holders)}, and moving it would end it",
            hint="let its holder move it; a pin of your own is moved when you name it, pin:PATH",
        )
    return paths
