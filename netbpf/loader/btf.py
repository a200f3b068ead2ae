"""Loading an object's BTF into the kernel."""

from __future__ import annotations

import ctypes
import errno

from netbpf.bpf import syscall, uapi
from netbpf.bpf.fd import FD
from netbpf.btf.blob import Btf
from netbpf.loader import log

_LOG_SIZE = 1 << 16


def load(btf: Btf) -> FD | None:
    """The descriptor of ``btf`` in the kernel; None where the kernel refuses it.

    What needs it (source lines, types of maps) goes without then: no program is refused for it.
    A kernel that does not know a kind of type gets it in terms of older ones.

    Since Linux 4.18 (kernel/bpf/btf.c: btf_new_fd).
    """
    if b"\0.ksyms\0" in btf.strings[1]:
        from netbpf.loader import sanitise

        btf = sanitise.placed(btf)
    try:
        return FD(_load(btf))
    except OSError as error:
        if error.errno == errno.EPERM:
            return None  # the maps or the program will be refused, and say so
        reason = error.strerror
    from netbpf import features
    from netbpf.loader import sanitise

    kinds = [name for name in features.names() if name.startswith("btf_")]
    lacking = [name for name in kinds if features.probe(name) is False]
    if lacking:
        log.info("the kernel lacks %s: the BTF goes without", ", ".join(lacking))
        btf = sanitise.sanitised(btf, lacking)
    text = ctypes.create_string_buffer(_LOG_SIZE)
    try:
        return FD(_load(btf, text))
    except OSError:
        said = text.value.decode(errors="replace").strip().splitlines()
        log.warning("the kernel refuses the BTF: %s: %s", reason, said[-1] if said else "")
    return None


def _load(btf: Btf, text: ctypes.Array[ctypes.c_char] | None = None) -> int:
    data = bytes(btf.data)
    buffer = ctypes.create_string_buffer(data, len(data))
    attr = uapi.BtfLoadAttr(btf=ctypes.addressof(buffer), btf_size=len(data))
    if text is not None:
        attr.btf_log_buf, attr.btf_log_size = ctypes.addressof(text), len(text)
        attr.btf_log_level = 1
    return syscall.btf_load(attr)
