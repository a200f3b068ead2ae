"""Parts of a test in processes of their own: all at once, or without any capability."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any

NOBODY = 65534


def at_once(parts: Sequence[Callable[[], Any]], *, timeout: float = 300) -> list[Any]:
    """Each part in a process of its own; what each returned, as JSON brings it over."""
    running: list[tuple[int, int]] = []
    try:
        for part in parts:
            reading, writing = os.pipe()
            pid = os.fork()
            if pid == 0:
                _answer(part, writing)
            os.close(writing)
            running.append((pid, reading))
        deadline = time.monotonic() + timeout
        return [json.loads(_read(reading, deadline)) for _, reading in running]
    finally:
        for pid, reading in running:
            os.close(reading)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def without_capabilities(part: Callable[[], Any], enter: Callable[[], None]) -> Any:
    """What ``part`` returns in a process of the user nobody, once ``enter`` was done as root."""

    def lowered() -> Any:
        enter()
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        return part()

    (result,) = at_once([lowered])
    return result


def _answer(part: Callable[[], Any], writing: int) -> None:
    try:
        try:
            result = part()
        except BaseException as error:
            result = f"{type(error).__name__}: {error}"
        os.write(writing, json.dumps(result).encode())
    finally:
        os._exit(0)


def _read(reading: int, deadline: float) -> bytes:
    found = b""
    while chunk := os.read(reading, 65536):
        found += chunk
        assert time.monotonic() < deadline
    return found
