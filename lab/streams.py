"""What comes out of a guest: the command's two streams, the control lines and the console."""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections import deque
from collections.abc import Mapping, Sequence

_CHUNK = 65536
# A pipe that polls as writable takes this much without blocking (pipe(7), PIPE_BUF).
_PIPE = 4096


class Streams:
    """Passes output on as it comes; keeps the console's end and the guest's own words.

    :param ports: our ends of ``PORTS`` in lab/guest.py.
    :param deaths: a process descriptor (pidfd) to the name of each process the guest needs.
    """

    def __init__(
        self,
        ports: Sequence[socket.socket],
        deaths: Mapping[int, str],
    ):
        stdout, stderr, control, console = ports
        self._targets = {stdout: 1, stderr: 2}
        self._waiting: dict[int, bytes] = {1: b"", 2: b""}
        self._control = control
        self._console = console
        self._deaths = deaths
        self._open = {stdout, stderr, control, console}
        self._said = b""
        self._last: deque[bytes] = deque()
        self._reader_left = False
        self.ready_after: float | None = None
        self.reason = ""
        for end in self._open:
            end.setblocking(False)

    def pump(self, *, boot: float, total: float | None) -> int | None:
        """Pass output on until the status came; None when the guest is lost, see ``reason``.

        What came but was not passed on yet waits for ``flush``.
        """
        start = time.monotonic()
        while True:
            status = control_status(self._said)
            if status is None and self._reader_left:
                # A command whose reader left would have died of it.
                status = 128 + signal.SIGPIPE
            if status is not None or self.reason:
                # All that was said before the status is in the sockets by now.
                self._read_all()
                return status
            if not self._open:
                self.reason = "it ended before the command did"
                continue
            now = time.monotonic() - start
            if self.ready_after is None and b"ready\n" in self._said:
                self.ready_after = now
            left = None if total is None else total - now
            if left is not None and left <= 0:
                self.reason = f"no status within {total:g} s"
            elif self.ready_after is None and now >= boot:
                self.reason = f"the command did not start within {boot:g} s"
            else:
                if self.ready_after is None:
                    left = min(boot - now, left if left is not None else boot)
                self._step(left)

    def flush(self, *, wait: bool) -> None:
        """Write what is left; without *wait* only as far as it is taken at once."""
        while any(self._waiting.values()):
            poll = select.poll()
            for fd, data in self._waiting.items():
                if data:
                    poll.register(fd, select.POLLOUT)
            ready = poll.poll(None if wait else 0)
            if not ready:
                return
            for fd, _ in ready:
                self._write(fd)

    def console_tail(self, lines: int = 60) -> str:
        """The last lines of the console."""
        text = b"".join(self._last).decode(errors="replace").replace("\r", "")
        return "\n".join(text.splitlines()[-lines:])

    def _step(self, timeout: float | None) -> None:
        poll = select.poll()
        # Read no more than the reader of our output takes: the guest waits then.
        sources = {
            end.fileno(): end for end in self._open if not self._waiting.get(self._target(end))
        }
        for fd in (*sources, *self._deaths):
            poll.register(fd, select.POLLIN)
        for fd, data in self._waiting.items():
            if data:
                poll.register(fd, select.POLLOUT)
        for fd, _ in poll.poll(None if timeout is None else timeout * 1000):
            if fd in sources:
                self._read(sources[fd])
            elif fd in self._deaths:
                self.reason = f"{self._deaths[fd]} ended before the command did"
            else:
                self._write(fd)

    def _target(self, end: socket.socket) -> int:
        return self._targets.get(end, -1)

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
            self._said += data
        elif end is self._console:
            self._last.append(data)
            while sum(map(len, self._last)) > _CHUNK and len(self._last) > 1:
                self._last.popleft()
        else:
            self._waiting[self._targets[end]] += data
        return bool(data)

    def _read_all(self) -> None:
        for end in list(self._open):
            while self._read(end):
                pass

    def _write(self, fd: int) -> None:
        try:
            done = os.write(fd, self._waiting[fd][:_PIPE])
        except BlockingIOError:
            return
        except OSError:
            # The reader left, or never was.
            self._reader_left |= fd == 1
            done = len(self._waiting[fd])
        self._waiting[fd] = self._waiting[fd][done:]


def control_status(said: bytes) -> int | None:
    """The status in the guest's control lines, once its line is complete."""
    for line in said.split(b"\n")[:-1]:
        word, _, number = line.partition(b" ")
        if word == b"exit" and number.isdigit():
            return int(number)
    return None
