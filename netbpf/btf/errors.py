"""What is wrong with a BTF blob."""

from __future__ import annotations


class BtfFormatError(ValueError):
    """The bytes are no BTF, or contradict themselves."""
