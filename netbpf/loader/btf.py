"""Loading an object's BTF into the kernel."""

from __future__ import annotations

import ctypes
import errno

from netbpf.bpf import syscall, uapi
from netbpf.bpf.fd import FD
from netbpf.btf.blob import Btf

_LOG_SIZE = 1 << 16


def load(btf: Btf) -> FD | None:
    """The descriptor of ``btf`` in the kernel; None where the kernel refuses it.

    What needs it (source lines, types of maps) goes without then: no program is refused for it.

    Since Linux 4.18 (kernel/bpf/btf.c: btf_new_fd).
    """
    data = bytes(btf.data)
    buffer = ctypes.create_string_buffer(data, len(data))
    attr = uapi.BtfLoadAttr(btf=ctypes.addressof(buffer), btf_size=len(data))
    try:
        return FD(syscall.btf_load(attr))
    except OSError as error:
        if error.errno == errno.EPERM:
            return None  # the maps or the program will be refused, and say so
        reason = error.strerror
    # Imported only here: it costs a short command as much as loading its program does.
    import logging

    log = logging.getLogger("netbpf.loader")
    if log.isEnabledFor(logging.INFO):
        text = ctypes.create_string_buffer(_LOG_SIZE)
        attr.btf_log_buf, attr.btf_log_size = ctypes.addressof(text), _LOG_SIZE
        attr.btf_log_level = 1
        try:
            return FD(syscall.btf_load(attr))
        except OSError:
            said = text.value.decode(errors="replace").strip().splitlines()
            log.info("the kernel refuses the BTF: %s: %s", reason, said[-1] if said else "")
    return None
