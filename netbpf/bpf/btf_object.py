"""BTF that is loaded in the kernel."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from netbpf.bpf import syscall, uapi
from netbpf.bpf.fd import FD
from netbpf.bpf.kobject import refused
from netbpf.btf.blob import Btf

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
