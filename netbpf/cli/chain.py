"""The commands that tcx and netkit share: attach, detach, update, and showing a chain."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Annotated

import typer

from netbpf.cli import references
from netbpf.cli.chain_view import pins_of
from netbpf.cli.output import Document, emit, say
from netbpf.cli.settings import settings
from netbpf.errors import ConflictError, NotFoundError

if TYPE_CHECKING:
    from netbpf.bpf.anchor import Anchor
    from netbpf.bpf.chain import Chain
    from netbpf.bpf.mprog import Hooks, Placed
    from netbpf.bpf.prog import ProgramInfo


def devices(incomplete: str) -> list[str]:
    return [name for _, name in socket.if_nameindex() if name.startswith(incomplete)]


def _hooks(ctx: typer.Context) -> Hooks:
    """The hooks of the noun that the command was called by."""
    if ctx.parent is not None and ctx.parent.info_name == "netkit":
        from netbpf import netkit

        return netkit.HOOKS
    from netbpf import tcx

    return tcx.HOOKS


Device = Annotated[str, typer.Argument(metavar="DEV", help="The device.", autocompletion=devices)]
HookName = Annotated[str, typer.Argument(metavar="HOOK", help="Which of the device's chains.")]
Prog = Annotated[
    str,
    typer.Argument(
        metavar="PROG",
        help="FILE.o, FILE.o:NAME, builtin:NAME, id:N, name:NAME, tag:HEX or pin:PATH.",
    ),
]
RefArgument = Annotated[
    str,
    typer.Argument(
        metavar="REF", help="One of the chain: id:N, name:NAME, tag:HEX, link:N or pin:PATH."
    ),
]
Before = Annotated[str | None, typer.Option(metavar="REF", help="Directly before this one.")]
After = Annotated[str | None, typer.Option(metavar="REF", help="Directly after this one.")]
Expected = Annotated[
    int | None,
    typer.Option(
        "--expected-revision",
        metavar="N",
        min=0,
        max=2**64 - 1,
        help="Refuse unless the chain is at this revision.",
    ),
]
Variables = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="VAR=VALUE", help="Set a global of the program before it is loaded."
    ),
]
Old = Annotated[
    str | None,
    typer.Option("--old", metavar="REF", help="Refuse unless this holds the place now."),
]


def ifindex_of(device: str) -> int:
    """The device's ifindex in the namespace where the command runs."""
    try:
        return socket.if_nametoindex(device)
    except OSError as error:
        raise NotFoundError(
            "device",
            device,
            where="in this network namespace",
            hint="netbpf -n NS looks in another",
        ) from error


def remove_defunct_pins(ifindexes: set[int]) -> None:
    """Remove netbpf's own pins of links on devices that are gone from this namespace."""
    from netbpf.bpf import pin as pins

    pins.remove_defunct(os.stat("/proc/thread-self/ns/net").st_ino, ifindexes)


def attach(
    ctx: typer.Context,
    device: Device,
    hook: HookName,
    prog: Prog,
    before: Before = None,
    after: After = None,
    first: Annotated[bool, typer.Option("--first", help="At the start.")] = False,
    last: Annotated[bool, typer.Option("--last", help="At the end (the default).")] = False,
    replace: Annotated[
        str | None,
        typer.Option(metavar="REF", help="In the place of this program, which no link owns."),
    ] = None,
    link: Annotated[
        bool | None,
        typer.Option("--link/--no-link", help="By a bpf_link (the default), or by itself."),
    ] = None,
    pin: Annotated[
        str | None, typer.Option(metavar="PATH", help="Pin the link here instead.")
    ] = None,
    hold: Annotated[
        bool, typer.Option("--hold", help="Keep the link here until Ctrl-C, without a pin.")
    ] = False,
    expected_revision: Expected = None,
    variables: Variables = None,
) -> None:
    """Attach a program to a chain, last unless told otherwise.

    Makes a bpf_link, pinned below /sys/fs/bpf/netbpf so that it stays.
    """
    from netbpf.bpf.anchor import Anchor
    from netbpf.cli.keep import Keeper

    hooks = _hooks(ctx)
    hooks.hook(hook)
    anchor = Anchor(before, after, replace, first, last)
    keeper = Keeper.chosen(link, pin, hold, replacing=replace is not None)
    ifindex = ifindex_of(device)
    if settings.dry_run:
        _would_attach(hooks, ifindex, hook, prog, variables or [], anchor, expected_revision)
        return
    with references.program(prog, variables or [], hooks.hook(hook)) as program:
        keeper.prepare()
        info = program.info()
        placed = hooks.attach(
            ifindex,
            hook,
            program,
            before=before,
            after=after,
            replace=replace,
            first=first,
            last=last,
            link=keeper.by_link,
            expected_revision=expected_revision,
        )
        with keeper.keep(placed.link, device, ifindex, hook, info.name) as pins:
            document = placed_document("attached", device, placed, info, pins)
            emit(document, lambda: _say_attached(device, placed, info, pins))
            keeper.wait()


