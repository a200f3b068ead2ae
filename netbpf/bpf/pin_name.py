"""What netbpf calls its own pins of links, so that a pin says where its link was attached."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from netbpf.records import record


def name_for(netns_inode: int, device: str, ifindex: int, hook: str, prog: str, link: int) -> str:
    """The name of netbpf's own pin of a link at a device.

    The namespace's inode and the ifindex tell equal device names apart and survive a rename; the
    device's and program's names are for people.
    """
    return _joined(f"net{netns_inode}", device, str(ifindex), hook, prog, str(link))


def name_for_netns(netns_inode: int, hook: str, prog: str, link: int) -> str:
    """The name of netbpf's own pin of a link at a namespace itself."""
    return _joined(f"net{netns_inode}", hook, prog, str(link))


def _joined(*parts: str) -> str:
    return "_".join(re.sub(r"[^A-Za-z0-9-]", "-", part) for part in parts)


@record(frozen=True, slots=True)
class OwnName:
    """What the name of netbpf's own pin of a link says: where the link was attached, and by what.

    ``device``, ``hook`` and ``prog`` have a ``-`` for what no pin's name can hold. ``device`` and
    ``ifindex`` are None where the namespace itself is the place.
    """

    netns_inode: int
    device: str | None
    ifindex: int | None
    hook: str
    prog: str
    link: int

    @classmethod
    def parse(cls, name: str) -> OwnName | None:
        """Read a name that ``name_for`` or ``name_for_netns`` made; None: they made another."""
        number = r"([1-9][0-9]{0,9})"
        word = r"([A-Za-z0-9-]*)"
        pattern = f"net{number}_(?:{word}_{number}_)?{word}_{word}_{number}"
        if not (match := re.fullmatch(pattern, name, re.ASCII)):
            return None
        inode, device, ifindex, hook, prog, link = match.groups()
        number_of = None if ifindex is None else int(ifindex)
        return cls(int(inode), device, number_of, hook, prog, int(link))

    @classmethod
    def of_any(cls, paths: Iterable[str]) -> OwnName | None:
        """What the first of these pins says that has such a name."""
        names = (cls.parse(os.path.basename(path)) for path in paths)
        return next((name for name in names if name), None)
