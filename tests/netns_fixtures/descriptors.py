"""Open descriptors before and after: what a test leaked."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def open_descriptors() -> dict[int, str]:
    """The open descriptors of this process and what each refers to."""
    found = {}
    folder = Path("/proc/self/fd")
    for entry in folder.iterdir():
        try:
            found[int(entry.name)] = os.fspath(entry.readlink())
        except FileNotFoundError:
            # The one that listed the folder.
            continue
    return found


@contextmanager
def none_leaked() -> Iterator[None]:
    """Fail when the block leaves more descriptors open than it found."""
    before = open_descriptors()
    yield
    after = open_descriptors()
    if after.keys() - before.keys():
        # A descriptor in a cycle is not leaked, only late.
        gc.collect()
        after = open_descriptors()
    leaked = {fd: after[fd] for fd in after.keys() - before.keys()}
    assert not leaked, f"leaked descriptors: {leaked}"