def detach(
    ctx: typer.Context,
    device: Device,
    hook: HookName,
    ref: RefArgument,
    expected_revision: Expected = None,
) -> None:
    """Take one program out of a chain.

    A link that owns it is detached, whoever else holds it, and netbpf's own pins of it are removed.
    """
    from netbpf.cli.keep import remove_pins

    hooks, ifindex = _hooks(ctx), ifindex_of(device)
    chain = hooks.expected(ifindex, hook, "detach from", expected_revision)
    entry, info = chain.find(ref), None
    if settings.dry_run:
        document = {"dry_run": True, **entry_document("detached", device, chain, entry.position)}
        emit(document, lambda: say(f"would detach {entry} from {device} {hook}"))
        return
    info = entry.program()
    removed = hooks.detach(ifindex, hook, ref, expected_revision=expected_revision)
    pins = remove_pins(removed.entry.link_id, ref) if removed.entry.link_id else []
    link = {"id": removed.entry.link_id, "pins": pins} if removed.entry.link_id else None
    emit(
        {
            "detached": {
                "device": device,
                "ifindex": ifindex,
                "hook": hook,
                "position": removed.entry.position,
                "revision": removed.revision,
                "prog": {"id": removed.entry.prog_id, "name": info.name if info else None},
                "link": link,
            }
        },
        lambda: say(
            f"{device} {hook}: detached {info.name if info else ''} (id:{removed.entry.prog_id}) "
            f"from position {removed.entry.position}, revision {removed.revision}"
        ),
    )


