"""A network namespace as a handle: an open descriptor, checked to be what it is taken for."""

from __future__ import annotations

import fcntl
import os
import stat
import warnings
from pathlib import Path
from typing import Self

from netbpf.closing import Closing
from netbpf.errors import KernelError, NotFoundError
from netbpf.libc import CLONE_NEWNET
from netbpf.netns.names import RUN_DIR, check_name

_NS_GET_NSTYPE = 0xB703
"""include/uapi/linux/nsfs.h: _IO(0xb7, 0x3); the answer is the CLONE_ flag of its kind."""


class NetNS(Closing):
    """An open network namespace; it lives at least as long as this handle.

    Made by `from_name`, `from_path`, `from_pid`, `current` or `parse`, closed by `close` or by
    leaving its ``with`` block. ``name`` is its name under /run/netns, if it was found by one.
    """

    def __init__(self, fd: int, *, name: str | None = None, label: str | None = None) -> None:
        """Take ownership of ``fd``, which has to refer to a network namespace.

        :raises OSError: ENOTTY or EINVAL: the descriptor is none of a network namespace. It is
            still the caller's then.
        """
        if not is_netns(fd):
            raise OSError(22, "not a network namespace")
        self._fd = fd
        self.inode = os.fstat(fd).st_ino
        self.name = name
        self._label = label or name

    @classmethod
    def from_name(cls, name: str) -> Self:
        """Open the namespace called ``name``, as ``ip netns`` knows it.

        :raises ValueError: the name cannot be one.
        :raises NotFoundError: there is no such namespace.
        """
        check_name(name)
        return cls._open(RUN_DIR / name, name=name, label=name)

    @classmethod
    def from_path(cls, path: str | os.PathLike[str]) -> Self:
        """Open the namespace that ``path`` shows: a bind mount, or /proc/PID/ns/net.

        :raises NotFoundError: there is no such file, or it is no network namespace.
        """
        target = Path(path)
        name = target.name if _is_run_dir(target.parent) else None
        return cls._open(target, name=name, label=name or os.fspath(path))

    @classmethod
    def from_pid(cls, pid: int) -> Self:
        """Open the namespace in which the process ``pid`` (its main thread) is.

        :raises NotFoundError: there is no such process.
        :raises KernelError: EACCES or EPERM: not ours to look into.
        """
        if pid <= 0:
            raise ValueError(f"{pid} is no process id")
        try:
            return cls._open(Path(f"/proc/{pid}/ns/net"), name=None, label=f"pid:{pid}")
        except NotFoundError as error:
            raise NotFoundError("process", str(pid)) from error

    @classmethod
    def current(cls) -> Self:
        """Open the namespace in which the calling thread is."""
        return cls._open(Path("/proc/thread-self/ns/net"), name=None, label="the current namespace")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Open the namespace written as ``text``: a name under /run/netns, a path, or ``pid:N``.

        Whatever holds a ``/`` is a path.

        :raises ValueError: ``text`` is none of the three.
        :raises NotFoundError: there is no such namespace.
        """
        if "/" in text:
            if "\0" in text:
                raise ValueError("a path cannot hold a NUL character")
            return cls.from_path(text)
        if text.startswith("pid:"):
            digits = text.removeprefix("pid:")
            if not (digits.isascii() and digits.isdigit() and 0 < int(digits) < 1 << 31):
                raise ValueError(f"{text!r} is no process: write pid:N, as in pid:1234")
            return cls.from_pid(int(digits))
        return cls.from_name(text)

    @classmethod
    def _open(cls, path: Path, *, name: str | None, label: str) -> Self:
        try:
            # Looked at before it is opened: opening a device or a fifo can do things.
            if not stat.S_ISREG(path.stat().st_mode):
                raise _no_namespace(path, label)
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError, ProcessLookupError) as error:
            hint = what_there_is(name)
            if path.is_symlink():
                hint = f"{path} is a link that leads nowhere"
            raise NotFoundError("namespace", label, hint=hint) from error
        except OSError as error:
            hint = code = None
            if error.errno in (1, 13):
                code = "not_permitted"
                hint = "another user's process needs CAP_SYS_PTRACE, a file needs its permissions"
            operation = f"open namespace {label}"
            raise KernelError(operation, error.errno or 0, hint=hint, code=code) from error
        try:
            return cls(fd, name=name, label=label)
        except OSError as error:
            os.close(fd)
            raise _no_namespace(path, label) from error
        except BaseException:
            os.close(fd)
            raise

    def fileno(self) -> int:
        """The open descriptor.

        :raises ValueError: the handle is closed.
        """
        if self._fd < 0:
            raise ValueError(f"the handle of namespace {self} is closed")
        return self._fd

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._fd < 0

    def close(self) -> None:
        """Let go of the namespace; harmless when done twice."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def is_current(self) -> bool:
        """Whether the calling thread is in this namespace."""
        return Path("/proc/thread-self/ns/net").stat().st_ino == self.inode

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            warnings.warn(
                f"unclosed namespace {self!r}", ResourceWarning, stacklevel=2, source=self
            )
            self.close()

    def __str__(self) -> str:
        return self._label or f"net:[{self.inode}]"

    def __repr__(self) -> str:
        return f"<NetNS {self} inode={self.inode}>"

    def __eq__(self, other: object) -> bool:
        # Two open handles keep two namespaces alive, so equal inodes mean the same one.
        return isinstance(other, NetNS) and other.inode == self.inode

    def __hash__(self) -> int:
        return hash(self.inode)


def is_netns(fd: int) -> bool:
    """Whether the descriptor ``fd`` refers to a network namespace."""
    try:
        return fcntl.ioctl(fd, _NS_GET_NSTYPE) == CLONE_NEWNET
    except OSError:
        return False


def _is_run_dir(folder: Path) -> bool:
    try:
        return folder.samefile(RUN_DIR)
    except OSError:
        return False


def _no_namespace(path: Path, label: str) -> NotFoundError:
    hint = f"{path} is there, but it is no network namespace"
    if _is_run_dir(path.parent) and _left_over(path):
        hint += (
            f"; an interrupted `ip netns add` leaves such a file: `netbpf netns del {path.name}`"
        )
    return NotFoundError("namespace", label, hint=hint)


def _left_over(path: Path) -> bool:
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size == 0


def what_there_is(name: str | None) -> str | None:
    """A hint for who has named a namespace that is not there; None where it was no name."""
    if name is None:
        return None
    try:
        names = sorted(entry.name for entry in RUN_DIR.iterdir())
    except OSError:
        names = []
    if not names:
        return f"there is no named namespace; make one with `netbpf netns add {name}`"
    return "there are " + ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
