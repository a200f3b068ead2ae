"""The calls that Python does not offer: bpf(2), setns, unshare, mount, statfs, mmap and such.

Every function raises plain OSError with the errno the kernel gave.
"""

from __future__ import annotations

import ctypes
import errno
import os

_libc = ctypes.CDLL(None, use_errno=True)

_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_long]

_MACHINE = os.uname().machine
# scripts/syscall.tbl and arch/*/kernel/syscalls: aarch64 and riscv64 share the generic table.
_BPF_NUMBERS = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351}
_PERF_EVENT_NUMBERS = {"x86_64": 298, "aarch64": 241, "riscv64": 241, "s390x": 331}

CLONE_FS = 0x00000200
CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

_PROT_READ = 1
_PROT_WRITE = 2
_MAP_SHARED = 1
_MAP_PRIVATE = 2
_MAP_FIXED_NOREPLACE = 0x100000
_mmap = _libc.mmap
_mmap.restype = ctypes.c_void_p
_mmap.argtypes = [
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
]


class _Statfs(ctypes.Structure):
    # include/uapi/asm-generic/statfs.h; s390x alone has 32-bit words for the first two.
    _word = ctypes.c_uint if _MACHINE == "s390x" else ctypes.c_long
    _fields_ = [("f_type", _word), ("f_bsize", _word), ("_rest", ctypes.c_long * 30)]


def _fail(path: str | None = None) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), path)


def bpf(cmd: int, attr: ctypes.Structure, size: int | None = None) -> int:
    """Call bpf(2) with ``attr`` and return its result.

    :raises OSError: with the kernel's errno; ENOSYS on an architecture whose number is not known.
    """
    number = _BPF_NUMBERS.get(_MACHINE)
    if number is None:
        raise OSError(errno.ENOSYS, f"bpf(2) has no known number on {_MACHINE}")
    result: int = _syscall(
        number, cmd, ctypes.byref(attr), ctypes.sizeof(attr) if size is None else size
    )
    if result < 0:
        raise _fail()
    return result


def bpf_told(cmd: int, attr: ctypes.Structure, common: ctypes.Structure) -> int:
    """Call bpf(2) with the attributes that all commands share: a log of why it was refused.

    Since Linux 7.2 (kernel/bpf/syscall.c: BPF_COMMON_ATTRS), for those commands that know it.

    :raises OSError: with the kernel's errno; an older kernel says EINVAL.
    """
    number = _BPF_NUMBERS.get(_MACHINE)
    if number is None:
        raise OSError(errno.ENOSYS, f"bpf(2) has no known number on {_MACHINE}")
    # A function object of its own: this call has more arguments than the others.
    call = _libc["syscall"]
    call.restype = ctypes.c_long
    call.argtypes = [
        *(ctypes.c_long, ctypes.c_long, ctypes.c_void_p),
        *(ctypes.c_long, ctypes.c_void_p, ctypes.c_long),
    ]
    result: int = call(
        number,
        cmd,
        ctypes.byref(attr),
        ctypes.sizeof(attr),
        ctypes.byref(common),
        ctypes.sizeof(common),
    )
    if result < 0:
        raise _fail()
    return result


def perf_event_open(attr: ctypes.Structure, pid: int, cpu: int, flags: int) -> int:
    """perf_event_open(2) without a group: the event's descriptor.

    :raises OSError: with the kernel's errno; ENOSYS on an architecture whose number is not known.
    """
    number = _PERF_EVENT_NUMBERS.get(_MACHINE)
    if number is None:
        raise OSError(errno.ENOSYS, f"perf_event_open(2) has no known number on {_MACHINE}")
    # A function object of its own: this call has more arguments than bpf(2).
    call = _libc["syscall"]
    call.restype = ctypes.c_long
    call.argtypes = [ctypes.c_long, ctypes.c_void_p, *(ctypes.c_long for _ in range(4))]
    result: int = call(number, ctypes.byref(attr), pid, cpu, -1, flags)
    if result < 0:
        raise _fail()
    return result


def setns(fd: int, kind: int) -> None:
    """Move the calling thread into the namespace that ``fd`` refers to."""
    if _libc.setns(fd, kind) < 0:
        raise _fail()


def unshare(flags: int) -> None:
    """Give the calling thread new namespaces of its own."""
    if _libc.unshare(flags) < 0:
        raise _fail()


def mount(source: str, target: str, fstype: str, flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    result = _libc.mount(
        os.fsencode(source),
        os.fsencode(target),
        fstype.encode(),
        ctypes.c_ulong(flags),
        data.encode() or None,
    )
    if result < 0:
        raise _fail(target)


def umount(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    if _libc.umount2(os.fsencode(target), flags) < 0:
        raise _fail(target)


def filesystem_type(path: str) -> int:
    """The magic number of the filesystem that ``path`` lies on (statfs(2) f_type)."""
    buffer = _Statfs()
    if _libc.statfs(os.fsencode(path), ctypes.byref(buffer)) < 0:
        raise _fail(path)
    return int(buffer.f_type) & 0xFFFFFFFF


def map_forever(fd: int, size: int) -> memoryview:
    """The first ``size`` bytes of a file, mapped to be read for as long as the process lives.

    Python's own mmap keeps a descriptor open for it.
    """
    address = _mmap(None, size, _PROT_READ, _MAP_PRIVATE, fd, 0)
    if address is None or address == ctypes.c_void_p(-1).value:
        raise _fail()
    return memoryview((ctypes.c_ubyte * size).from_address(address)).cast("B").toreadonly()


def map_shared(fd: int, size: int, address: int = 0) -> int:
    """Map the first ``size`` bytes of a file to be read and written; the address.

    :param address: where it has to be; without it the kernel chooses. What is mapped there already
        stays (EEXIST).

    Since Linux 4.17 (mm/mmap.c: MAP_FIXED_NOREPLACE).
    """
    flags = _MAP_SHARED | (_MAP_FIXED_NOREPLACE if address else 0)
    found = _mmap(address or None, size, _PROT_READ | _PROT_WRITE, flags, fd, 0)
    if found is None or found == ctypes.c_void_p(-1).value:
        raise _fail()
    return int(found)


def unmap(address: int, size: int) -> None:
    """munmap(2)."""
    if _libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(size)) < 0:
        raise _fail()


class _Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


def _copy(name: str, buffer: ctypes.Array[ctypes.c_char], address: int, size: int) -> int:
    call = getattr(_libc, name)
    call.restype = ctypes.c_ssize_t
    call.argtypes = [ctypes.c_int, *(ctypes.c_void_p, ctypes.c_ulong) * 2, ctypes.c_ulong]
    here = _Vector(ctypes.addressof(buffer), size)
    there = _Vector(address, size)
    done: int = call(os.getpid(), ctypes.byref(here), 1, ctypes.byref(there), 1, 0)
    if done < 0:
        raise _fail()
    return done


def read_memory(address: int, size: int) -> bytes:
    """Bytes of this process, fewer where memory ends; EFAULT in place of a signal."""
    buffer = ctypes.create_string_buffer(size)
    done = _copy("process_vm_readv", buffer, address, size)
    return buffer.raw[:done]


def write_memory(address: int, data: bytes) -> int:
    """Write to memory of this process, and tell how much; EFAULT in place of a signal."""
    buffer = ctypes.create_string_buffer(data, len(data))
    return _copy("process_vm_writev", buffer, address, len(data))