def update(
    ctx: typer.Context,
    device: Device,
    hook: HookName,
    ref: RefArgument,
    prog: Prog,
    old: Old = None,
    expected_revision: Expected = None,
    variables: Variables = None,
) -> None:
    """Exchange a program in its place, atomically: no packet goes unserved."""
    hooks, ifindex = _hooks(ctx), ifindex_of(device)
    if settings.dry_run:
        chain = hooks.expected(ifindex, hook, "update", expected_revision)
        entry = chain.find(ref)
        hooks.check_old(entry, old)
        references.check(prog, variables or [], hooks.hook(hook))
        document = {"dry_run": True, **entry_document("updated", device, chain, entry.position)}
        emit(document, lambda: say(f"would put {prog} in the place of {entry}"))
        return
    with references.program(prog, variables or [], hooks.hook(hook)) as program:
        info = program.info()
        placed = hooks.update(
            ifindex, hook, ref, program, old=old, expected_revision=expected_revision
        )
        pins = pins_of([placed.link_id] if placed.link_id else [])
        document = placed_document("updated", device, placed, info, pins.get(placed.link_id or 0))
        document["updated"]["old_prog"] = {"id": placed.old_prog_id}
        emit(
            document,
            lambda: say(
                f"{device} {hook}: {info.name} (id:{info.id}) at position {placed.position} in the "
                f"place of id:{placed.old_prog_id}, revision {placed.revision}"
            ),
        )


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

    The kernel has no move: the program is taken out and put in again, and does not run for some
    10 to 30 ms in between. A link that somebody else holds is not moved.
    """
    from netbpf.bpf import move as moving
    from netbpf.bpf.anchor import Anchor
    from netbpf.bpf.ref import Ref

    anchor = Anchor(before, after, None, first, last)
    if anchor == Anchor():
        raise ValueError("where to? one of --before, --after, --first and --last is needed")
    hooks, ifindex = _hooks(ctx), ifindex_of(device)
    chain = hooks.chain(ifindex, hook)
    entry = chain.find(ref)
    info = entry.program()
    if settings.dry_run:
        position = moving.landing(chain, entry, anchor)
        document = {"dry_run": True, **entry_document("moved", device, chain, position)}
        emit(document, lambda: say(f"would move {entry} from {entry.position} to {position}"))
        return
    named = Ref.parse(ref)
    moved = moving.move(
        hooks,
        ifindex,
        hook,
        ref,
        anchor,
        named_pin=named.value if named.kind == "pin" else None,
        expected_revision=expected_revision,
    )
    placed = moved.placed
    document = {
        "moved": {
            "device": device,
            "ifindex": ifindex,
            "hook": hook,
            "position": placed.position,
            "old_position": moved.old_position,
            "revision": placed.revision,
            "prog": {"id": placed.prog_id, "name": info.name if info else None},
            "link": {"id": placed.link_id, "pins": list(moved.pins)} if placed.link_id else None,
        }
    }
    emit(
        document,
        lambda: say(
            f"{device} {hook}: {entry.prog_id and (info.name if info else '')} "
            f"(id:{placed.prog_id}) from position {moved.old_position} to {placed.position}, "
            f"revision {placed.revision}"
        ),
    )


def placed_document(
    word: str, device: str, placed: Placed, info: ProgramInfo, pins: list[str] | None
) -> Document:
    """What an attach or update made, as cli.md has it."""
    return {
        word: {
            "device": device,
            "ifindex": placed.ifindex,
            "hook": placed.hook,
            "position": placed.position,
            "revision": placed.revision,
            "prog": {"id": info.id, "name": info.name},
            "link": {"id": placed.link_id, "pins": pins or []} if placed.link_id else None,
        }
    }


def entry_document(word: str, device: str, chain: Chain, position: int) -> Document:
    """The entry that a dry run would change."""
    entry = chain.entries[position]
    info = entry.program()
    return {
        word: {
            "device": device,
            "ifindex": chain.ifindex,
            "hook": chain.hook,
            "position": position,
            "revision": chain.revision,
            "prog": {"id": entry.prog_id, "name": info.name if info else None},
            "link": {"id": entry.link_id, "pins": []} if entry.link_id else None,
        }
    }


def _would_attach(
    hooks: Hooks,
    ifindex: int,
    hook: str,
    prog: str,
    variables: list[str],
    anchor: Anchor,
    expected_revision: int | None,
) -> None:
    name = references.check(prog, variables, hooks.hook(hook))
    chain = hooks.expected(ifindex, hook, "attach to", expected_revision)
    landing = anchor.land(chain)
    if landing.replaced is not None and landing.replaced.link_id is not None:
        raise ConflictError(
            f"position {landing.position} is link:{landing.replaced.link_id}'s, and only the link "
            "may change it",
            hint="update it instead",
        )
    device = socket.if_indextoname(ifindex)
    document: Document = {
        "dry_run": True,
        "attached": {
            "device": device,
            "ifindex": ifindex,
            "hook": hook,
            "position": landing.position,
            "revision": chain.revision,
            "prog": {"id": None, "name": name},
            "link": None,
        },
    }
    emit(
        document,
        lambda: say(f"would attach {name} to {device} {hook} at position {landing.position}"),
    )


def _say_attached(device: str, placed: Placed, info: ProgramInfo, pins: list[str]) -> None:
    how = f" by link:{placed.link_id}" if placed.link_id else ""
    say(
        f"{device} {placed.hook}: {info.name} (id:{info.id}) at position {placed.position}{how}, "
        f"revision {placed.revision}"
    )
    for path in pins:
        say(f"pinned at {path}")
