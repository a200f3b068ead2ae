"""``netbpf link``: the links of this machine, whatever they attach to."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Annotated, Any

import typer

from netbpf.cli.command import ChangingCommand, Command, Group
from netbpf.cli.namespaces import each_namespace
from netbpf.cli.output import Document, emit, lines, note, say, table
from netbpf.cli.settings import settings

if TYPE_CHECKING:
    from netbpf.bpf.link import LinkInfo

app = typer.Typer(cls=Group, add_completion=False, help="The bpf_links of this machine.")

Id = Annotated[str, typer.Argument(metavar="ID", help="link:N, its number, or pin:PATH.")]


@app.command(
    cls=Command, epilog="Example: netbpf link show --json | jq '.links[] | select(.defunct)'"
)
def show(
    link: Annotated[str | None, typer.Argument(metavar="ID", help="Only this link.")] = None,
) -> None:
    """Show links: what they attach, where, who holds them; the defunct ones too."""
    from netbpf.bpf.link import Link
    from netbpf.bpf.owners import link_owners
    from netbpf.bpf.pin import link_pins
    from netbpf.errors import NotFoundError

    infos: list[LinkInfo] = []
    if link is not None:
        with open_link(link) as found:
            infos.append(found.info())
    else:
        for number in Link.ids():
            try:
                with Link.from_id(number) as found:
                    infos.append(found.info())
            except NotFoundError:
                # It went while we looked around.
                continue
    ids = [info.id for info in infos]
    pins, owners, places = link_pins(ids), link_owners(ids), _places(infos)
    documents = [
        _document(info, places.get(info.id, (None, None)), pins[info.id], owners[info.id])
        for info in infos
    ]
    emit({"links": documents}, lambda: _table(documents))


@app.command(cls=ChangingCommand, epilog="Example: netbpf link pin 7 /sys/fs/bpf/filter")
def pin(link: Id, path: Annotated[str, typer.Argument(metavar="PATH")]) -> None:
    """Give a link a name on a bpffs, which keeps it."""
    from netbpf.bpf import pin as pins

    with open_link(link) as found:
        number, path = found.id, pins.check(path)
        if not settings.dry_run:
            found.pin(path)
        word = "would pin" if settings.dry_run else "pinned"
        emit(
            {"dry_run": settings.dry_run, "pinned": {"id": number, "pin": path}},
            lambda: say(f"{word} link:{number} at {path}"),
        )


@app.command(cls=ChangingCommand, epilog="Example: netbpf link detach 7")
def detach(link: Id) -> None:
    """Detach a link now, whoever else holds it, and remove netbpf's own pins of it."""
    from netbpf.cli.keep import remove_pins

    with open_link(link) as found:
        number, removed = found.id, []
        if not settings.dry_run:
            found.detach()
            removed = remove_pins(number, f"link:{number}")
        word = "would detach" if settings.dry_run else "detached"
        emit(
            {"dry_run": settings.dry_run, "detached": {"id": number, "pins": removed}},
            lambda: say(f"{word} link:{number}"),
        )


def open_link(text: str) -> Any:
    """The link that was named by number, ``link:N`` or a pin."""
    from netbpf.bpf.link import Link
    from netbpf.bpf.ref import Ref

    ref = Ref.parse(f"link:{text}" if text.isdecimal() else text)
    match ref.kind:
        case "link":
            return Link.from_id(ref.number)
        case "pin":
            return Link.from_pin(ref.value)
    raise ValueError(f"{text} names a program: a link is link:N or pin:PATH")


def _places(infos: list[LinkInfo]) -> dict[int, tuple[str | None, str]]:
    """The namespace and device of each link in a chain.

    The kernel tells an ifindex without its namespace, so every chain at that ifindex is asked
    whether the link is in it.
    """
    from netbpf import netkit, tcx
    from netbpf.errors import NetbpfError

    rooms = {"tcx": tcx.HOOKS, "netkit": netkit.HOOKS}
    wanted = [info for info in infos if info.type_name in rooms and not info.defunct]
    found: dict[int, tuple[str | None, str]] = {}
    if not wanted:
        return found
    for netns in each_namespace(True):
        devices = dict(socket.if_nameindex())
        for info in wanted:
            name = devices.get(info.ifindex or 0)
            if name is None or info.id in found:
                continue
            try:
                chain = rooms[info.type_name].chain(info.ifindex or 0, info.hook or "")
            except NetbpfError:
                # The device of that number is of another kind here, or has just gone.
                continue
            if chain.with_link(info.id):
                found[info.id] = (netns, name)
    return found


def _document(
    info: LinkInfo, place: tuple[str | None, str | None], pins: list[str], owners: list[Any]
) -> Document:
    return {
        "id": info.id,
        "type": info.type_name,
        "prog_id": info.prog_id,
        "device": place[1],
        "ifindex": info.ifindex,
        "netns": place[0] or _netns_of(info),
        "hook": info.hook,
        "defunct": info.defunct,
        "pins": pins,
        "owners": [{"pid": owner.pid, "comm": owner.comm} for owner in owners],
    }


def _netns_of(info: LinkInfo) -> str | None:
    """The namespace that a netns link attaches to, by name or else by inode."""
    if not info.netns_inode:
        return None
    from netbpf import netns

    return netns.name_of(info.netns_inode) or f"inode:{info.netns_inode}"


def _table(documents: list[Document]) -> None:
    if not documents:
        note("there are no links")
        return
    table(
        ["ID", "TYPE", "PROG", "DEVICE", "HOOK", "STATE", "PINS, OWNERS"],
        [
            [
                each["id"],
                each["type"],
                each["prog_id"],
                ":".join(filter(None, (each["netns"], each["device"]))) or each["ifindex"] or None,
                each["hook"],
                "defunct" if each["defunct"] else "attached",
                lines([*each["pins"], *(f"{o['comm']}[{o['pid']}]" for o in each["owners"])]),
            ]
            for each in documents
        ],
    )
