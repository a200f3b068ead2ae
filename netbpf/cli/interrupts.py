"""Ctrl-C and SIGTERM while something is changed: what was begun is finished and told."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = {signal.SIGINT, signal.SIGTERM}


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let no interruption in; one that comes meanwhile has come too late, and is forgotten."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        while late := signal.sigpending() & SIGNALS - before:
            signal.sigwait(late)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def wait() -> None:
    """Inside of ``uninterrupted``: wait for an interruption, which may have come already."""
    # A signal that is ignored would never come, and a shell starts what runs in the background with
    # SIGINT ignored.
    before = {number: signal.signal(number, signal.SIG_DFL) for number in SIGNALS}
    signal.sigwait(SIGNALS)
    for number, handler in before.items():
        signal.signal(number, handler)
