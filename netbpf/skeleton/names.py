"""Names of C as names of Python: checked, so that no object file can say more than a name."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_OTHER = re.compile(r"[^A-Za-z0-9_]", re.ASCII)
_MAX = 128
_KEYWORDS = frozenset(keyword.kwlist) | {"self"}
# What an IntEnum is beside its members, in every Python alike: modules must not differ.
ENUM_TAKEN = frozenset(
    {
        *("as_integer_ratio", "bit_count", "bit_length", "conjugate", "denominator", "from_bytes"),
        *("imag", "is_integer", "mro", "name", "numerator", "real", "to_bytes", "value"),
    }
)


def attribute(name: str) -> str:
    """The attribute that stands for ``name``.

    Letters, digits and underscores stay, all else is an underscore. What begins with an underscore
    or a digit gets an ``x`` before it, a keyword of Python an underscore behind it.
    """
    made = _OTHER.sub("_", name)[:_MAX]
    if not made or not made[0].isalpha():
        made = f"x{made}"
    return f"{made}_" if made in _KEYWORDS else made


def class_name(name: str) -> str:
    """The class that stands for ``name``: ``flow_key`` is ``FlowKey``; no underscore is in it."""
    words = [word for word in _OTHER.sub("_", name)[:_MAX].split("_") if word]
    made = "".join(word[0].upper() + word[1:] for word in words)
    if not made or not made[0].isalpha() or made in _KEYWORDS:
        made = f"X{made}"
    return made


def shown(name: str) -> str:
    """``name`` for a docstring or comment: only if it is one of C."""
    return name if _PLAIN.fullmatch(name) and len(name) <= _MAX else "(no name of C)"


class Names:
    """Names that differ from each other and from those ``taken``: the second is ``name_2``."""

    def __init__(self, taken: Iterable[str] = (), between: str = "_") -> None:
        self._taken = set(taken)
        self._between = between
        self._last: dict[str, int] = {}

    def new(self, name: str) -> str:
        """``name``, or it with a number behind it."""
        made = name
        while made in self._taken:
            number = self._last[name] = self._last.get(name, 1) + 1
            made = f"{name}{self._between}{number}"
        self._taken.add(made)
        return made

    def __contains__(self, name: str) -> bool:
        """Whether there is such a name."""
        return name in self._taken
