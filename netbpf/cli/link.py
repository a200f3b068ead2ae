"""``netbpf link``: the links of this machine, whatever they attach to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from netbpf.cli.command import ChangingCommand, Command, Group
from netbpf.cli.link_gc import REASONS, gc
from netbpf.cli.namespaces import left_out
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
    """Show links: what they attach, where, who holds them; the defunct ones too, and why."""
    from netbpf.bpf.link import Link
    from netbpf.bpf.owners import link_owners
    from netbpf.bpf.pin import link_pins
    from netbpf.bpf.pin_name import OwnName
    from netbpf.errors import NotFoundError
    from netbpf.plumbing import places

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
    found_at = places.of_links(infos, left_out)
    defunct = {info.id: OwnName.of_any(pins[info.id]) for info in infos if info.defunct}
    reasons = places.reasons({number: name for number, name in defunct.items() if name})
    documents = [
        {
            **_document(info, found_at.get(info.id, (None, None)), pins[info.id], owners[info.id]),
            "reason": reasons.get(info.id),
        }
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
            {**_dry(), "pinned": {"id": number, "pin": path}},
            lambda: say(f"{word} link:{number} at {path}"),
        )


@app.command(cls=ChangingCommand, epilog="Example: netbpf link unpin link:7")
def unpin(
    link: Annotated[
        str, typer.Argument(metavar="LINK", help="A pin's path, or link:N for netbpf's own pins.")
    ],
) -> None:
    """Remove a pin of a link, or netbpf's own pins of it; says whether it was the last holder."""
    from netbpf.bpf import unpin as unpinning
    from netbpf.bpf.ref import Ref

    ref = Ref.parse(f"link:{link}" if link.isdecimal() else link)
    path = unpinning.check_path(ref.value) if ref.kind == "pin" else None
    with open_link(link) as found:
        info = found.info()
        if settings.dry_run:
            going, remaining = unpinning.chosen(info.id, path)
            ended = None if remaining else True
        else:
            done = unpinning.unpin(found, path)
            going, remaining, ended = list(done.removed), done.remaining, done.ended
    removed = [pin.shown for pin in going]
    owners = [{"pid": owner.pid, "comm": owner.comm} for owner in remaining.owners]
    staying = [pin.shown for pin in remaining.pins]
    document = {
        "unpinned": {
            "id": info.id,
            "prog_id": info.prog_id,
            "defunct": info.defunct,
            "pins": removed,
            "remaining": {"pins": staying, "owners": owners},
            "ended": ended,
        }
    }
    emit({**_dry(), **document}, lambda: _say_unpinned(document["unpinned"]))


def _dry() -> Document:
    return {"dry_run": True} if settings.dry_run else {}


def _say_unpinned(done: Document) -> None:
    word = "would remove" if settings.dry_run else "removed"
    for path in done["pins"]:
        say(f"{word} {path}")
    if not done["pins"]:
        say(f"nothing to remove: no pin holds link:{done['id']} any more")
    holders = [*done["remaining"]["pins"]]
    holders += [f"{owner['comm']}[{owner['pid']}]" for owner in done["remaining"]["owners"]]
    number, prog = done["id"], done["prog_id"]
    if done["ended"]:
        gone = "it was defunct" if done["defunct"] else f"its program id:{prog} is detached"
        if settings.dry_run:
            gone = "it is defunct" if done["defunct"] else f"its program id:{prog} is detached then"
        say(f"link:{number} has no other holder: {gone}")
    elif holders:
        say(f"link:{number} stays, held by {', '.join(holders)}")
    else:
        say(f"link:{number} stays, held by what cannot be seen from here")


app.command(cls=ChangingCommand, epilog="Example: netbpf link gc --yes")(gc)


@app.command(cls=ChangingCommand, epilog="Example: netbpf link detach 7")
def detach(link: Id) -> None:
    """Detach a link now, whoever else holds it, and remove netbpf's own pins of it."""
    from netbpf.cli.keep import remove_pins

    with open_link(link) as found:
        info = found.info()
        number = info.id
        # Killed in between, the link ends by itself; the other way round a pin would stay.
        removed = remove_pins(number, f"link:{number}", dry_run=settings.dry_run)
        if not settings.dry_run:
            found.detach()
        word = "would detach" if settings.dry_run else "detached"
        if info.defunct:
            word = "nothing to detach, it is defunct already:"
        emit(
            {
                **_dry(),
                "detached": {"id": number, "pins": removed, "was_defunct": info.defunct},
            },
            lambda: say(f"{word} link:{number}"),
        )


def open_link(text: str) -> Any:
    """The link that was named by number, ``link:N`` or a pin."""
    from netbpf.bpf.bpffs import reach
    from netbpf.bpf.link import Link
    from netbpf.bpf.ref import Ref

    ref = Ref.parse(f"link:{text}" if text.isdecimal() else text)
    match ref.kind:
        case "link":
            return Link.from_id(ref.number)
        case "pin":
            return Link.from_pin(reach(ref.value))
    raise ValueError(f"{text} names a program: a link is link:N or pin:PATH")


def _document(
    info: LinkInfo, place: tuple[str | None, str | None], pins: list[str], owners: list[Any]
) -> Document:
    return {
        "id": info.id,
        "type": info.type_name,
        "prog_id": info.prog_id,
        "device": place[1],
        # Of a defunct link the kernel tells 0.
        "ifindex": info.ifindex or None,
        "netns": (place[0] or (settings.netns if place[1] else None)) or _netns_of(info),
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
                _state(each),
                lines([*each["pins"], *(f"{o['comm']}[{o['pid']}]" for o in each["owners"])]),
            ]
            for each in documents
        ],
    )


def _state(document: Document) -> str:
    if not document["defunct"]:
        return "attached"
    reason = REASONS.get(document["reason"] or "")
    return f"defunct: {reason}" if reason else "defunct"
