"""What ``netbpf netns show`` tells of a namespace: which are found, and the chains in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from netbpf.cli.output import lines, note

if TYPE_CHECKING:
    from netbpf.netns import Namespace, NetNS


def found(name: str | None) -> list[Namespace]:
    """All namespaces that can be seen, or the one that is written so."""
    from netbpf.netns import Namespace, NetNS, scan

    if name is None:
        return scan()
    with NetNS.parse(name) as place:
        for each in scan():
            if each.inode == place.inode:
                return [each]
        # Held by what cannot be seen from here.
        return [Namespace(place.inode, paths=(name,))]


class ChainLooker:
    """Looks for chains in one namespace after the other, and tells once if nobody may look."""

    def __init__(self) -> None:
        self._refused = False

    def chains(self, place: NetNS) -> list[dict[str, Any]]:
        """The chains that hold programs, as cli.md has them."""
        from dataclasses import asdict

        from netbpf import netns
        from netbpf.errors import BpfError
        from netbpf.plumbing import inventory

        if self._refused:
            return []
        try:
            return [asdict(each) for each in netns.run_in(place, inventory.chains)]
        except BpfError as error:
            note(f"chains are not shown: {error}")
            self._refused = True
            return []


def chains_cell(found: list[dict[str, Any]]) -> str | None:
    """The chains for the table: a line for each."""
    words = []
    for each in found:
        count = each["programs"]
        programs = f"{count} program{'s' if count > 1 else ''}"
        words.append(f"{each['device']} {each['hook']}: {programs}, revision {each['revision']}")
    return lines(words)
