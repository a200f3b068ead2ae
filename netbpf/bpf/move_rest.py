"""What a move that was killed leaves in a chain, and clearing it away.

`netbpf.bpf.move` says which steps there are. Killed between two of them, placeholders stay in the
chain, and of a link's pin there are two: the old one and, beside it, that of the new link.
"""

from __future__ import annotations

import os
import struct
from functools import cache

from netbpf.bpf import pin as pins
from netbpf.bpf import uapi
from netbpf.bpf.bpffs import reach
from netbpf.bpf.chain import Chain, Entry, program_info
from netbpf.bpf.link import Link
from netbpf.bpf.mprog import Hooks
from netbpf.bpf.prog import Program, ProgramInfo, load
from netbpf.errors import NetbpfError, NotFoundError

PLACEHOLDER = "netbpf_moving"
"""The name of the program that keeps a place while another one is moved."""

BESIDE = "-moving"
"""What the name of the new link's pin has more than the old one's."""


# r0 = -1; exit: TCX_NEXT and NETKIT_NEXT.
_NEXT = struct.pack("=BBhi", 0xB7, 0, 0, -1) + struct.pack("=BBhi", 0x95, 0, 0, 0)


def placeholder() -> Program:
    """A program that keeps a place, and goes on to the next."""
    return load(uapi.BPF_PROG_TYPE_SCHED_CLS, _NEXT, name=PLACEHOLDER)


def is_placeholder(entry: Entry) -> bool:
    """Whether the entry only keeps a place."""
    return _keeps_place(program_info(entry.prog_id))


def _keeps_place(info: ProgramInfo | None) -> bool:
    # Anybody may give a program that name: the instructions have to be ours too.
    return info is not None and info.name == PLACEHOLDER and info.tag == _tag()


@cache
def _tag() -> str:
    with placeholder() as made:
        return made.info().tag


def clear(hooks: Hooks, chain: Chain) -> bool:
    """Finish what a killed move began, or take it back; whether there was anything.

    To be called by who is `netbpf.bpf.alone.alone`: nobody is moving then. The program that was
    moved is where it was or where it should go; only when the move was killed in the microseconds
    between its two exchanges, it is gone.
    """
    paths = pins.link_pins([entry.link_id for entry in chain.entries if entry.link_id])
    found = False
    for entry in chain.entries:
        for path in map(reach, paths.get(entry.link_id or 0, [])):
            if path.endswith(BESIDE) and not is_placeholder(entry):
                found |= _take_name(path)
    for entry in chain.entries:
        if not is_placeholder(entry):
            continue
        found = True
        for path in map(reach, paths.get(entry.link_id or 0, [])):
            _remove(path, entry)
        try:
            hooks.detach(chain.ifindex, chain.hook, exactly(entry))
        except NotFoundError:
            # It went with its last pin, or with what was renamed over that.
            continue
    return found


def _take_name(path: str) -> bool:
    """Let the new link's pin have its name, if the old link has nothing to do any more."""
    name = path.removesuffix(BESIDE)
    try:
        with Link.from_pin(name) as old:
            info = old.info()
            if not info.defunct and not _keeps_place(program_info(info.prog_id)):
                return False
            old.detach()
    except NotFoundError:
        if not pins.is_own(path):
            return False
    except NetbpfError:
        # Somebody's pin that only looks like one of ours.
        return False
    os.rename(path, name)
    return True


def _remove(path: str, entry: Entry) -> None:
    """Remove a pin, if it still is one of the entry's link."""
    try:
        with Link.from_pin(path) as link:
            if link.id == entry.link_id:
                pins.remove(path)
    except NotFoundError:
        pass


def exactly(entry: Entry) -> str:
    """The reference to this entry and to nothing else."""
    return f"link:{entry.link_id}" if entry.link_id else f"id:{entry.prog_id}"
