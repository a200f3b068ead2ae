"""A bpffs of the test's own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from netbpf import libc


@contextmanager
def bpffs(folder: Path) -> Iterator[Path]:
    """Mount a fresh bpffs on ``folder``; its pins go with it."""
    folder.mkdir(exist_ok=True)
    libc.mount("bpf", os.fspath(folder), "bpf")
    try:
        yield folder
    finally:
        libc.umount(os.fspath(folder), libc.MNT_DETACH)
