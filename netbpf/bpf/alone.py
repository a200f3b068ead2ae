"""One change of several steps at a time in a network namespace."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from netbpf.errors import ConflictError

_PATIENCE = 30.0
"""Seconds that another one may take: 63 programs on a busy machine take a few."""


@contextmanager
def alone(what: str) -> Iterator[None]:
    """Wait for others that move entries in the caller's network namespace, then keep them waiting.

    Two at once would take each other's steps back. The lock ends with its holder, also when that is
    killed: what is half-made then, nobody is working on.

    :param what: the caller's work, for the error: "move".
    :raises ConflictError: another one goes on for long.
    """
    fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ConflictError(
                        f"{what}: another change of several steps goes on in this network "
                        "namespace",
                        hint="try again when it has ended",
                    ) from None
                time.sleep(0.005)
        yield
    finally:
        os.close(fd)
