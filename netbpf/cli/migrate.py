"""``netbpf tcx migrate``: programs of clsact become tcx links, and go back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from netbpf.cli.chain import Device
from netbpf.cli.output import Document, emit, note, say
from netbpf.cli.settings import settings
from netbpf.plumbing.packet_path import ifindex_of

if TYPE_CHECKING:
    from netbpf.bpf.bpffs import BpfFs
    from netbpf.tcx.migrate import Migration, Move


def migrate(
    device: Device,
    hook: Annotated[
        str | None, typer.Argument(metavar="HOOK", help="Only this one, not both.")
    ] = None,
    back: Annotated[
        bool, typer.Option("--back", help="Migrated links become filters again.")
    ] = False,
) -> None:
    """Let cls_bpf programs of clsact become tcx links: same order, same meaning, no gap.

    The link is made first, then the filter goes. All filters of cls_bpf move or none; the qdisc and
    other filters stay. --back takes what was migrated back to clsact.
    """
    from netbpf import tcx
    from netbpf.tcx import migrate as migrating

    hooks = (tcx.HOOKS.hook(hook).name,) if hook else migrating.BOTH
    ifindex = ifindex_of(device)
    if settings.dry_run:
        done = migrating.plan(ifindex, hooks, back=back)
        if not back and any(each.moves for each in done):
            _bpffs(mount=False)
    else:
        act = migrating.back if back else migrating.migrate
        done = act(ifindex, hooks, bpffs=_bpffs)
    document: Document = {"migrated": [_document(device, each) for each in done]}
    if settings.dry_run:
        document = {"dry_run": True, **document}
    emit(document, lambda: _say(device, done))


def _bpffs(*, mount: bool = True) -> BpfFs:
    """Where attach pins, with the same words; ``mount``: False only looks."""
    from netbpf.cli.keep import Keeper

    keeper = Keeper("own")
    keeper.prepare(mount=mount)
    assert keeper.fs is not None
    return keeper.fs


def _document(device: str, migration: Migration) -> Document:
    return {
        "device": device,
        "ifindex": migration.ifindex,
        "hook": migration.hook,
        "to": migration.to,
        "revision": migration.revision,
        "entries": [_entry(move) for move in migration.moves],
        "warnings": list(migration.warnings),
    }


def _entry(move: Move) -> Document:
    which = move.filter
    return {
        "position": move.position,
        "prog": {"id": move.prog_id, "name": move.prog_name},
        "link": {"id": move.link_id, "pins": list(move.pins)} if move.link_id else None,
        "filter": {
            "priority": which.priority,
            "handle": which.handle,
            "protocol": which.protocol_name,
            "name": which.name,
        },
    }


def _say(device: str, done: list[Migration]) -> None:
    would = "would move " if settings.dry_run else ""
    for migration in done:
        for warning in migration.warnings:
            note(warning)
        for move in migration.moves:
            program = f"{move.prog_name} (id:{move.prog_id})"
            link = f"link:{move.link_id}" if move.link_id else "a link"
            words = (
                f"from {move.filter} to position {move.position} by {link}"
                if migration.to == "tcx"
                else f"from {link} to {move.filter}"
            )
            say(f"{device} {migration.hook}: {would}{program} {words}")
            for path in move.pins if migration.to == "tcx" else ():
                say(f"pinned at {path}")
    if not any(migration.moves for migration in done):
        back = any(migration.to == "clsact" for migration in done)
        note("no link here was migrated" if back else "no program of cls_bpf is here")
