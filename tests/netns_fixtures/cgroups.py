"""A cgroup of the test's own, and processes within it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Where cgroup2 is mounted: beside cgroups of version 1, or alone.
_ROOTS = (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup"))


@contextmanager
def cgroup() -> Iterator[Path]:
    """Make a cgroup, and remove it afterwards."""
    root = next(path for path in _ROOTS if (path / "cgroup.procs").exists())
    folder = root / f"nbt-{os.getpid()}"
    folder.mkdir()
    try:
        yield folder
    finally:
        folder.rmdir()


def inside(folder: Path, code: str) -> str:
    """What a process within the cgroup says: ``done``, or the errno that it meets."""
    whole = (
        "import os, socket, sys\n"
        f"open('{folder}/cgroup.procs', 'w').write(str(os.getpid()))\n"
        f"try:\n    {code}\n    print('done')\nexcept OSError as error: print(error.errno)"
    )
    done = subprocess.run([sys.executable, "-c", whole], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
