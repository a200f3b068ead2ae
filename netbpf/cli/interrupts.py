"""Ctrl-C and SIGTERM while something is changed: what was begun is finished and told."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = {signal.SIGINT, signal.SIGTERM}


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let no interruption in; one that comes meanwhile, or until the process ends, is too late."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        # What is pending for an ignored signal is forgotten (kernel/signal.c: do_sigaction).
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def wait() -> None:
    """Inside of ``uninterrupted``: wait for an interruption, which may have come already."""
    # A signal that is ignored would never come, and a shell starts what runs in the background with
    # SIGINT ignored.
    before = {number: signal.signal(number, signal.SIG_DFL) for number in SIGNALS}
    signal.sigwait(SIGNALS)
    for number, handler in before.items():
        signal.signal(number, handler)
