"""``netbpf link gc``: what was left behind, listed or removed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from netbpf.cli import exit_status
from netbpf.cli.namespaces import left_out
from netbpf.cli.output import Document, emit, note, table
from netbpf.cli.settings import settings

if TYPE_CHECKING:
    from netbpf.plumbing.gc import Garbage

REASONS = {
    "detached": "it was detached",
    "device_gone": "its device is gone",
    "netns_gone": "its namespace is gone",
}
"""Why a link is defunct, in words."""


def gc(
    everybodys: Annotated[
        bool, typer.Option("--all", help="Defunct pins and doubles of others too.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove what is listed.")] = False,
) -> None:
    """List pins that hold nothing any more and programs that run twice; with --yes remove them.

    Only netbpf's own, below /sys/fs/bpf/netbpf.
    """
    from netbpf.plumbing import gc as collecting

    found = collecting.find(everybodys=everybodys, left_out=left_out)
    garbage = list(found.garbage)
    removing = yes and not settings.dry_run
    if removing:
        garbage = collecting.remove(garbage)
    if found.unseen:
        links = sorted({pin.id for pin in found.unseen})
        shown = ", ".join(f"link:{number}" for number in links[:8])
        note(
            f"attached in a namespace that cannot be seen from here, and left alone: {shown}"
            + (f" and {len(links) - 8} more" if len(links) > 8 else "")
        )
    documents = [_document(each) for each in garbage]
    dry = {"dry_run": True} if settings.dry_run else {}
    emit({**dry, "garbage": documents}, lambda: _table(garbage, documents, removing))
    refused = [each for each in garbage if each.refused is not None]
    for each in refused:
        note(f"left {each.path}: {each.refused}")
    if refused and refused[0].refused is not None:
        raise typer.Exit(exit_status.of(refused[0].refused))


def _document(each: Garbage) -> Document:
    """One thing as cli.md has it; of a defunct link the kernel tells no place any more."""
    chain = each.place.chain if each.place else None
    named = each.pin.name if each.pin and each.kind == "defunct_pin" else None
    link_id = each.entry.link_id if each.entry else each.link and each.link.id
    link_type = each.link.type_name if each.link else each.place and each.place.kind
    return {
        "kind": each.kind,
        "pin": each.path,
        "link": {"id": link_id, "type": link_type} if link_id else None,
        "prog": {
            "id": each.prog_id,
            "name": each.prog.name if each.prog else None,
            "tag": each.prog.tag if each.prog else None,
        }
        if each.prog_id
        else None,
        "device": each.place.device if each.place else named and named.device,
        "ifindex": chain.ifindex if chain else named and named.ifindex,
        "hook": chain.hook if chain else each.link and each.link.hook,
        "netns": (each.place.netns or settings.netns) if each.place else None,
        "position": each.entry.position if each.entry else None,
        "first": each.first.position if each.first else None,
        "reason": each.reason,
        "removed": each.removed,
    }


def _table(garbage: list[Garbage], documents: list[Document], removing: bool) -> None:
    if not garbage:
        note("there is nothing to clear away")
        return
    columns = ["KIND", "WHY", "DEVICE", "HOOK", "PROG", "LINK", "PIN"]
    rows = [
        [
            document["kind"].replace("_", " "),
            _why(document),
            ":".join(filter(None, (document["netns"], document["device"]))) or None,
            document["hook"],
            document["prog"] and (document["prog"]["name"] or document["prog"]["id"]),
            document["link"] and document["link"]["id"],
            document["pin"],
        ]
        for document in documents
    ]
    if removing:
        columns.append("REMOVED")
        for row, each in zip(rows, garbage, strict=True):
            row.append("yes" if each.removed else "no")
    table(columns, rows)
    if not removing:
        note("nothing was removed: --yes does it")


def _why(document: Document) -> str:
    match document["kind"]:
        case "double":
            return f"at {document['position']} the same as at {document['first']}"
        case "no_chain":
            return "its program is in no chain"
        case "unfinished_move":
            return "a move was killed, or goes on"
        case "empty_folder":
            return "nothing is in it"
    return REASONS.get(document["reason"] or "", "its link is attached to nothing")
