"""BTF that is loaded in the kernel."""

from __future__ import annotations

import ctypes
import errno

from netbpf.bpf import syscall, uapi
from netbpf.bpf.fd import FD
from netbpf.bpf.kobject import refused
from netbpf.btf.blob import Btf
from netbpf.errors import BpfError, NotFoundError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_NAME_SIZE = 64
_LOG_FIRST = 1 << 16
# A log tells of each type; nobody reads one larger than this.
_LOG_LAST = 1 << 26


def load(data: bytes | memoryview) -> FD:
    """Load BTF into the kernel: first without a log, and again with one only when it is refused.

    :raises BpfError: with the kernel's words of what is wrong.

    Since Linux 4.18 (kernel/bpf/btf.c: btf_new_fd).
    """
    buffer = ctypes.create_string_buffer(bytes(data), len(data))
    attr = uapi.BtfLoadAttr(btf=ctypes.addressof(buffer), btf_size=len(data))
    try:
        return FD(syscall.btf_load(attr))
    except OSError as error:
        if error.errno == errno.EPERM:
            raise refused("load BTF", error) from error
        # The log is as old as BTF is; common attributes (syscall.refusal) have the same words.
        lines = _log_of(attr).splitlines()
        number = error.errno or errno.EIO
        raise BpfError("load BTF", number, lines[-1] if lines else None) from error


def _log_of(attr: ctypes.Structure) -> str:
    """The log of BTF that was refused, asked for again until it fits; its end says why."""
    size = _LOG_FIRST
    while True:
        log = ctypes.create_string_buffer(size)
        attr.btf_log_buf, attr.btf_log_size = ctypes.addressof(log), size
        attr.btf_log_level = 1
        try:
            # Should it be taken now, it is not what was asked for.
            FD(syscall.btf_load(attr)).close()
        except OSError as error:
            if error.errno == errno.ENOSPC and size < _LOG_LAST:
                size *= 8
                continue
        return log.value.decode(errors="replace").strip()


def read(btf_id: int, kernel: Callable[[], Btf] | None = None) -> Btf:
    """The loaded BTF with that id. Needs CAP_SYS_ADMIN.

    Since Linux 4.18 (kernel/bpf/btf.c: btf_get_info_by_fd).

    :param kernel: gives the kernel's types, which those of a module go on from.
    :raises BpfError: there is none, or it may not be read.
    """
    try:
        with FD(syscall.get_fd_by_id(uapi.BPF_BTF_GET_FD_BY_ID, btf_id)) as fd:
            info = syscall.obj_get_info(fd.fileno(), uapi.BtfInfo())
            data = ctypes.create_string_buffer(info.btf_size)
            name = ctypes.create_string_buffer(_NAME_SIZE)
            again = uapi.BtfInfo(
                btf=ctypes.addressof(data),
                btf_size=info.btf_size,
                name=ctypes.addressof(name),
                name_len=_NAME_SIZE,
            )
            syscall.obj_get_info(fd.fileno(), again)
    except OSError as error:
        raise refused(f"read BTF {btf_id}", error, "CAP_SYS_ADMIN") from error
    module = bool(again.kernel_btf) and name.value != b"vmlinux"
    return Btf.parse(data.raw, kernel() if module and kernel is not None else None)


def open_module(module: str) -> FD:
    """A descriptor of the types that a kernel module brings. Needs CAP_SYS_ADMIN.

    :raises NotFoundError: no such module is loaded, or it brings no types.
    :raises BpfError: loaded BTF may not be read.

    Since Linux 5.11 (kernel/bpf/btf.c: btf_module_notify).
    """
    number = 0
    while True:
        try:
            number = syscall.get_next_id(uapi.BPF_BTF_GET_NEXT_ID, number)
            fd = FD(syscall.get_fd_by_id(uapi.BPF_BTF_GET_FD_BY_ID, number))
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise refused("look for a module's types", error, "CAP_SYS_ADMIN") from error
            # The last one was seen, or one went while we looked at it.
            if number and _is_there(number):
                continue
            raise NotFoundError("module with types", module) from error
        if _is_module(fd, module):
            return fd
        fd.close()


def _is_there(number: int) -> bool:
    try:
        syscall.get_next_id(uapi.BPF_BTF_GET_NEXT_ID, number)
    except OSError:
        return False
    return True


def _is_module(fd: FD, module: str) -> bool:
    name = ctypes.create_string_buffer(_NAME_SIZE)
    info = uapi.BtfInfo(name=ctypes.addressof(name), name_len=_NAME_SIZE)
    try:
        syscall.obj_get_info(fd.fileno(), info)
    except OSError:
        return False
    return bool(info.kernel_btf) and name.value == module.encode()
