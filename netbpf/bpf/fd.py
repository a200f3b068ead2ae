"""A descriptor with an owner, and what a descriptor refers to."""

from __future__ import annotations

import fcntl
import os
import warnings

from netbpf.closing import Closing

# What /proc/PID/fd/N points to, by kind (kernel/bpf/syscall.c: anon_inode_getfd).
ANON_INODES = {
    "anon_inode:bpf-prog": "program",
    "anon_inode:bpf-map": "map",
    # From the call that made it, and from a pin or an id (bpf_link_prime and bpf_link_new_fd).
    "anon_inode:bpf_link": "link",
    "anon_inode:bpf-link": "link",
    "anon_inode:[perf_event]": "perf event",
    "anon_inode:btf": "btf",
}


def kind_of(fd: int) -> str:
    """What the descriptor refers to: program, map, link, btf, or what /proc calls it."""
    target = os.readlink(f"/proc/self/fd/{fd}")
    return ANON_INODES.get(target, target)


class FD(Closing):
    """Owns one file descriptor and closes it once.

    Never 0: the kernel reads 0 in ``union bpf_attr`` as "none", so a descriptor 0 is moved up.
    A leaked one is closed with a ResourceWarning.
    """

    __slots__ = ("__weakref__", "_fd")

    def __init__(self, fd: int) -> None:
        if fd < 0:
            raise ValueError(f"not a file descriptor: {fd}")
        if fd == 0:
            fd = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 3)
            os.close(0)
        self._fd = fd

    def fileno(self) -> int:
        """The descriptor's number; ValueError once it is closed."""
        if self._fd < 0:
            raise ValueError("the descriptor is closed")
        return self._fd

    @property
    def closed(self) -> bool:
        """Whether the descriptor is closed, or was given away."""
        return self._fd < 0

    def close(self) -> None:
        """Close the descriptor; a second call does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def detach(self) -> int:
        """Give the descriptor to the caller, who closes it from now on."""
        fd = self.fileno()
        self._fd = -1
        return fd

    def dup(self) -> FD:
        """A second descriptor for the same kernel object, with an owner of its own."""
        return FD(fcntl.fcntl(self.fileno(), fcntl.F_DUPFD_CLOEXEC, 3))

    def __repr__(self) -> str:
        return f"FD({self._fd})" if self._fd >= 0 else "FD(closed)"

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
            self.close()
