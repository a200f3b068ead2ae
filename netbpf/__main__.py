"""The process of the command line: ``netbpf`` and ``python -m netbpf``."""

import gc
import os
import sys
from typing import NoReturn

# Looking for garbage in what was just imported, and taking the interpreter apart at the end, are a
# quarter of the CPU time of a quick command (bench/cold_start.py); the kernel frees it all at once.
gc.set_threshold(100_000)


def run() -> NoReturn:
    """Run the command line of this process and end with its exit status."""
    from netbpf.cli.main import main

    status = main()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            # Nobody reads there any more; main has said so where it matters.
            pass
    os._exit(status)


if __name__ == "__main__":
    run()
