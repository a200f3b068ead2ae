"""Indexes of kernels' BTF on disk: written at once or not at all, believed only when they are ours.

The folder is /var/cache/netbpf for root, and ``netbpf`` in XDG_CACHE_HOME or ~/.cache for others.
A file of another owner, or one that others may write to, is none of ours; neither is what lies in
such a folder. Whatever goes wrong, the index is made anew: the cache is a matter of speed alone.
"""

from __future__ import annotations

import os
import stat

ROOT_FOLDER = "/var/cache/netbpf"
_PREFIX = "btf-index-"
# Of what is being written.
_PART = f".{_PREFIX}"
_MAX_SIZE = 64 << 20
# Kernels that the machine may be booted with again.
_KEPT = 4


def folder() -> str | None:
    """Where this user's indexes are; None where there is no place for them."""
    if os.geteuid() == 0:
        return ROOT_FOLDER
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        home = os.environ.get("HOME", "")
        if not os.path.isabs(home):
            return None
        base = os.path.join(home, ".cache")
    return os.path.join(base, "netbpf")


def read(key: str) -> bytes | None:
    """What was written for ``key``; None where there is nothing of ours."""
    where = _open_folder(create=False)
    if where is None:
        return None
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        fd = os.open(_PREFIX + key, flags, dir_fd=where)
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode) or not _ours(found) or found.st_size > _MAX_SIZE:
                return None
            with open(fd, "rb", buffering=0, closefd=False) as file:
                return file.read(found.st_size)
        finally:
            os.close(fd)
    except OSError:
        return None
    finally:
        os.close(where)


def write(key: str, data: bytes) -> None:
    """Keep ``data`` for ``key``, where that is possible."""
    where = _open_folder(create=True)
    if where is None:
        return
    part = f"{_PART}{key}.{os.getpid()}.{os.urandom(4).hex()}"
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(part, flags, 0o600, dir_fd=where)
        try:
            with open(fd, "wb") as file:
                file.write(data)
            os.rename(part, _PREFIX + key, src_dir_fd=where, dst_dir_fd=where)
        except BaseException:
            os.unlink(part, dir_fd=where)
            raise
        _forget_old(where)
    except OSError:
        return
    finally:
        os.close(where)


def _open_folder(*, create: bool) -> int | None:
    path = folder()
    if path is None:
        return None
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        if create:
            os.makedirs(path, mode=0o700, exist_ok=True)
        fd = os.open(path, flags)
    except OSError:
        return None
    if not _ours(os.fstat(fd)):
        os.close(fd)
        return None
    return fd


def _ours(found: os.stat_result) -> bool:
    return found.st_uid == os.geteuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _forget_old(where: int) -> None:
    found = os.listdir(where)
    names = [name for name in found if name.startswith(_PREFIX)]
    if len(names) > _KEPT:
        names.sort(key=lambda name: os.stat(name, dir_fd=where, follow_symlinks=False).st_mtime_ns)
        for name in names[:-_KEPT]:
            os.unlink(name, dir_fd=where)
    for name in found:
        # Of a writer that was killed, or of one that is late and goes without.
        if name.startswith(_PART):
            os.unlink(name, dir_fd=where)
