"""The folder where kernels, QEMU and modules are kept, and how an entry gets there whole."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.errors import LabError

GUESTS_OWN = ("dev", "proc", "run", "sys")
"""Top folders that the guest does not share with the host."""


def cache_root() -> Path:
    """The lab's own folder below ``$XDG_CACHE_HOME`` or ``~/.cache``; made when absent.

    :raises LabError: it is in a folder that the guest does not share.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG rules: a relative path is to be ignored.
    home = Path(base) if base.startswith("/") else Path.home() / ".cache"
    root = home / "netbpf" / "lab"
    root.mkdir(parents=True, exist_ok=True)
    root = root.resolve()
    if root.parts[1] in GUESTS_OWN:
        raise LabError(f"the cache {root} is in a folder that the guest has its own of")
    return root


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file at *path*; the kernel drops it when the holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def fill(target: Path, make: Callable[[Path], None]) -> Path:
    """Return *target*, letting *make* write it first when it does not exist.

    *make* works in a folder beside it which takes the name only when it is complete, so a
    killed fill leaves nothing that looks like an entry; the next one clears its remains.
    """
    if target.exists():
        return target
    with locked(lock_path(target)):
        if target.exists():
            return target
        for remains in target.parent.glob(f".{target.name}.*.part"):
            shutil.rmtree(remains)
        part = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
        try:
            make(part)
            part.chmod(0o755)
            part.rename(target)
        finally:
            if part.exists():
                shutil.rmtree(part)
    return target


def lock_path(target: Path) -> Path:
    """The lock file of a cache entry: beside it, never inside."""
    return target.parent / f".{target.name}.lock"


def write_atomically(path: Path, text: str) -> None:
    """Replace the file at *path* in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    with os.fdopen(fd, "w") as file:
        file.write(text)
    Path(name).rename(path)
