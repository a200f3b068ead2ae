"""What the running kernel can do, found out by trying it: it can, it cannot, or nobody knows.

Never by version number: distributions bring features to older kernels, and build others without
them. Asked only where a call failed, to do without or to explain.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from collections.abc import Callable, Sequence

from netbpf.bpf import syscall, uapi
from netbpf.bpf.fd import FD
from netbpf.btf import types as t
from netbpf.btf.header import MAGIC

_STRINGS = b"\0x\0.data\0?.data\0"
_X, _DATA, _MARKED = 1, 3, 9
_INT = (_X, t.KIND_INT << 24, 4, t.INT_SIGNED << 24 | 32)
_VAR = (_X, t.KIND_VAR << 24, 1, t.LINKAGE_STATIC)
_NO_COMPONENT = 0xFFFFFFFF
_BPF_FUNC_GET_ATTACH_COOKIE = 174

_known: dict[str, bool] = {}


def probe(feature: str) -> bool | None:
    """Whether the kernel has ``feature``: True, False, or None where trying it did not tell.

    None above all without the rights to try. What is certain is tried once in a process.

    :raises ValueError: no such feature is known.
    """
    try:
        attempt = _PROBES[feature]
    except KeyError:
        raise ValueError(f"no probe for {feature}; there are {', '.join(_PROBES)}") from None
    if feature in _known:
        return _known[feature]
    found = attempt()
    if found is not None:
        _known[feature] = found
    return found


def names() -> list[str]:
    """All features that there is a probe for."""
    return list(_PROBES)


def _btf(*types: Sequence[int]) -> Callable[[], bool | None]:
    """A probe that loads these types, each as its words of four bytes."""

    def attempt() -> bool | None:
        words = b"".join(struct.pack(f"={len(each)}I", *each) for each in types)
        head = struct.pack("=HBBIIIII", MAGIC, 1, 0, 24, 0, len(words), len(words), len(_STRINGS))
        data = head + words + _STRINGS
        buffer = ctypes.create_string_buffer(data, len(data))
        attr = uapi.BtfLoadAttr(btf=ctypes.addressof(buffer), btf_size=len(data))
        return _made(lambda: syscall.btf_load(attr))

    return attempt


def _cookie() -> bool | None:
    insns = struct.pack("=BBhiBBhi", 0x85, 0, 0, _BPF_FUNC_GET_ATTACH_COOKIE, 0x95, 0, 0, 0)
    buffer = ctypes.create_string_buffer(insns, len(insns))
    license = ctypes.create_string_buffer(b"GPL")
    attr = uapi.ProgLoadAttr(prog_type=uapi.BPF_PROG_TYPE_TRACEPOINT, insn_cnt=2)
    attr.insns, attr.license = ctypes.addressof(buffer), ctypes.addressof(license)
    return _made(lambda: syscall.prog_load(attr))


def _made(call: Callable[[], int]) -> bool | None:
    try:
        FD(call()).close()
    except OSError as error:
        return False if error.errno in (errno.EINVAL, errno.ENOENT, errno.ENOTSUP) else None
    return True


_PROBES: dict[str, Callable[[], bool | None]] = {
    # kernel/bpf/btf.c, with the release that brought each.
    "btf": _btf(_INT),  # 4.18
    "btf_func": _btf(  # 5.0
        _INT, (0, t.KIND_FUNC_PROTO << 24 | 1, 1, _X, 1), (_X, t.KIND_FUNC << 24, 2)
    ),
    "btf_datasec": _btf(_INT, _VAR, (_DATA, t.KIND_DATASEC << 24 | 1, 4, 2, 0, 4)),  # 5.2
    "btf_func_global": _btf(  # 5.6
        _INT,
        (0, t.KIND_FUNC_PROTO << 24 | 1, 1, _X, 1),
        (_X, t.KIND_FUNC << 24 | t.LINKAGE_GLOBAL, 2),
    ),
    "btf_float": _btf((_X, t.KIND_FLOAT << 24, 4)),  # 5.13
    "btf_decl_tag": _btf(_INT, _VAR, (_X, t.KIND_DECL_TAG << 24, 2, _NO_COMPONENT)),  # 5.16
    "btf_type_tag": _btf(  # 5.17
        _INT, (_X, t.KIND_TYPE_TAG << 24, 1), (0, t.KIND_PTR << 24, 2)
    ),
    "btf_enum64": _btf((_X, t.KIND_ENUM64 << 24 | 1, 8, _X, 0, 0)),  # 6.0
    "btf_section_names": _btf(  # 6.11: any sign in the name of a section
        _INT, _VAR, (_MARKED, t.KIND_DATASEC << 24 | 1, 4, 2, 0, 4)
    ),
    # kernel/trace/bpf_trace.c: bpf_get_attach_cookie; 5.15.
    "bpf_cookie": _cookie,
}
