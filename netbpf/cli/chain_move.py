"""The commands of tcx and netkit that change the order of a chain: move and order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from netbpf.cli import told
from netbpf.cli.chain import (
    After,
    Before,
    Device,
    Expected,
    HookName,
    RefArgument,
    entry_document,
    hooks_of,
    link_document,
    prog_document,
)
from netbpf.cli.chain_view import pins_of
from netbpf.cli.output import Document, emit, say
from netbpf.cli.settings import settings
from netbpf.plumbing.packet_path import ifindex_of

if TYPE_CHECKING:
    from netbpf.bpf.chain import Chain, Entry
    from netbpf.bpf.move import Moved
    from netbpf.bpf.order import Step


def move(
    ctx: typer.Context,
    device: Device,
    hook: HookName,
    ref: RefArgument,
    before: Before = None,
    after: After = None,
    first: Annotated[bool, typer.Option("--first", help="To the start.")] = False,
    last: Annotated[bool, typer.Option("--last", help="To the end.")] = False,
    expected_revision: Expected = None,
) -> None:
    """Move a program to another place in its chain.

    The kernel has no move: a placeholder takes the new place, then the program is exchanged into
    it, and does not run for some microseconds in between. Its link becomes a new one, under the
    same pins. A link that somebody else holds is not moved.
    """
    from netbpf.bpf import move as moving
    from netbpf.bpf.anchor import Anchor
    from netbpf.bpf.ref import Ref

    anchor = Anchor(before, after, None, first, last)
    if anchor == Anchor():
        raise ValueError("where to? one of --before, --after, --first and --last is needed")
    hooks, ifindex = hooks_of(ctx), ifindex_of(device)
    expected = told.expected(ifindex, hook, expected_revision)
    named = Ref.parse(ref)
    named_pin = named.value if named.kind == "pin" else None
    if settings.dry_run:
        chain = hooks.expected(ifindex, hook, "move at", expected)
        entry, position, pins = moving.plan(chain, ref, anchor, named_pin)
        document = entry_document("moved", device, chain, entry, pins)
        document["moved"] |= {"old_position": entry.position, "position": position}
        emit(
            {"dry_run": True, **document},
            lambda: say(f"would move {entry} from position {entry.position} to {position}"),
        )
        return
    moved = moving.move(
        hooks,
        ifindex,
        hook,
        ref,
        anchor,
        named_pin=named_pin,
        expected_revision=expected,
    )
    told.now(hooks, ifindex, hook)
    emit(
        {
            "moved": {
                "device": device,
                "ifindex": ifindex,
                "hook": hook,
                "revision": moved.placed.revision,
                **_moved_document(moved),
            }
        },
        lambda: _say_moved(device, hook, moved),
    )


def order(
    ctx: typer.Context,
    device: Device,
    hook: HookName,
    refs: Annotated[
        list[str],
        typer.Argument(metavar="REF...", help="Programs of the chain, in the order to come."),
    ],
    expected_revision: Expected = None,
) -> None:
    """Bring programs of a chain into this order, with the fewest moves.

    What is not named stays where it is. Each move is one of the verb move.
    """
    from netbpf.bpf import order as ordering

    hooks, ifindex = hooks_of(ctx), ifindex_of(device)
    expected = told.expected(ifindex, hook, expected_revision)
    if settings.dry_run:
        chain = hooks.expected(ifindex, hook, "order", expected)
        steps = ordering.plan(chain, refs)
        document = _order_document(device, ordering.outcome(chain, steps), steps=steps)
        emit({"dry_run": True, **document}, lambda: _say_steps(device, hook, steps))
        return
    done = ordering.order(hooks, ifindex, hook, refs, expected_revision=expected)
    told.now(hooks, ifindex, hook)
    document = _order_document(device, done.chain, moves=done.moves)

    def words() -> None:
        for each in done.moves:
            _say_moved(device, hook, each)
        if not done.moves:
            say(f"{device} {hook}: in this order already, revision {done.chain.revision}")

    emit(document, words)


def _moved_document(moved: Moved) -> Document:
    placed = moved.placed
    return {
        "position": placed.position,
        "old_position": moved.old_position,
        "prog": prog_document(placed.prog_id),
        "link": link_document(placed.link_id, moved.pins),
    }


def _step_document(step: Step, pins: Mapping[int, list[str]]) -> Document:
    return {
        "old_position": step.entry.position,
        **_entry(replace(step.entry, position=step.position), pins),
    }


def _order_document(
    device: str, chain: Chain, *, moves: Sequence[Moved] = (), steps: Sequence[Step] = ()
) -> Document:
    """``chain`` as it is afterwards, and what was moved, or would be by ``steps``."""
    pins = pins_of([entry.link_id for entry in chain.entries if entry.link_id])
    done = [_moved_document(each) for each in moves]
    return {
        "ordered": {
            "device": device,
            "ifindex": chain.ifindex,
            "hook": chain.hook,
            "revision": chain.revision,
            "moves": done + [_step_document(step, pins) for step in steps],
            "entries": [_entry(entry, pins) for entry in chain.entries],
        }
    }


def _entry(entry: Entry, pins: Mapping[int, list[str]]) -> Document:
    return {
        "position": entry.position,
        "prog": prog_document(entry.prog_id),
        "link": link_document(entry.link_id, pins.get(entry.link_id or 0, ())),
    }


def _say_moved(device: str, hook: str, moved: Moved) -> None:
    placed, prog = moved.placed, prog_document(moved.placed.prog_id)
    say(
        f"{device} {hook}: {prog['name'] or ''} (id:{prog['id']}) from position "
        f"{moved.old_position} to {placed.position}, revision {placed.revision}"
    )


def _say_steps(device: str, hook: str, steps: Sequence[Step]) -> None:
    for step in steps:
        say(f"would move {step.entry} from position {step.entry.position} to {step.position}")
    if not steps:
        say(f"{device} {hook}: in this order already")
