"""Helper processes that never outlive the lab."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab.errors import LabError

DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")
"""Prefix of a command that the kernel kills when the lab dies, however it dies."""

# The same for a command that starts others: a process namespace ends as a whole with its first one.
TREE_DIES_WITH_US = (
    *DIES_WITH_US,
    *("unshare", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "--"),
)


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
            [*TREE_DIES_WITH_US, *command],
            cwd=cwd,
            env={**os.environ, "LC_ALL": "C", **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except OSError as e:
        raise LabError(f"{doing}: {e}") from e
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-12:])
        raise LabError(f"{doing}: {command[0]} failed with status {done.returncode}\n{tail}")
    return done.stdout
