"""Names under /run/netns: free or taken, removed as ``ip netns`` does it, and found again."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from netbpf import libc
from netbpf.errors import ConflictError, KernelError, NotFoundError
from netbpf.interrupts import held
from netbpf.netns.handle import NetNS, what_there_is
from netbpf.netns.lock import PATIENCE, locked, run_dir
from netbpf.netns.names import RUN_DIR, check_name

UNFINISHED = 0o400
"""The mode of a file that netbpf makes to mount a namespace on; ``ip netns`` makes it with 0."""

_TRIES = 10
"""How often to unmount what others mount again."""

_CAPABILITY = "it needs CAP_SYS_ADMIN (unshare and mount)"
_OWN_MOUNTS = ", and in a user namespace mounts of its own (unshare --user --map-root-user --mount)"


def check_new(name: str) -> None:
    """Whether a namespace could be made under this name now.

    :raises ValueError: the name cannot be one, or `NetNS.parse` would read it as another thing.
    :raises ConflictError: it is taken.
    """
    check_name(name)
    if name.startswith("pid:"):
        raise ValueError(f"{name!r} means a process's namespace wherever a namespace is named")
    if os.path.lexists(RUN_DIR / name) and not abandoned(name):
        raise taken(name)


def abandoned(name: str) -> bool:
    """Whether the name is only what a netbpf left that was killed while adding or deleting it.

    Sure only while the lock of /run/netns is held: else that netbpf may be about to mount there.
    """
    try:
        found = os.lstat(RUN_DIR / name)
        mounted = found.st_dev != os.stat(RUN_DIR).st_dev
    except OSError:
        return False
    return not mounted and found.st_mode == stat.S_IFREG | UNFINISHED and found.st_size == 0


def check_deletable(name: str) -> None:
    """Whether `delete` would remove this name: that of a namespace, or of what an add left over.

    A link is a name too, wherever it leads; an empty file is what an interrupted add leaves.

    :raises ValueError: the name cannot be one.
    :raises NotFoundError: there is no such name, or it is somebody else's file.
    """
    check_name(name)
    path = RUN_DIR / name
    try:
        found = os.lstat(path)
    except OSError as error:
        raise NotFoundError("namespace", name, hint=what_there_is(name)) from error
    left_over = stat.S_ISREG(found.st_mode) and found.st_size == 0
    if stat.S_ISLNK(found.st_mode) or (left_over and not os.path.ismount(path)):
        return
    NetNS.from_name(name).close()


def delete(name: str) -> None:
    """Remove the name ``name``; the namespace dies when nothing else holds it.

    Of a link only the link goes. A file left over by an interrupted add is removed too.

    :raises ValueError: the name cannot be one.
    :raises NotFoundError: there is no such name, or it is somebody else's file.
    :raises KernelError: EPERM: it needs CAP_SYS_ADMIN.
    """
    check_deletable(name)
    path = RUN_DIR / name
    operation = f"delete namespace {name}"
    with ExitStack() as stack:
        with refusals(operation):
            folder = stack.enter_context(run_dir())
            stack.enter_context(locked(folder))
        # A name whose namespace is unmounted but whose file stays would be half deleted.
        stack.enter_context(held())
        try:
            _unlink(path)
        except FileNotFoundError as error:
            raise NotFoundError("namespace", name) from error
        except OSError as error:
            raise refused(operation, error) from error


def _unlink(path: Path) -> None:
    for tries_left in reversed(range(_TRIES)):
        try:
            # A link to a mount is no reason to unmount what it leads to.
            libc.umount(os.fspath(path), libc.MNT_DETACH | libc.UMOUNT_NOFOLLOW)
        except OSError as error:
            # EINVAL: not a mount point here, so only the file is left. ENOENT: another was faster.
            if error.errno not in (errno.EINVAL, errno.ENOENT):
                raise
        try:
            path.unlink()
            return
        except OSError as error:
            # `ip netns add` takes no lock for this: it may mount meanwhile, also on another mount.
            if error.errno != errno.EBUSY or not tries_left:
                raise


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
        raise refused(f"list {RUN_DIR}", error) from error
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


def taken(name: str) -> ConflictError:
    """Why no namespace can be made under this name."""
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


def refused(operation: str, error: OSError) -> KernelError:
    """The error for what the kernel refused while a name was made or removed."""
    hint = None
    if error.errno in (errno.EPERM, errno.EACCES):
        hint = _CAPABILITY + (_OWN_MOUNTS if _in_user_namespace() else "")
    if error.errno == errno.ENOSPC:
        hint = "the user namespace's limit is /proc/sys/user/max_net_namespaces"
    if error.errno == errno.EAGAIN:
        hint = f"another process has been holding the lock of {RUN_DIR} for {PATIENCE:.0f} s"
    if error.errno == errno.EROFS:
        hint = f"{RUN_DIR} lies on a read-only filesystem"
    if error.errno == errno.EBUSY:
        hint = "its mount belongs to a user namespace further out, which can remove it"
    return KernelError(operation, error.errno or 0, hint=hint)


def _in_user_namespace() -> bool:
    """Whether ids are mapped; user_namespaces(7): the initial one maps all to themselves."""
    try:
        return Path("/proc/thread-self/uid_map").read_text().split() != ["0", "0", "4294967295"]
    except OSError:
        return False


@contextmanager
def refusals(operation: str) -> Iterator[None]:
    """Make every OSError of the block a KernelError."""
    try:
        yield
    except OSError as error:
        raise refused(operation, error) from error
