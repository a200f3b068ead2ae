"""Marks on devices that are not finished: a group number says that one is being made or deleted.

A group is the one thing besides a name that the kernel takes together with a new device, so there
is no moment in which a device is there and not marked. Its number is ours by its upper bits; the
lower ones are drawn at random. Whoever makes devices holds a socket of that number in the network
namespace, which goes with the process, also when it is killed.
"""

from __future__ import annotations

import errno
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

Unfinished = Literal["add", "del"]

_OURS = 0x6E
_SHIFT = 23
_DEL = 1 << (_SHIFT - 1)


def meaning(group: int) -> Unfinished | None:
    """What is being done to a device of this group; None: nothing, the group is somebody's own."""
    if group >> _SHIFT != _OURS:
        return None
    return "del" if group & _DEL else "add"


@contextmanager
def making() -> Iterator[int]:
    """A group for devices that are made in the block, in the namespace of the calling thread."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as holder:
        while True:
            group = _OURS << _SHIFT | secrets.randbelow(_DEL)
            try:
                holder.bind(_address(group))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                break
        yield group


def deleting() -> int:
    """A group for devices that are to be deleted at once.

    Drawn anew each time. Even a second one that draws the same number, one in four million, would
    only find devices in it that their owner wants deleted.
    """
    return _OURS << _SHIFT | _DEL | secrets.randbelow(_DEL)


def is_held(group: int) -> bool:
    """Whether whoever makes devices of this group, in this thread's namespace, is still at it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as asking:
        try:
            asking.connect(_address(group))
        except ConnectionRefusedError:
            return False
    return True


def _address(group: int) -> str:
    # An abstract address: no file, and known in one network namespace only.
    return f"\0netbpf-making-{group:x}"
