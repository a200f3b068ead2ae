"""What programs, maps and links have in common: a descriptor, an id, pins."""

from __future__ import annotations

import errno
import os
import time

from netbpf.bpf import bpffs, syscall
from netbpf.bpf import pin as pins
from netbpf.bpf.fd import FD, kind_of
from netbpf.closing import Closing
from netbpf.errors import BpfError, NetbpfError, NotFoundError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import ClassVar, Self

_TRIES, _PAUSE = 50, 0.002


def refused(operation: str, error: OSError, needs: str = "CAP_BPF") -> BpfError:
    """The error of an object's own operation; ``needs`` is what EPERM says is missing."""
    number = error.errno or errno.EIO
    if number == errno.EPERM:
        return BpfError(
            operation,
            number,
            "not permitted",
            hint=f"needs {needs} (run as root)",
        )
    return BpfError(operation, number)


def open_any_pin(path: str, wanted: str) -> tuple[FD, str]:
    """What is pinned at ``path``, and which kind of object it is.

    :param wanted: the kind that is looked for, for the message.
    :raises NotFoundError: nothing is there.
    :raises NetbpfError: what is there is no pin, or the caller may not open it.
    """
    try:
        fd = FD(syscall.obj_get(path))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise NotFoundError(f"pinned {wanted}", path) from error
        if error.errno == errno.EPERM and pins.is_dotted(path):
            hint = "a name on a bpffs cannot contain a dot"
            raise NotFoundError(f"pinned {wanted}", path, hint=hint) from error
        # kernel/bpf/inode.c: bpf_inode_type has this answer for what is no pin.
        if error.errno == errno.EACCES and _may_open(path):
            raise NetbpfError(
                f"{path} is not a pin",
                code="not_a_pin",
                hint="a pin lies on a bpffs, usually below /sys/fs/bpf",
            ) from error
        if error.errno == errno.EACCES:
            raise bpffs.refused(f"open pin {path}", error) from error
        raise refused(f"open pin {path}", error) from error
    return fd, kind_of(fd.fileno())


def _may_open(path: str) -> bool:
    """Whether the rights of ``path`` let the caller open a pin there; off a bpffs none is meant."""
    if not os.path.exists(path):
        return False
    return not bpffs.is_bpffs(path) or os.access(path, os.R_OK | os.W_OK, effective_ids=True)


def wrong_kind(path: str, found: str, wanted: str) -> NetbpfError:
    """The error of a pin that holds another kind of object."""
    return NetbpfError(f"{path} pins a {found}, not a {wanted}", code="wrong_kind")


class KernelObject(Closing):
    """An open BPF object; closing it lets go of it, the object lives while anybody holds it."""

    kind: ClassVar[str]
    _next_id_cmd: ClassVar[int]
    _fd_by_id_cmd: ClassVar[int]

    def __init__(self, fd: FD) -> None:
        self._fd = fd

    @classmethod
    def from_fd(cls, fd: int) -> Self:
        """A second descriptor for what ``fd`` refers to; ``fd`` stays the caller's.

        :raises ValueError: when it refers to something of another kind.
        """
        found = kind_of(fd)
        if found != cls.kind:
            raise ValueError(f"descriptor {fd} is a {found}, not a {cls.kind}")
        return cls(FD(os.dup(fd)))

    @classmethod
    def from_id(cls, number: int) -> Self:
        """The object with that id.

        Needs CAP_SYS_ADMIN (kernel/bpf/syscall.c: bpf_prog_get_fd_by_id and its like).

        :raises NotFoundError: there is none, or it is still being made.
        :raises BpfError: not permitted.
        """
        if not 0 < number < 2**32:
            raise NotFoundError(cls.kind, f"with id {number}")
        for attempt in range(_TRIES):
            try:
                return cls(FD(syscall.get_fd_by_id(cls._fd_by_id_cmd, number)))
            except OSError as error:
                # A link has its id before it is there (kernel/bpf/syscall.c: bpf_link_by_id).
                if error.errno == errno.EAGAIN and attempt < _TRIES - 1:
                    time.sleep(_PAUSE)
                    continue
                if error.errno in (errno.ENOENT, errno.EAGAIN):
                    raise NotFoundError(cls.kind, f"with id {number}") from error
                raise refused(f"open {cls.kind} {number}", error, "CAP_SYS_ADMIN") from error
        raise AssertionError("the last try returns or raises")

    @classmethod
    def from_pin(cls, path: str) -> Self:
        """The object pinned at ``path``.

        :raises NotFoundError: nothing is there.
        :raises NetbpfError: what is there is not a pin, or pins another kind of object.
        """
        fd, kind = open_any_pin(path, cls.kind)
        if kind != cls.kind:
            fd.close()
            raise wrong_kind(path, kind, cls.kind)
        return cls(fd)

    @classmethod
    def ids(cls) -> Iterator[int]:
        """The ids of all objects of this kind, rising. Needs CAP_SYS_ADMIN."""
        number = 0
        while True:
            try:
                number = syscall.get_next_id(cls._next_id_cmd, number)
            except OSError as error:
                if error.errno == errno.ENOENT:
                    return
                raise refused(f"list {cls.kind}s", error, "CAP_SYS_ADMIN") from error
            yield number

    def fileno(self) -> int:
        """The descriptor's number."""
        return self._fd.fileno()

    @property
    def closed(self) -> bool:
        """Whether this handle was closed."""
        return self._fd.closed

    def pin(self, path: str) -> None:
        """Give the object a name on a bpffs, which keeps it alive.

        :raises BpfError: the kernel refused; the reason says why.
        """
        pins.create(self.fileno(), path, self.kind)

    def close(self) -> None:
        """Let go of the object; a second call does nothing."""
        self._fd.close()
