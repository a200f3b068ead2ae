"""What a move that was killed leaves in a chain, and clearing it away.

`netbpf.bpf.move` says which steps there are. Killed between two of them, placeholders stay in the
chain, and of a link's pin there are two: the old one and, beside it, that of the new link.
"""

from __future__ import annotations

import os

from netbpf.bpf import pin as pins
from netbpf.bpf.bpffs import reach
from netbpf.bpf.chain import Chain, Entry, program_info
from netbpf.bpf.link import Link
from netbpf.bpf.mprog import Hooks
from netbpf.errors import NetbpfError, NotFoundError

PLACEHOLDER = "netbpf_moving"
"""The name of the program that keeps a place while another one is moved."""

BESIDE = "-moving"
"""What the name of the new link's pin has more than the old one's."""


def is_placeholder(entry: Entry) -> bool:
    """Whether the entry only keeps a place."""
    info = program_info(entry.prog_id)
    return info is not None and info.name == PLACEHOLDER


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
            hooks.detach(chain.ifindex, chain.hook, _exactly(entry))
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
            prog = program_info(info.prog_id)
            if not info.defunct and (prog is None or prog.name != PLACEHOLDER):
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


def _exactly(entry: Entry) -> str:
    return f"link:{entry.link_id}" if entry.link_id else f"id:{entry.prog_id}"
