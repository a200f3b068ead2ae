"""Helper processes that never outlive the lab."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from lab import libc
from lab.errors import LabError

# A process namespace ends as a whole with its first process: make's and apt's children too.
_AS_ONE = ("unshare", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "--")


def dies_with_us() -> Callable[[], None]:
    """What a child has to call after its fork, for the kernel to kill it when the lab dies.

    The lab has one thread, so this is safe as ``preexec_fn``.
    """
    return partial(libc.die_with, os.getpid())


def run_tool(
    argv: Sequence[str | Path],
    *,
    doing: str,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> str:
    """Run a helper to its end and return its standard output.

    :param doing: what it is for, as the error will say it.
    :raises LabError: it is not there, or failed; with its last lines.
    """
    command = [str(word) for word in argv]
    if shutil.which(command[0]) is None:
        raise LabError(f"{doing}: no program {command[0]} on this machine")
    try:
        done = subprocess.run(
            [*_AS_ONE, *command],
            cwd=cwd,
            env={**os.environ, "LC_ALL": "C", **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            preexec_fn=dies_with_us(),
        )
    except OSError as e:
        raise LabError(f"{doing}: {e}") from e
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-12:])
        raise LabError(f"{doing}: {command[0]} failed with status {done.returncode}\n{tail}")
    return done.stdout
