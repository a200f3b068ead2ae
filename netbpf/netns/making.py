"""Making namespaces with a name, as ``ip netns`` does it: one or many, all of them or none."""

from __future__ import annotations

import _thread
import errno
import os
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from netbpf import libc
from netbpf.interrupts import held
from netbpf.netns.lock import locked, run_dir
from netbpf.netns.named import UNFINISHED, abandoned, check_new, refusals, taken
from netbpf.netns.names import RUN_DIR

_OWN = "/proc/thread-self/ns/net"


def add(name: str) -> int:
    """Make a network namespace called ``name`` and return its inode.

    ``ip netns`` sees, enters and deletes it as one of its own. Its loopback device stays down, as
    with ``ip netns add``. When making fails or is interrupted, nothing is left behind; a process
    that is killed meanwhile leaves a file at the most, which is no hindrance to the next one.

    :raises ValueError: the name cannot be one.
    :raises ConflictError: the name is taken.
    :raises KernelError: EPERM: it needs CAP_SYS_ADMIN.
    """
    return add_many([name])[name]


def add_many(names: Iterable[str]) -> dict[str, int]:
    """Make namespaces with these names and return their inodes; a failure leaves none of them.

    Quicker than ``add`` for each, as one thread makes them all.

    :raises ValueError: a name cannot be one, or is there twice.
    :raises ConflictError: a name is taken.
    :raises KernelError: EPERM: it needs CAP_SYS_ADMIN.
    """
    wanted = list(names)
    for name in wanted:
        check_new(name)
    if len(set(wanted)) < len(wanted):
        twice = next(name for name in wanted if wanted.count(name) > 1)
        raise ValueError(f"add namespace {twice}: the name is there twice")
    making = _Making(wanted)
    try:
        with held():
            making.start()
        making.done.acquire()
        if making.error is not None:
            raise making.error
    except BaseException:
        with held():
            making.stop = True
            making.wait()
            making.undo()
        # Its traceback holds this frame, which must not hold it.
        making.error = None
        raise
    return making.inodes


class _Making:
    """The work of a thread of its own: it goes from one new namespace into the next."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.inodes: dict[str, int] = {}
        self.file: Path | None = None
        """Made, and nothing mounted on it yet."""
        self.stop = False
        self.error: BaseException | None = None
        self.started = self.finished = False
        self.done = _thread.allocate_lock()
        """Released at the end."""

    def start(self) -> None:
        # Not with ``threading``, which hands the interpreter to and fro until a thread runs, and of
        # which Python 3.11 takes an interrupted join for the thread's end.
        self.done.acquire()
        _thread.start_new_thread(self.run, ())
        self.started = True

    def wait(self) -> None:
        while self.started and not self.finished:
            time.sleep(0.001)

    def run(self) -> None:
        try:
            self._run()
        except BaseException as error:
            self.error = error
        finally:
            self.finished = True
            self.done.release()

    def _run(self) -> None:
        if not self.names:
            return
        with refusals(f"add namespace {self.names[0]}"):
            RUN_DIR.mkdir(mode=0o755, exist_ok=True)
            with run_dir() as folder:
                with self._locked(folder):
                    _share_run_dir()
                for name in self.names:
                    if self.stop:
                        return
                    with refusals(f"add namespace {name}"):
                        self._make(folder, name)

    def _make(self, folder: int, name: str) -> None:
        # First, as it takes the kernel longer than all the rest.
        libc.unshare(libc.CLONE_NEWNET)
        inode = os.stat(_OWN).st_ino
        with self._locked(folder):
            self._mount(RUN_DIR / name)
            self.inodes[name] = inode
            self.file = None

    def _mount(self, path: Path) -> None:
        while True:
            self._claim(path)
            try:
                libc.mount(_OWN, os.fspath(path), "none", libc.MS_BIND)
                return
            except FileNotFoundError:
                # `ip netns del` takes no lock: it came between the two.
                continue

    def _claim(self, path: Path) -> None:
        """Make the file to mount upon. The lock is held: no other netbpf is between the two."""
        try:
            os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, UNFINISHED))
        except FileExistsError as error:
            if not abandoned(path.name):
                raise taken(path.name) from error
        self.file = path

    def _locked(self, folder: int) -> AbstractContextManager[None]:
        return locked(folder, lambda: self.stop)

    def undo(self) -> None:
        """Take back what was made, unless somebody else has deleted and made it again."""
        for name, inode in self.inodes.items():
            path = RUN_DIR / name
            with suppress(OSError):
                if path.lstat().st_ino == inode:
                    libc.umount(os.fspath(path), libc.MNT_DETACH | libc.UMOUNT_NOFOLLOW)
                    path.unlink()
        if self.file is not None:
            with suppress(OSError):
                self.file.unlink()


def _share_run_dir() -> None:
    """Make /run/netns a shared mount, so that names propagate between mount namespaces.

    ip takes the same lock: two at once would mount the folder over itself again and again.
    """
    target = os.fspath(RUN_DIR)
    flags = libc.MS_SHARED | libc.MS_REC
    try:
        libc.mount("", target, "none", flags)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        libc.mount(target, target, "none", libc.MS_BIND | libc.MS_REC)
        libc.mount("", target, "none", flags)
