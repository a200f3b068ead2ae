"""What everything that is open has in common: a ``with`` closes it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self, TypeVar

    One = TypeVar("One", bound="Closing")


class Closing:
    """Something open, closed by ``close`` or by leaving its ``with`` block."""

    __slots__ = ()

    def close(self) -> None:
        """Let go of it; a second call does nothing."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Several(Closing):
    """Open things that are closed together, the last one first, each of them whatever happens."""

    __slots__ = ("_open",)

    def __init__(self) -> None:
        self._open: list[Closing] = []

    def add(self, one: One) -> One:
        """Own one more."""
        self._open.append(one)
        return one

    def close(self) -> None:
        """Close all of them; they may be followed by others."""
        while self._open:
            try:
                self._open.pop().close()
            except BaseException:
                self.close()
                raise
