"""Holding Ctrl-C and SIGTERM back while something is made that nobody owns yet."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def held() -> Iterator[None]:
    """Let SIGINT and SIGTERM wait until the block is left, then deliver them as if they came then.

    Put the call that makes something and the assignment that owns it into the block, and the block
    into a ``try`` that takes it back: then an interruption comes either before or after, never
    between. Keep the block short, a hung kernel call in it cannot be interrupted. Outside the main
    thread, where Python handles no signals, this does nothing.
    """
    # By number: asking for a thread that `threading` does not know makes an object for good.
    if threading.get_ident() != threading.main_thread().ident:
        yield
        return
    came: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        came.append(number)

    before = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        handler = signal.getsignal(number)
        # None: installed by C code, not ours to put back. SIG_IGN: nothing would come.
        if handler is not None and handler is not signal.SIG_IGN:
            before[number] = handler
            signal.signal(number, remember)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for late in dict.fromkeys(came):
            signal.raise_signal(late)
