"""The commands that tcx and netkit share: attach, detach and update."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from netbpf.cli import references, told
from netbpf.cli.chain_view import pins_of
from netbpf.cli.lint import Strict
from netbpf.cli.output import Document, emit, say
from netbpf.cli.program_options import Hold, Old, Pin, Variables
from netbpf.cli.settings import settings
from netbpf.plumbing.packet_path import ifindex_of

if TYPE_CHECKING:
    from netbpf.bpf.chain import Chain, Entry
    from netbpf.bpf.mprog import Hooks, Placed
    from netbpf.bpf.prog import ProgramInfo
    from netbpf.cli.keep import Keeper


def devices(incomplete: str) -> list[str]:
    return [name for _, name in socket.if_nameindex() if name.startswith(incomplete)]


def hooks_of(ctx: typer.Context) -> Hooks:
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
    pin: Pin = None,
    hold: Hold = False,
    expected_revision: Expected = None,
    variables: Variables = None,
    strict: Strict = False,
) -> None:
    """Attach a program to a chain, last unless told otherwise.

    Makes a bpf_link, pinned below /sys/fs/bpf/netbpf so that it stays.
    """
    from netbpf.bpf.anchor import Anchor
    from netbpf.bpf.pin_name import name_for
    from netbpf.cli.keep import Keeper

    hooks = hooks_of(ctx)
    hooks.hook(hook)
    anchor = Anchor(before, after, replace, first, last)
    keeper = Keeper.chosen(link, pin, hold, replacing=replace is not None)
    ifindex = ifindex_of(device)
    expected = told.expected(ifindex, hook, expected_revision)
    if settings.dry_run:
        found = references.check(prog, variables or [], hooks.hook(hook), strict=strict)
        keeper.prepare(mount=False)
        chain = hooks.expected(ifindex, hook, "attach to", expected)
        position = hooks.check_attach(chain, anchor, found[0])
        _would_attach(device, chain, position, found, keeper)
        return
    with references.program(prog, variables or [], hooks.hook(hook), strict=strict) as program:
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
            expected_revision=expected,
        )
        told.now(hooks, ifindex, hook)
        inode = os.stat("/proc/thread-self/ns/net").st_ino
        own_name = partial(name_for, inode, device, ifindex, hook, info.name)
        with keeper.keep(placed.link, own_name) as pins:
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

    hooks, ifindex = hooks_of(ctx), ifindex_of(device)
    expected = told.expected(ifindex, hook, expected_revision)
    chain = hooks.expected(ifindex, hook, "detach from", expected)
    entry = chain.find(ref)
    if settings.dry_run:
        going = remove_pins(entry.link_id, ref, dry_run=True) if entry.link_id else []
        document = {"dry_run": True, **entry_document("detached", device, chain, entry, going)}
        emit(document, lambda: say(f"would detach {entry} from {device} {hook}"))
        return
    info = entry.program()
    pins: list[str] = []
    removed = hooks.detach(
        ifindex,
        hook,
        ref,
        expected_revision=expected,
        let_go=lambda link: pins.extend(remove_pins(link, ref)),
    )
    told.now(hooks, ifindex, hook)
    emit(
        {
            "detached": {
                "device": device,
                "ifindex": ifindex,
                "hook": hook,
                "position": removed.entry.position,
                "revision": removed.revision,
                "prog": {"id": removed.entry.prog_id, "name": info.name if info else None},
                "link": link_document(removed.entry.link_id, pins),
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
    strict: Strict = False,
) -> None:
    """Exchange a program in its place, atomically: no packet goes unserved."""
    hooks, ifindex = hooks_of(ctx), ifindex_of(device)
    expected = told.expected(ifindex, hook, expected_revision)
    if settings.dry_run:
        chain = hooks.expected(ifindex, hook, "update", expected)
        number, name = references.check(prog, variables or [], hooks.hook(hook), strict=strict)
        entry = hooks.check_update(chain, ref, number, old=old)
        pins = pins_of([entry.link_id] if entry.link_id else [])
        document = entry_document("updated", device, chain, entry, pins.get(entry.link_id or 0, []))
        document["updated"] |= {
            "prog": {"id": number, "name": name},
            "old_prog": {"id": entry.prog_id},
        }
        emit(
            {"dry_run": True, **document},
            lambda: say(f"would put {name} in the place of {entry} at position {entry.position}"),
        )
        return
    with references.program(prog, variables or [], hooks.hook(hook), strict=strict) as program:
        info = program.info()
        placed = hooks.update(ifindex, hook, ref, program, old=old, expected_revision=expected)
        told.now(hooks, ifindex, hook)
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
            "link": link_document(placed.link_id, pins or ()),
        }
    }


def entry_document(
    word: str, device: str, chain: Chain, entry: Entry, pins: Iterable[str] = ()
) -> Document:
    """The entry that a dry run would change."""
    return {
        word: {
            "device": device,
            "ifindex": chain.ifindex,
            "hook": chain.hook,
            "position": entry.position,
            "revision": chain.revision,
            "prog": prog_document(entry.prog_id),
            "link": link_document(entry.link_id, pins),
        }
    }


def prog_document(number: int) -> Document:
    """A program of a chain; its name is null where it has gone or may not be looked at."""
    from netbpf.bpf.chain import Entry

    info = Entry(0, number, None).program()
    return {"id": number, "name": info.name if info else None}


def link_document(number: int | None, pins: Iterable[str] = ()) -> Document | None:
    """The link of an entry, null where there is none."""
    return {"id": number, "pins": list(pins)} if number else None


def _would_attach(
    device: str, chain: Chain, position: int, prog: tuple[int | None, str], keeper: Keeper
) -> None:
    number, name = prog
    document: Document = {
        "dry_run": True,
        "attached": {
            "device": device,
            "ifindex": chain.ifindex,
            "hook": chain.hook,
            "position": position,
            "revision": chain.revision,
            "prog": {"id": number, "name": name},
            "link": {"id": None, "pins": keeper.pins} if keeper.by_link else None,
        },
    }
    emit(
        document,
        lambda: say(
            f"would attach {name} to {device} {chain.hook} at position {position} {keeper.words}"
        ),
    )


def _say_attached(device: str, placed: Placed, info: ProgramInfo, pins: list[str]) -> None:
    how = f" by link:{placed.link_id}" if placed.link_id else ""
    say(
        f"{device} {placed.hook}: {info.name} (id:{info.id}) at position {placed.position}{how}, "
        f"revision {placed.revision}"
    )
    for path in pins:
        say(f"pinned at {path}")
