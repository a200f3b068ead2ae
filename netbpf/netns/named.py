"""Namespaces with a name: made and removed as ``ip netns`` does it, and found again."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from netbpf import libc
from netbpf.errors import ConflictError, KernelError, NotFoundError
from netbpf.interrupts import held
from netbpf.netns.enter import in_thread
from netbpf.netns.handle import NetNS
from netbpf.netns.names import RUN_DIR, check_name

_PATIENCE = 10.0
"""Seconds that another one may hold the lock of /run/netns."""

_CAPABILITY = "it needs CAP_SYS_ADMIN (unshare and mount)"


def check_new(name: str) -> None:
    """Whether a namespace could be made under this name now.

    :raises ValueError: the name cannot be one, or `NetNS.parse` would read it as another thing.
    :raises ConflictError: it is taken.
    """
    check_name(name)
    if name.startswith("pid:"):
        raise ValueError(f"{name!r} means a process's namespace wherever a namespace is named")
    if os.path.lexists(RUN_DIR / name):
        raise _taken(name)


def add(name: str) -> int:
    """Make a network namespace called ``name`` and return its inode.

    ``ip netns`` sees, enters and deletes it as one of its own. Its loopback device stays down, as
    with ``ip netns add``. When making fails or is interrupted, nothing is left behind.

    :raises ValueError: the name cannot be one.
    :raises ConflictError: the name is taken.
    :raises KernelError: EPERM: it needs CAP_SYS_ADMIN.
    """
    check_new(name)
    operation = f"add namespace {name}"
    path = RUN_DIR / name
    with _refusals(operation):
        _prepare_run_dir()
    mine = False
    try:
        with held():
            try:
                os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0))
            except FileExistsError as error:
                raise _taken(name) from error
            except OSError as error:
                raise _refused(operation, error) from error
            mine = True
            with _refusals(operation):
                return in_thread(lambda: _mount_new(path))
    except BaseException:
        if mine:
            with held():
                _remove(path)
        raise


def delete(name: str) -> None:
    """Remove the name ``name``; the namespace dies when nothing else holds it.

    A file left over by an interrupted ``ip netns add`` is removed too.

    :raises ValueError: the name cannot be one.
    :raises NotFoundError: there is no such name.
    :raises KernelError: EPERM: it needs CAP_SYS_ADMIN.
    """
    check_name(name)
    path = RUN_DIR / name
    operation = f"delete namespace {name}"
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError("namespace", name) from error
    # Held, as a name whose namespace is unmounted but whose file stays would be half deleted.
    with held():
        try:
            libc.umount(os.fspath(path), libc.MNT_DETACH)
        except OSError as error:
            # EINVAL: not a mount point here, so only the file is left. ENOENT: another was faster.
            if error.errno not in (errno.EINVAL, errno.ENOENT):
                raise _refused(operation, error) from error
        try:
            path.unlink()
        except FileNotFoundError as error:
            raise NotFoundError("namespace", name) from error
        except OSError as error:
            raise _refused(operation, error) from error


def list_names() -> list[str]:
    """The names of all namespaces under /run/netns, sorted. Files that are none are left out."""
    return sorted(inodes_by_name())


def inodes_by_name() -> dict[str, int]:
    """The inode of each namespace under /run/netns, by name."""
    try:
        names = sorted(entry.name for entry in RUN_DIR.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise _refused(f"list {RUN_DIR}", error) from error
    found = {}
    for name in names:
        try:
            with NetNS.from_name(name) as ns:
                found[name] = ns.inode
        except (NotFoundError, KernelError, ValueError):
            # Deleted meanwhile, left over, or a name that netbpf would not take.
            continue
    return found


def name_of(inode: int) -> str | None:
    """The name under /run/netns of the namespace with ``inode``, if it has one."""
    for name, number in inodes_by_name().items():
        if number == inode:
            return name
    return None


def _prepare_run_dir() -> None:
    """Make /run/netns a shared mount, so that names propagate between mount namespaces."""
    RUN_DIR.mkdir(mode=0o755, exist_ok=True)
    with ExitStack() as stack:
        with held():
            # A descriptor that an interruption left open would keep the lock from everybody.
            folder = os.open(RUN_DIR, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, folder)
        # ip takes the same lock: two at once would mount the folder over itself again and again.
        _lock(folder)
        flags = libc.MS_SHARED | libc.MS_REC
        try:
            libc.mount("", os.fspath(RUN_DIR), "none", flags)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            target = os.fspath(RUN_DIR)
            libc.mount(target, target, "none", libc.MS_BIND | libc.MS_REC)
            libc.mount("", target, "none", flags)


def _lock(folder: int) -> None:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.002)


def _mount_new(path: Path) -> int:
    """In a thread of its own: make a namespace and bind it to ``path``."""
    libc.unshare(libc.CLONE_NEWNET)
    own = "/proc/thread-self/ns/net"
    libc.mount(own, os.fspath(path), "none", libc.MS_BIND)
    return Path(own).stat().st_ino


def _remove(path: Path) -> None:
    # Either may be missing: not mounted yet, or gone already.
    with suppress(OSError):
        libc.umount(os.fspath(path), libc.MNT_DETACH)
    with suppress(OSError):
        path.unlink()


def _taken(name: str) -> ConflictError:
    try:
        NetNS.from_name(name).close()
    except NotFoundError as error:
        return ConflictError(f"add namespace {name}: the name is taken", hint=error.hint)
    except KernelError:
        pass
    return ConflictError(
        f"add namespace {name}: there is one of this name already",
        hint=f"use it, or remove it with `netbpf netns del {name}`",
    )


def _refused(operation: str, error: OSError) -> KernelError:
    hint = _CAPABILITY if error.errno in (errno.EPERM, errno.EACCES) else None
    if error.errno == errno.ENOSPC:
        hint = "the user namespace's limit is /proc/sys/user/max_net_namespaces"
    if error.errno == errno.EAGAIN:
        hint = f"another process has been holding the lock of {RUN_DIR} for {_PATIENCE:.0f} s"
    if error.errno == errno.EROFS:
        hint = f"{RUN_DIR} lies on a read-only filesystem"
    return KernelError(operation, error.errno or 0, hint=hint)


@contextmanager
def _refusals(operation: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _refused(operation, error) from error
