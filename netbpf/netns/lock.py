"""The lock of /run/netns, which ``ip netns`` takes too."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from netbpf.interrupts import held
from netbpf.netns.names import RUN_DIR

PATIENCE = 10.0
"""Seconds that another one may hold the lock."""


@contextmanager
def run_dir() -> Iterator[int]:
    """A descriptor of /run/netns, to lock it by.

    :raises OSError: it cannot be opened.
    """
    with ExitStack() as stack:
        with held():
            # A descriptor that an interruption left open would keep the lock from everybody.
            folder = os.open(RUN_DIR, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, folder)
        yield folder


@contextmanager
def locked(folder: int, given_up: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Hold the lock while the block runs; keep it short, as others wait for it.

    :raises BlockingIOError: another one has held it for too long, or ``given_up`` says so.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if given_up() or time.monotonic() > deadline:
                raise
            time.sleep(0.002)
    try:
        yield
    finally:
        fcntl.flock(folder, fcntl.LOCK_UN)
