"""What comes out of a guest: the command's two streams, the control lines and the console."""

from __future__ import annotations

import os
import select
import socket
import sys
import time
from collections import deque

_CHUNK = 65536
# A writable pipe takes this much without blocking (pipe(7), PIPE_BUF).
_PIPE = 4096


class Streams:
    """Passes output on as it comes; keeps the console's end and the guest's own words."""

    def __init__(
        self,
        stdout: socket.socket,
        stderr: socket.socket,
        control: socket.socket,
        console: socket.socket,
    ):
        self._sources = {stdout: 1, stderr: 2}
        self._waiting: dict[int, bytes] = {1: b"", 2: b""}
        self._control = control
        self._console = console
        self._open = {stdout, stderr, control, console}
        self._lines = b""
        self._last: deque[bytes] = deque()
        self.ready_after: float | None = None
        self.reason = ""
        for end in self._open:
            end.setblocking(False)

    def pump(self, *, boot: float, total: float | None) -> int | None:
        """Pass output on until the status came; None when the guest is lost (see ``reason``)."""
        start = time.monotonic()
        while True:
            status = self._status()
            if self.ready_after is None and b"ready\n" in self._lines:
                self.ready_after = time.monotonic() - start
            if status is not None:
                self._drain()
                return status
            if not self._open:
                self.reason = "it ended before the command did"
                return None
            now = time.monotonic() - start
            limits = [total] if total is not None else []
            if self.ready_after is None:
                limits.append(min(boot, total or boot))
            left = min(limits) - now if limits else None
            if left is not None and left <= 0:
                self.reason = (
                    f"no status after {total:g} s"
                    if total is not None and now >= total
                    else f"the command did not start within {boot:g} s"
                )
                self._drain()
                return None
            self._step(left)

    def console_tail(self, lines: int = 60) -> str:
        """The last lines of the console."""
        text = b"".join(self._last).decode(errors="replace").replace("\r", "")
        return "\n".join(text.splitlines()[-lines:])

    def _status(self) -> int | None:
        for line in self._lines.split(b"\n")[:-1]:
            word, _, number = line.partition(b" ")
            if word == b"exit" and number.isdigit():
                return int(number)
        return None

    def _step(self, timeout: float | None) -> None:
        poll = select.poll()
        sources = {end.fileno(): end for end in self._open if not self._is_full(end)}
        for fd in sources:
            poll.register(fd, select.POLLIN)
        for fd, data in self._waiting.items():
            if data:
                poll.register(fd, select.POLLOUT)
        for fd, _ in poll.poll(None if timeout is None else max(0, timeout * 1000)):
            if fd in sources:
                self._read(sources[fd])
            else:
                self._write(fd)

    def _is_full(self, end: socket.socket) -> bool:
        # Read no more than the reader of our output takes: the guest waits then.
        return end in self._sources and bool(self._waiting[self._sources[end]])

    def _read(self, end: socket.socket) -> bool:
        try:
            data = end.recv(_CHUNK)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            data = b""
        if not data:
            self._open.discard(end)
        elif end is self._control:
            self._lines += data
        elif end is self._console:
            self._last.append(data)
            while sum(map(len, self._last)) > _CHUNK and len(self._last) > 1:
                self._last.popleft()
        else:
            self._waiting[self._sources[end]] += data
        return bool(data)

    def _write(self, fd: int) -> None:
        try:
            done = os.write(fd, self._waiting[fd][:_PIPE])
        except BrokenPipeError:
            # Like a command whose reader left: what it says from now on is for nobody.
            done = len(self._waiting[fd])
        self._waiting[fd] = self._waiting[fd][done:]

    def _drain(self) -> None:
        """Everything that was said before the status is in the sockets already."""
        for end in list(self._open):
            while self._read(end):
                pass
        for fd in self._waiting:
            while self._waiting[fd]:
                self._write(fd)
        sys.stdout.flush()
