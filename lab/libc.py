"""The mount calls that Python has no name for."""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)

CLONE_NEWNS = 0x00020000
MS_RDONLY = 0x1
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MNT_DETACH = 0x2
MOUNT_ATTR_RDONLY = 0x1
_PR_SET_PDEATHSIG = 1
_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000
# One number everywhere, as for all calls since 5.0 (include/uapi/asm-generic/unistd.h).
_NR_MOUNT_SETATTR = 442


class _MountAttr(ctypes.Structure):
    # struct mount_attr, include/uapi/linux/mount.h
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def _check(result: int, operation: str) -> None:
    if result < 0:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno), operation)


def unshare(flags: int) -> None:
    """unshare(2).

    :raises OSError: the kernel's answer.
    """
    _check(_libc.unshare(flags), "unshare")


def mount(source: str, target: Path, fstype: str, flags: int, data: str = "") -> None:
    """mount(2).

    :raises OSError: the kernel's answer.
    """
    result = _libc.mount(
        source.encode(), os.fsencode(target), fstype.encode(), ctypes.c_ulong(flags), data.encode()
    )
    _check(result, f"mount {target}")


def die_with(parent: int) -> None:
    """Have the kernel kill this process when *parent* ends; for a child, right after its fork.

    :raises OSError: the kernel's answer.
    """
    _check(_libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL)), "prctl")
    if os.getppid() != parent:  # it ended before the call
        os.kill(os.getpid(), signal.SIGKILL)


def detach(target: str) -> None:
    """Take a mount and everything below it out of this namespace.

    :raises OSError: the kernel's answer.
    """
    _check(_libc.umount2(os.fsencode(target), MNT_DETACH), f"umount {target}")


def make_tree_read_only(target: Path) -> None:
    """Make the mount at *target* and all below it read-only.

    :raises OSError: the kernel's answer; ENOSYS before Linux 5.12.

    Since Linux 5.12 (fs/namespace.c, mount_setattr).
    """
    attr = _MountAttr(MOUNT_ATTR_RDONLY, 0, 0, 0)
    result = _libc.syscall(
        ctypes.c_long(_NR_MOUNT_SETATTR),
        ctypes.c_int(_AT_FDCWD),
        ctypes.c_char_p(os.fsencode(target)),
        ctypes.c_uint(_AT_RECURSIVE),
        ctypes.byref(attr),
        ctypes.c_size_t(ctypes.sizeof(attr)),
    )
    _check(result, f"mount_setattr {target}")
