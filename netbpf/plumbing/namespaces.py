"""Deleting namespaces with what netbpf has pinned of them."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass

from netbpf import netns
from netbpf.bpf import pin as pins
from netbpf.errors import KernelError, NotFoundError
from netbpf.netns import NetNS

_PATIENCE = 3.0
"""Seconds that the kernel may take to end a namespace (net/core/net_namespace.c: cleanup_net)."""


@dataclass(frozen=True, slots=True)
class Deleted:
    """What went: names, and netbpf's own pins; ``staying`` are those of links that live on."""

    names: tuple[str, ...]
    pins: tuple[str, ...] = ()
    staying: tuple[str, ...] = ()


def delete(*names: str) -> Deleted:
    """Remove these names, and netbpf's own pins of links in the namespaces that end with them.

    A namespace lives on while a process, a descriptor or another mount holds it, and so do its
    links: their pins stay. Waits for the kernel to end the others only where there are such pins.

    :raises NotFoundError, KernelError: as ``netns.delete``; the names before it are removed.
    """
    inodes = set()
    for name in names:
        # A file that an interrupted add left is a name too, of no namespace; a link may lead to
        # one of a process that is not ours to look into.
        with suppress(NotFoundError, KernelError), NetNS.from_name(name) as ns:
            inodes.add(ns.inode)
    pinned = {pin.name.netns_inode for pin in pins.own_in(inodes) if pin.name}
    gone: list[str] = []
    try:
        for name in names:
            netns.delete(name)
            gone.append(name)
    finally:
        removed = _remove_defunct(pinned) if gone else []
    staying = [pin.shown for pin in pins.own_in(pinned)]
    return Deleted(tuple(gone), tuple(removed), tuple(staying))


def _remove_defunct(inodes: set[int]) -> list[str]:
    removed: list[str] = []
    waiting = set(inodes)
    deadline = time.monotonic() + _PATIENCE
    while waiting:
        removed += [path for inode in waiting for path in pins.remove_defunct(inode)]
        waiting = {pin.name.netns_inode for pin in pins.own_in(waiting) if pin.name}
        # After the look at the pins: the number of one that is gone may be given to a new one.
        if waiting:
            waiting -= {found.inode for found in netns.scan()}
        if time.monotonic() > deadline:
            break
        if waiting:
            time.sleep(0.01)
    return removed
