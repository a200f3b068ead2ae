"""``netbpf link``: the links of this machine, whatever they attach to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from netbpf.cli.command import ChangingCommand, Command
from netbpf.cli.output import Document, emit, note, say, table
from netbpf.cli.settings import settings

if TYPE_CHECKING:
    from netbpf.bpf.link import LinkInfo

app = typer.Typer(no_args_is_help=True, help="The bpf_links of this machine.")

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
    pins, owners = link_pins(ids), link_owners(ids)
    documents = [_document(info, pins[info.id], owners[info.id]) for info in infos]
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


def _document(info: LinkInfo, pins: list[str], owners: list[Any]) -> Document:
    from netbpf.bpf.mprog_refusal import device_name

    name = device_name(info.ifindex) if info.ifindex else None
    return {
        "id": info.id,
        "type": info.type_name,
        "prog_id": info.prog_id,
        # The kernel gives an ifindex without its namespace: the name is the one it has here.
        "device": None if name is None or name.startswith("ifindex") else name,
        "ifindex": info.ifindex,
        "netns": str(info.netns_inode) if info.netns_inode else None,
        "hook": info.hook,
        "defunct": info.defunct,
        "pins": pins,
        "owners": [{"pid": owner.pid, "comm": owner.comm} for owner in owners],
    }


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
                each["device"] or each["ifindex"],
                each["hook"],
                "defunct" if each["defunct"] else "attached",
                "\n".join([*each["pins"], *(f"{o['comm']}[{o['pid']}]" for o in each["owners"])])
                or None,
            ]
            for each in documents
        ],
    )
