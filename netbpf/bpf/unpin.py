"""Taking pins away from a link, and what becomes of it then."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from netbpf.bpf import pin as pins
from netbpf.bpf.bpffs import reach
from netbpf.bpf.link import Link
from netbpf.bpf.owners import Owner, link_owners
from netbpf.bpf.pin import Pin
from netbpf.errors import NetbpfError, NotFoundError

_PATIENCE = 2.0
"""Seconds that the kernel may take to end a link whose last pin is gone."""


@dataclass(frozen=True, slots=True)
class Holders:
    """Who keeps a link: its pins, and the processes that hold it open, without this one."""

    pins: tuple[Pin, ...]
    owners: tuple[Owner, ...]

    def __bool__(self) -> bool:
        return bool(self.pins or self.owners)


@dataclass(frozen=True, slots=True)
class Unpinned:
    """A link that lost pins: those removed, who holds it still, and whether it ended."""

    link_id: int
    prog_id: int
    removed: tuple[Pin, ...]
    remaining: Holders
    ended: bool


def holders(link_id: int) -> Holders:
    """Who keeps the link: all that this process may see, itself not counted."""
    owners = [owner for owner in link_owners([link_id])[link_id] if owner.pid != os.getpid()]
    found = [pin for pin in pins.scan() if pin.link is not None and pin.id == link_id]
    return Holders(tuple(found), tuple(owners))


def chosen(link_id: int, path: str | None = None) -> tuple[list[Pin], Holders]:
    """The pins of a link that ``unpin`` would remove, and who holds it afterwards.

    :param path: only this pin; None: those below netbpf's own folder.
    :raises NotFoundError: there is none.
    """
    found = holders(link_id)
    going = [pin for pin in found.pins if (pin.own if path is None else _is_at(pin, path))]
    if path is not None and not going:
        # On a bpffs that this process reaches only by that path.
        going = [Pin(path, path, False, Link.kind, link_id, None)]
    if not going:
        others = ", ".join(pin.shown for pin in found.pins)
        raise NotFoundError(
            "pin of netbpf's own",
            f"of link:{link_id}",
            hint=f"another's is removed by its path: {others}" if others else "it has no pin",
        )
    staying = tuple(pin for pin in found.pins if pin not in going)
    return going, Holders(staying, found.owners)


def unpin(link: Link, path: str | None = None) -> Unpinned:
    """Remove a link's pin at ``path``, or netbpf's own pins of it; ``link`` is closed.

    A link ends with its last holder, and its program is detached then. A pin that somebody
    exchanged meanwhile stays.

    :raises NotFoundError: there is no such pin of this link.
    :raises BpfError: a pin cannot be removed.
    """
    with link:
        info = link.info()
        going, remaining = chosen(info.id, path)
    removed = tuple(pin for pin in going if pins.remove_exactly(pin))
    return Unpinned(info.id, info.prog_id, removed, remaining, _ends(info.id, remaining))


def check_path(path: str) -> str:
    """``path`` made absolute, and as this process gets there, if it can be a pin.

    :raises NetbpfError: it is a folder, or a way to another place.
    """
    path = reach(os.path.abspath(path))
    if os.path.islink(path):
        raise NetbpfError(
            f"{path} is a symbolic link",
            code="not_a_pin",
            hint=f"name the pin itself, {os.path.realpath(path)}",
        )
    if os.path.isdir(path):
        raise NetbpfError(f"{path} is a folder", code="not_a_pin", hint="name one pin in it")
    return path


def _is_at(pin: Pin, path: str) -> bool:
    if path in (pin.path, pin.shown):
        return True
    if os.path.basename(path) != os.path.basename(pin.path):
        return False
    try:
        # The same folder by another way: a second mount of the same bpffs.
        return os.path.samefile(os.path.dirname(path), os.path.dirname(pin.path))
    except OSError:
        return False


def _ends(link_id: int, remaining: Holders) -> bool:
    """Whether the link is gone; where nobody is seen to hold it, soon is good enough.

    The kernel drops what a pin held after an RCU grace period (kernel/bpf/inode.c: bpf_free_inode)
    and frees the link by a work of its own (kernel/bpf/syscall.c: bpf_link_put).
    """
    deadline = time.monotonic() + (0 if remaining else _PATIENCE)
    while True:
        try:
            Link.from_id(link_id).close()
        except NotFoundError:
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
