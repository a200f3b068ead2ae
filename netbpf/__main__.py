"""The process of the command line: ``netbpf`` and ``python -m netbpf``."""

from __future__ import annotations

import gc
import os
import sys

from netbpf import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

# Until the command itself decides, Ctrl-C ends the process as it would a C program: no traceback.
signals.signal(signals.SIGINT, signals.SIG_DFL)

# Looking for garbage in what was just imported, and taking the interpreter apart at the end, are a
# quarter of the CPU time of a quick command (bench/cold_start.py); the kernel frees it all at once.
gc.set_threshold(100_000)


def run() -> NoReturn:
    """Run the command line of this process and end with its exit status."""
    _fill_streams()
    from netbpf.cli.quick import ran

    status = 0 if ran(sys.argv[1:]) else _parsed()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            # Nobody reads there any more; main has said so where it matters.
            pass
    os._exit(status)


def _parsed() -> int:
    from netbpf.cli.main import main

    signals.signal(signals.SIGINT, signals.default_int_handler)
    return main()


def _fill_streams() -> None:
    """Have all three standard streams, and let any text through them.

    Where one was closed, the next descriptor that is opened would take its number: a map, a socket.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        getattr(sys, name).reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    run()
