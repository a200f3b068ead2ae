"""Ctrl-C and SIGTERM while something is changed: what was begun is finished and told."""

from __future__ import annotations

from netbpf import signals

SIGNALS = {signals.SIGINT, signals.SIGTERM}


def uninterrupted() -> _Uninterrupted:
    """Let no interruption in; one that comes meanwhile, or until the process ends, is too late."""
    return _Uninterrupted()


class _Uninterrupted:
    def __enter__(self) -> None:
        self._before = signals.pthread_sigmask(signals.SIG_BLOCK, SIGNALS)

    def __exit__(self, *_: object) -> None:
        # What is pending for an ignored signal is forgotten (kernel/signal.c: do_sigaction).
        for number in SIGNALS:
            signals.signal(number, signals.SIG_IGN)
        signals.pthread_sigmask(signals.SIG_SETMASK, self._before)


def wait() -> None:
    """Inside of ``uninterrupted``: wait for an interruption, which may have come already."""
    # A signal that is ignored would never come, and a shell starts what runs in the background with
    # SIGINT ignored.
    before = {number: signals.signal(number, signals.SIG_DFL) for number in SIGNALS}
    signals.sigwait(SIGNALS)
    for number, handler in before.items():
        signals.signal(number, handler)
