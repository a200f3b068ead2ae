"""Conditions: for what the kernel gives an errno, in the words that errors and `explain` share.

The kernel gives a bare errno. A room's table has a row for each condition, which says in general
when the errno comes, and looks at a situation of that room to say whether that is what happened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Condition:
    """One of the reasons for which the kernel answers ``operation`` with ``errno``.

    ``when`` says when it does, ``hint`` what to do then; ``extack`` is the kernel's own text, where
    it gives one; ``source`` is where the kernel decides.
    """

    operation: str
    errno: int
    when: str
    hint: str | None
    source: str
    extack: str | None = None


@dataclass(frozen=True, slots=True)
class Row(Generic[S]):
    """One condition of some operations.

    ``holds`` gives the words for this situation, None where something else happened.
    """

    operations: tuple[str, ...]
    errno: int
    when: str
    hint: str | None
    holds: Callable[[S], str | None]
    code: str | None = None
    source: str = "kernel/bpf/mprog.c"


def holding(
    rows: Iterable[Row[S]], operation: str, number: int, situation: S
) -> tuple[Row[S], str] | None:
    """The condition that holds, and the words for it; None where none of those known does."""
    for row in rows:
        if row.errno == number and operation in row.operations and (words := row.holds(situation)):
            return row, words
    return None


def listed(rows: Iterable[Row[S]]) -> Iterator[Condition]:
    """Every condition, for each operation."""
    for row in rows:
        for operation in row.operations:
            yield Condition(operation, row.errno, row.when, row.hint, row.source)


def always(words: str) -> Callable[[object], str | None]:
    """For a row whose errno leaves no other possibility."""
    return lambda situation: words
