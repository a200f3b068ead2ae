"""What a network namespace may be called, and where names live."""

from __future__ import annotations

import os
from pathlib import Path

RUN_DIR = Path("/run/netns")
"""Where ``ip netns`` keeps its names (it says /var/run/netns, the same folder)."""


def check_name(name: str) -> str:
    """Hand back ``name`` if it can name a namespace.

    :raises ValueError: it is empty, longer than 255 bytes, ``.`` or ``..``, or holds a ``/`` or a
        control character.
    """
    if not name:
        raise ValueError("a namespace needs a name, this one is empty")
    if name in (".", ".."):
        raise ValueError(f"a namespace cannot be called {name!r}")
    if "/" in name:
        raise ValueError(f"a namespace's name cannot hold a '/': {name!r}")
    if any(ord(character) < 32 or ord(character) == 127 for character in name):
        raise ValueError(f"a namespace's name cannot hold control characters: {name!r}")
    if len(os.fsencode(name)) > 255:
        raise ValueError(f"a namespace's name has at most 255 bytes: {name[:20]!r}…")
    return name
