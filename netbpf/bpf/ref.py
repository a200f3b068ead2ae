"""References: how a program or link that is loaded already is written."""

from __future__ import annotations

import os
import re
from typing import Literal

from netbpf.records import record

Kind = Literal["id", "name", "tag", "link", "pin"]


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
                if not re.fullmatch(r"[0-9]{1,10}", value) or not 0 < int(value) < 2**32:
                    raise ValueError(f"{text}: {kind}: is followed by a positive number")
                return cls(kind, str(int(value)))
            case "tag" if colon:
                if not re.fullmatch(r"[0-9a-fA-F]{16}", value):
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
