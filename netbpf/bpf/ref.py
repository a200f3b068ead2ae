"""References: how a program or link that is loaded already is written."""

from __future__ import annotations

import os

from netbpf.records import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    Kind = Literal["id", "name", "tag", "link", "pin"]

_HEX_DIGITS = frozenset("0123456789abcdefABCDEF")


@record(frozen=True, slots=True)
class Ref:
    """One reference: ``id:N``, ``name:NAME``, ``tag:HEX``, ``link:N``, ``pin:PATH``."""

    kind: Kind
    value: str

    @classmethod
    def parse(cls, text: str) -> Ref:
        """Read one reference.

        :raises ValueError: it is none; the message says what was meant, as far as it can be told.
        """
        if not text:
            raise ValueError("an empty reference names nothing")
        if text.isdecimal():
            raise ValueError(f"a bare number says too little: id:{text} or link:{text}?")
        kind, colon, value = text.partition(":")
        match kind:
            case "id" | "link" if colon:
                if not _is_number(value):
                    raise ValueError(f"{text}: {kind}: is followed by a positive number")
                return cls(kind, str(int(value)))
            case "tag" if colon:
                if len(value) != 16 or not _HEX_DIGITS.issuperset(value):
                    raise ValueError(f"{text}: a tag has 16 hexadecimal digits")
                return cls(kind, value.lower())
            case "name" if colon:
                if not value:
                    raise ValueError(f"{text}: name: is followed by a program's name")
                return cls(kind, value)
            case "pin" if colon:
                if not value:
                    raise ValueError(f"{text}: pin: is followed by a path")
                return cls(kind, os.path.abspath(value))
        if "/" in text:
            return cls("pin", os.path.abspath(text))
        raise ValueError(
            f"{text} is no reference: write id:N, name:NAME, tag:HEX, link:N or pin:PATH"
        )

    @property
    def number(self) -> int:
        """The id of an ``id:`` or ``link:`` reference."""
        return int(self.value)

    def __str__(self) -> str:
        return f"{self.kind}:{self.value}"


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 10 and 0 < int(text) < 2**32
