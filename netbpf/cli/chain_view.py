"""Chains as a document and as a table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from netbpf.cli.output import Document, emit, lines, note, table

if TYPE_CHECKING:
    from netbpf.bpf.chain import Chain


def show_chains(chains: Iterable[tuple[str | None, str, Chain]], *, empty: bool = False) -> None:
    """Print chains, each with its namespace and device; the empty ones only where ``empty``."""
    listed = [item for item in chains if empty or item[2].entries]
    links = [e.link_id for _, _, chain in listed for e in chain.entries if e.link_id]
    pins, owners = pins_of(links), _owners(links)
    documents = []
    for netns, device, chain in listed:
        entries = []
        for entry in chain.entries:
            info = entry.program()
            entries.append(
                {
                    "position": entry.position,
                    "prog": {
                        "id": entry.prog_id,
                        "name": info.name if info else None,
                        "tag": info.tag if info else None,
                        "type": info.type_name if info else None,
                    },
                    "link": {
                        "id": entry.link_id,
                        "pins": pins[entry.link_id],
                        "owners": [
                            {"pid": owner.pid, "comm": owner.comm}
                            for owner in owners[entry.link_id]
                        ],
                    }
                    if entry.link_id
                    else None,
                }
            )
        documents.append(
            {
                "netns": netns,
                "device": device,
                "ifindex": chain.ifindex,
                "hook": chain.hook,
                "revision": chain.revision,
                "entries": entries,
            }
        )
    emit({"chains": documents}, lambda: _chain_table(documents))


def _chain_table(documents: list[Document]) -> None:
    if not documents:
        note("no programs are attached here")
        return
    rows: list[list[object]] = []
    for chain in documents:
        place = f"{chain['netns']}:{chain['device']}" if chain["netns"] else chain["device"]
        head: list[object] = [place, chain["hook"], chain["revision"]]
        if not chain["entries"]:
            rows.append([*head, "-", "(empty)", "", "", "", ""])
        for entry in chain["entries"]:
            prog, link = entry["prog"], entry["link"]
            holders = [f"{o['comm']}[{o['pid']}]" for o in link["owners"]] if link else []
            rows.append(
                [
                    *head,
                    entry["position"],
                    prog["name"],
                    prog["id"],
                    prog["tag"],
                    link and link["id"],
                    link and lines([*link["pins"], *holders]),
                ]
            )
            head = ["", "", ""]
    table(["DEVICE", "HOOK", "REV", "POS", "PROG", "ID", "TAG", "LINK", "PINS, OWNERS"], rows)


def pins_of(links: list[int]) -> dict[int, list[str]]:
    """Where each of these links is pinned."""
    if not links:
        return {}
    from netbpf.bpf.pin import link_pins

    return link_pins(links)


def _owners(links: list[int]) -> dict[int, list[Any]]:
    if not links:
        return {}
    from netbpf.bpf.owners import link_owners

    return link_owners(links)
