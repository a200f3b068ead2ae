"""The built-in programs: C source and, made of it by scripts/build-progs, the object beside it."""

from __future__ import annotations

import os

from netbpf.errors import NotFoundError

_HERE = os.path.dirname(__file__)


def names() -> list[str]:
    """The names of the built-in programs."""
    return sorted(name.removesuffix(".o") for name in os.listdir(_HERE) if name.endswith(".o"))


def path(name: str) -> str:
    """Where the object file of the built-in program ``name`` is.

    :raises NotFoundError: there is no such program.
    """
    if name not in names():
        raise NotFoundError("built-in program", name, hint=f"there are: {', '.join(names())}")
    return os.path.join(_HERE, f"{name}.o")
