"""Bringing a chain into an order, with the fewest moves."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise

from netbpf.bpf.alone import alone
from netbpf.bpf.anchor import Anchor
from netbpf.bpf.chain import Chain, Entry, Target
from netbpf.bpf.chain_change import increasing
from netbpf.bpf.move import Moved, foreign_holders, move_alone
from netbpf.bpf.move_rest import clear
from netbpf.bpf.mprog import Expected, Hooks
from netbpf.bpf.ref import Ref
from netbpf.errors import ConflictError, NetbpfError
from netbpf.interrupts import held


@dataclass(frozen=True, slots=True)
class Step:
    """One move of a plan: the entry as it stands now, and the program that it goes after.

    ``after`` is that program's id, None to go first; ``position`` is where the entry ends up.
    """

    entry: Entry
    after: int | None
    position: int


@dataclass(frozen=True, slots=True)
class Ordered:
    """What was moved, and the chain afterwards."""

    moves: tuple[Moved, ...]
    chain: Chain


def plan(chain: Chain, targets: Sequence[Target]) -> tuple[Step, ...]:
    """The fewest moves after which what ``targets`` name follows one another in that order.

    What is not named stays where it is: the named ones share the places that they hold now. A link
    that somebody else holds is not moved either.

    :raises ValueError: two name the same entry.
    :raises NotFoundError, AmbiguousError: one names none, or more than one.
    :raises ConflictError: it cannot be done without moving what somebody else holds.
    """
    named = [chain.find(target) for target in targets]
    for index, entry in enumerate(named):
        if entry in named[:index]:
            first = targets[named.index(entry)]
            raise ValueError(f"{first} and {targets[index]} are one program: name each once")
    holders = _holders(named, targets)
    wanted = list(chain.entries)
    for place, entry in zip(sorted(e.position for e in named), named, strict=True):
        wanted[place] = entry
    goal = {entry.position: place for place, entry in enumerate(wanted)}
    fixed = [e for e in chain.entries if e not in named or holders.get(e.link_id or 0)]
    for earlier, later in pairwise(fixed):
        if goal[earlier.position] > goal[later.position]:
            stuck = later if later in named else earlier
            raise ConflictError(
                f"{stuck} would have to be moved, and it is held by "
                f"{', '.join(holders[stuck.link_id or 0])}",
                hint="let its holder move it; a pin of your own is moved when you name it, "
                "pin:PATH",
            )
    free = [e for e in chain.entries if all(_agree(e, other, goal) for other in fixed)]
    stays = {free[index] for index in increasing([goal[e.position] for e in free])}
    steps = []
    for place, entry in enumerate(wanted):
        if entry not in stays:
            steps.append(Step(entry, wanted[place - 1].prog_id if place else None, place))
    return tuple(steps)


def outcome(chain: Chain, steps: Sequence[Step]) -> Chain:
    """``chain`` as it will stand once the steps of its `plan` are done; its revision is the old."""
    moved = {step.position: step.entry for step in steps}
    others = (entry for entry in chain.entries if entry not in moved.values())
    entries = [moved.get(place) or next(others) for place in range(len(chain.entries))]
    return replace(
        chain, entries=tuple(replace(entry, position=place) for place, entry in enumerate(entries))
    )


def order(
    hooks: Hooks,
    ifindex: int,
    hook: str,
    targets: Sequence[Target],
    *,
    expected_revision: Expected = None,
) -> Ordered:
    """Bring what ``targets`` name into that order, with the fewest moves; see `plan`.

    Each move is one of `netbpf.bpf.move.move`. When one fails, those before it are taken back.

    :raises StaleRevisionError, NotFoundError, AmbiguousError, ConflictError, BpfError: as `move`.
    """
    with alone("order"):
        chain = hooks.expected(ifindex, hook, "order", expected_revision)
        if clear(hooks, chain):
            chain = hooks.chain(ifindex, hook)
        return _order(hooks, chain, targets)


def _order(hooks: Hooks, chain: Chain, targets: Sequence[Target]) -> Ordered:
    ifindex, hook, steps = chain.ifindex, chain.hook, plan(chain, targets)
    pins = {
        chain.find(target).prog_id: ref.value
        for target in targets
        if (ref := _ref(target)) is not None and ref.kind == "pin"
    }
    moves: list[Moved] = []
    with held():
        # The first move is of the chain that was planned for; what comes later is our own doing.
        expected: Expected = chain
        try:
            for step in steps:
                moves.append(_take(hooks, ifindex, hook, step, pins, expected))
                expected = moves[-1].placed.revision
        except NetbpfError:
            if moves:
                _take_back(hooks, chain, pins)
            raise
    return Ordered(tuple(moves), hooks.chain(ifindex, hook) if moves else chain)


def _take(
    hooks: Hooks, ifindex: int, hook: str, step: Step, pins: dict[int, str], expected: Expected
) -> Moved:
    anchor = Anchor(first=True) if step.after is None else Anchor(after=f"id:{step.after}")
    target, pin = f"id:{step.entry.prog_id}", pins.get(step.entry.prog_id)
    return move_alone(hooks, ifindex, hook, target, anchor, pin, expected)


def _take_back(hooks: Hooks, chain: Chain, pins: dict[int, str]) -> None:
    """The order as it was, as far as it can be had."""
    with suppress(NetbpfError):
        now = hooks.chain(chain.ifindex, chain.hook)
        was = [f"id:{e.prog_id}" for e in chain.entries if now.with_program(e.prog_id)]
        for step in plan(now, was):
            _take(hooks, chain.ifindex, chain.hook, step, pins, None)


def _agree(one: Entry, other: Entry, goal: dict[int, int]) -> bool:
    """Whether both stand in the order in which they are wanted."""
    return one == other or (one.position < other.position) == (
        goal[one.position] < goal[other.position]
    )


def _holders(named: Sequence[Entry], targets: Sequence[Target]) -> dict[int, list[str]]:
    """By link id, who else holds the links of the named entries."""
    links = [entry.link_id for entry in named if entry.link_id is not None]
    if not links:
        return {}
    own: dict[int, str | None] = {}
    for entry, target in zip(named, targets, strict=True):
        ref = _ref(target)
        if entry.link_id is not None and ref is not None and ref.kind == "pin":
            own[entry.link_id] = ref.value
    return foreign_holders(links, own)


def _ref(target: Target) -> Ref | None:
    if isinstance(target, str):
        return Ref.parse(target)
    return target if isinstance(target, Ref) else None
