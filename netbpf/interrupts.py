"""Holding Ctrl-C and SIGTERM back while something is made that nobody owns yet."""

from __future__ import annotations

from netbpf import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def held() -> _Held:
    """Let SIGINT and SIGTERM wait until the block is left, then deliver them as if they came then.

    Put the call that makes something and the assignment that owns it into the block, and the block
    into a ``try`` that takes it back: then an interruption comes either before or after, never
    between. Keep the block short, a hung kernel call in it cannot be interrupted. Outside the main
    thread, where Python handles no signals, this does nothing.
    """
    return _Held()


class _Held:
    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._came: list[int] = []

    def __enter__(self) -> None:
        for number in (signals.SIGINT, signals.SIGTERM):
            handler = signals.getsignal(number)
            # None: installed by C code, not ours to put back. SIG_IGN: nothing would come.
            if handler is None or handler == signals.SIG_IGN:
                continue
            self._before[number] = handler
            try:
                signals.signal(number, lambda number, _: self._came.append(number))
            except ValueError:
                # Another thread than the main one: nothing was changed.
                self._before.clear()
                return

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signals.signal(number, handler)
        for late in dict.fromkeys(self._came):
            signals.raise_signal(late)
