"""BTF that is loaded in the kernel."""

from __future__ import annotations

import ctypes

from netbpf.bpf import syscall, uapi
from netbpf.bpf.fd import FD
from netbpf.bpf.kobject import refused
from netbpf.btf.blob import Btf


def read(btf_id: int) -> Btf:
    """The loaded BTF with that id. Needs CAP_SYS_ADMIN.

    Since Linux 4.18 (kernel/bpf/btf.c: btf_get_info_by_fd).

    :raises BpfError: there is none, or it may not be read.
    """
    try:
        with FD(syscall.get_fd_by_id(uapi.BPF_BTF_GET_FD_BY_ID, btf_id)) as fd:
            info = syscall.obj_get_info(fd.fileno(), uapi.BtfInfo())
            data = ctypes.create_string_buffer(info.btf_size)
            again = uapi.BtfInfo(btf=ctypes.addressof(data), btf_size=info.btf_size)
            syscall.obj_get_info(fd.fileno(), again)
    except OSError as error:
        raise refused(f"read BTF {btf_id}", error, "CAP_SYS_ADMIN") from error
    return Btf.parse(data.raw)
