"""What the library tells on its way, on stderr: as much as NETBPF_LOG_LEVEL asks for."""

from __future__ import annotations

import os

VARIABLE = "NETBPF_LOG_LEVEL"
LEVELS = ("warn", "info", "debug")


def set_up() -> None:
    """Print the messages of the loggers below ``netbpf``; nothing where nobody asks.

    :raises ValueError: the variable is none of the levels.
    """
    level = os.environ.get(VARIABLE, "")
    if not level:
        return
    if level not in LEVELS:
        raise ValueError(f"{VARIABLE} is one of {', '.join(LEVELS)}, not {level!r}")
    # Imported only here: it costs a short command as much as its work.
    import logging

    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    logger = logging.getLogger("netbpf")
    for old in logger.handlers[:]:
        logger.removeHandler(old)
    logger.addHandler(handler)
    logger.propagate = False
    logger.setLevel({"warn": logging.WARNING}.get(level, level.upper()))
