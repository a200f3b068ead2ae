"""``netbpf netns set`` and ``netbpf netns move``: ids of namespaces, and devices between them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from netbpf.cli.command import netns_names
from netbpf.cli.output import emit, note, say
from netbpf.cli.settings import settings

if TYPE_CHECKING:
    from netbpf.plumbing.moving import Moved

_AUTO = "auto"
_ROUTES_SAID = 8
"""A router has thousands through one device; the document has all of them."""

Place = Annotated[
    str,
    typer.Argument(metavar="NAME", help="A name, a path or pid:N.", autocompletion=netns_names),
]


def _movable(incomplete: str) -> list[str]:
    """Devices, and namespaces too: the shell asks for TO as one more of the devices."""
    from netbpf.cli.chain import devices

    return [*devices(incomplete), *netns_names(incomplete)]


def set_(
    name: Place,
    nsid: Annotated[
        str, typer.Option("--nsid", metavar="N|auto", help="The id, or the next free one.")
    ],
) -> None:
    """Give a namespace an id, by which the kernel speaks of it in this one (--netns).

    It has at most one, which stays until either of the two namespaces ends.
    """
    from netbpf.netlink import nsids
    from netbpf.netlink.rtnl import Rtnl
    from netbpf.netns import NetNS

    number = _number(nsid)
    with NetNS.parse(name) as place, Rtnl() as rtnl:
        given = number
        if settings.dry_run:
            nsids.check_assignable(rtnl, place, number)
        else:
            given = nsids.assign(rtnl, place, number)
        document = {"name": place.name, "inode": place.inode, "nsid": given}
    would = "would have" if settings.dry_run else "has"
    words = "the next free id" if given is None else f"id {given}"
    begin = {"dry_run": True} if settings.dry_run else {}
    emit({**begin, "namespace": document}, lambda: say(f"namespace {name} {would} {words}"))


def _number(text: str) -> int | None:
    if text == _AUTO:
        return None
    if not (text.isascii() and text.isdigit() and int(text) < 1 << 31):
        raise ValueError(f"--nsid is a number from 0 to 2147483647 or auto, not {text!r}")
    return int(text)


def move(
    devices: Annotated[
        list[str], typer.Argument(metavar="DEVICE...", help="The devices.", autocompletion=_movable)
    ],
    to: Annotated[
        str,
        typer.Argument(
            metavar="TO", help="Where: a name, a path or pid:N.", autocompletion=netns_names
        ),
    ],
    name: Annotated[
        str | None, typer.Option("--name", metavar="NEW", help="Its name there, from the start.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also a device that a default route goes through.")
    ] = False,
) -> None:
    """Move devices to another namespace, all of them or none.

    They arrive down, without addresses, routes and clsact; their chains of tcx and netkit stay.
    """
    from netbpf.netns import NetNS
    from netbpf.plumbing import moving

    with NetNS.parse(to) as target:
        moved = moving.move(devices, target, name=name, force=force, dry_run=settings.dry_run)
    would = "would move" if settings.dry_run else "moved"
    begin = {"dry_run": True} if settings.dry_run else {}
    documents = [{**asdict(each), "netns": to} for each in moved]

    def render() -> None:
        for each in moved:
            renamed = "" if each.name == each.old_name else f" as {each.name}"
            say(f"{would} {each.old_name} to {to}{renamed}")
            for path in each.pins:
                say(f"pinned at {path}")

    emit({**begin, "moved": documents}, render)
    for each in moved:
        if lost := _lost(each):
            note(f"{each.old_name} loses on the way: {', '.join(lost)}")


def _lost(moved: Moved) -> list[str]:
    lost = ["being up"] if moved.was_up else []
    lost += [f"address {address}" for address in moved.addrs]
    lost += [f"route {route}" for route in moved.routes[:_ROUTES_SAID]]
    if (more := len(moved.routes) - _ROUTES_SAID) > 0:
        lost.append(f"{more} more {'route' if more == 1 else 'routes'}")
    return [*lost, "clsact with its filters"] if moved.had_clsact else lost
