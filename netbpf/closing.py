"""What everything that is open has in common: a ``with`` closes it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self


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
