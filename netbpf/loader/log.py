"""What the loader tells on its way, to the logger ``netbpf.loader``.

An application that wants to hear it sets up ``logging``, its handlers are the callback. Where
nobody has imported that, nobody listens, and nothing is imported for it.
"""

from __future__ import annotations

import sys

NAME = "netbpf.loader"

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging


def debug(text: str, *args: object) -> None:
    """What was found and made, step by step."""
    if (log := _logger()) is not None:
        log.debug(text, *args)


def info(text: str, *args: object) -> None:
    """What is other than the object has it, and harms nobody."""
    if (log := _logger()) is not None:
        log.info(text, *args)


def warning(text: str, *args: object) -> None:
    """What is not as the object wants it."""
    if (log := _logger()) is not None:
        log.warning(text, *args)


def _logger() -> logging.Logger | None:
    module = sys.modules.get("logging")
    return None if module is None else module.getLogger(NAME)
