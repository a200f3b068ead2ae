"""Where the pins lie that a command is asked for: the bpffs that outlives it."""

from __future__ import annotations

import os

from netbpf.bpf.bpffs import MOUNT, BpfFs, lasting
from netbpf.cli.output import note


def settle(path: str, *, mount: bool = True) -> tuple[str, BpfFs | None]:
    """Where this process gets to ``path``, and the bpffs when it is the one of custom.

    :param mount: False only looks; a bpffs that would have to be mounted is returned as such.
    :raises NetbpfError: that bpffs goes when this command ends.
    """
    path = os.path.abspath(path)
    if not f"{path}/".startswith(f"{MOUNT}/"):
        return path, None
    fs = lasting(mount=mount)
    return fs.path + path.removeprefix(MOUNT), fs


def shown(path: str, fs: BpfFs | None) -> str:
    """``path`` as the bpffs' own mount namespace has it."""
    if fs is not None and path.startswith(fs.path):
        return fs.shown + path.removeprefix(fs.path)
    return path


def tell(fs: BpfFs | None, *, mount: bool = True) -> None:
    """Note what is special about the bpffs; ``mount``: as for ``settle``."""
    if fs is not None and fs.mounted:
        note(f"{'mounted' if mount else 'would mount'} a bpffs on {MOUNT}")
    if fs is not None and fs.holder is not None:
        note(f"this bpffs goes when process {fs.holder} ends: it has its own mounts")
