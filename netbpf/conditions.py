"""Conditions: for what the kernel gives an errno, in the words that errors and `explain` share."""

from __future__ import annotations

from dataclasses import dataclass


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
