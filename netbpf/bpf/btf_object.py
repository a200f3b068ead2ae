"""BTF that is loaded in the kernel."""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Callable

from netbpf.bpf import syscall, uapi
from netbpf.bpf.fd import FD
from netbpf.bpf.kobject import refused
from netbpf.btf.blob import Btf
from netbpf.errors import NotFoundError

_NAME_SIZE = 64


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
