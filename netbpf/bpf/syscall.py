"""One thin function per bpf(2) command.

They take and return what the kernel takes and returns, own nothing and raise plain OSError with
the kernel's errno. Descriptors are plain numbers here; fd.py gives them an owner.
"""

from __future__ import annotations

import ctypes
import os

from netbpf import libc
from netbpf.bpf import uapi
from netbpf.bpf.macros import BPF_OBJ_NAME_LEN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar

    Info = TypeVar("Info", bound=ctypes.Structure)


_LOG_SIZE = 4096


def _address(buffer: Any) -> int:
    return ctypes.addressof(buffer)


def _buffer(data: bytes) -> Any:
    return ctypes.create_string_buffer(data, len(data))


def object_name(name: str) -> bytes:
    """``name`` as the kernel takes it: at most 15 bytes, others than ``[A-Za-z0-9_.]`` replaced.

    See ``bpf_obj_name_cpy`` in kernel/bpf/syscall.c.
    """
    allowed = (c if c.isascii() and (c.isalnum() or c in "_.") else "_" for c in name)
    return "".join(allowed).encode()[: BPF_OBJ_NAME_LEN - 1]


def map_create(attr: ctypes.Structure) -> int:
    """BPF_MAP_CREATE: a new map's descriptor. ``attr`` is a ``uapi.MapCreateAttr``."""
    return libc.bpf(uapi.BPF_MAP_CREATE, attr)


def refusal(cmd: int, attr: ctypes.Structure) -> str:
    """The kernel's own words of why it refuses ``cmd``, which it has refused before.

    Empty where it has none: it serves BPF_MAP_CREATE, BPF_PROG_LOAD and BPF_BTF_LOAD, and that
    since Linux 7.2 (kernel/bpf/syscall.c: BPF_COMMON_ATTRS). The latter two have logs in attributes
    of their own, which say the same and which older kernels know.
    """
    log = ctypes.create_string_buffer(_LOG_SIZE)
    common = uapi.CommonAttr(log_buf=_address(log), log_size=_LOG_SIZE, log_level=1)
    try:
        # Should it not be refused any more, it is not what was asked for.
        os.close(libc.bpf_told(cmd | uapi.BPF_COMMON_ATTRS, attr, common))
    except OSError:
        return log.value.decode(errors="replace").strip()
    return ""


def map_lookup_elem(fd: int, key: bytes, value_size: int, flags: int = 0) -> bytes:
    """BPF_MAP_LOOKUP_ELEM: the value at ``key``, ``value_size`` bytes as user space sees them."""
    key_buffer, value = _buffer(key), ctypes.create_string_buffer(value_size)
    attr = uapi.MapElemAttr(map_fd=fd, key=_address(key_buffer), flags=flags)
    attr.value = _address(value)
    libc.bpf(uapi.BPF_MAP_LOOKUP_ELEM, attr)
    return value.raw


def map_update_elem(fd: int, key: bytes, value: bytes, flags: int = 0) -> None:
    """BPF_MAP_UPDATE_ELEM."""
    key_buffer, value_buffer = _buffer(key), _buffer(value)
    attr = uapi.MapElemAttr(map_fd=fd, key=_address(key_buffer), flags=flags)
    attr.value = _address(value_buffer)
    libc.bpf(uapi.BPF_MAP_UPDATE_ELEM, attr)


def map_delete_elem(fd: int, key: bytes) -> None:
    """BPF_MAP_DELETE_ELEM."""
    key_buffer = _buffer(key)
    libc.bpf(uapi.BPF_MAP_DELETE_ELEM, uapi.MapElemAttr(map_fd=fd, key=_address(key_buffer)))


def map_get_next_key(fd: int, key: bytes | None, key_size: int) -> bytes:
    """BPF_MAP_GET_NEXT_KEY: the key after ``key``, the first for None; ENOENT after the last."""
    following = ctypes.create_string_buffer(key_size)
    attr = uapi.MapElemAttr(map_fd=fd)
    attr.next_key = _address(following)
    if key is not None:
        key_buffer = _buffer(key)
        attr.key = _address(key_buffer)
    libc.bpf(uapi.BPF_MAP_GET_NEXT_KEY, attr)
    return following.raw


def map_freeze(fd: int) -> None:
    """BPF_MAP_FREEZE: no more writes from user space."""
    libc.bpf(uapi.BPF_MAP_FREEZE, uapi.MapElemAttr(map_fd=fd))


def prog_load(attr: ctypes.Structure) -> int:
    """BPF_PROG_LOAD: a new program's descriptor. ``attr`` is a ``uapi.ProgLoadAttr``."""
    return libc.bpf(uapi.BPF_PROG_LOAD, attr)


def prog_bind_map(prog_fd: int, map_fd: int) -> None:
    """BPF_PROG_BIND_MAP: the program holds the map from now on, though it does not use it."""
    libc.bpf(uapi.BPF_PROG_BIND_MAP, uapi.ProgBindMapAttr(prog_fd=prog_fd, map_fd=map_fd))


def btf_load(attr: ctypes.Structure) -> int:
    """BPF_BTF_LOAD: a new BTF object's descriptor. ``attr`` is a ``uapi.BtfLoadAttr``."""
    return libc.bpf(uapi.BPF_BTF_LOAD, attr)


def obj_pin(fd: int, path: str) -> None:
    """BPF_OBJ_PIN: a name on a bpffs for the object behind ``fd``."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    libc.bpf(uapi.BPF_OBJ_PIN, uapi.ObjPinAttr(pathname=_address(name), bpf_fd=fd))


def obj_get(path: str, flags: int = 0) -> int:
    """BPF_OBJ_GET: a descriptor of the object pinned at ``path``."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    return libc.bpf(uapi.BPF_OBJ_GET, uapi.ObjPinAttr(pathname=_address(name), file_flags=flags))


def prog_attach(attr: ctypes.Structure) -> None:
    """BPF_PROG_ATTACH. ``attr`` is a ``uapi.ProgAttachAttr``."""
    libc.bpf(uapi.BPF_PROG_ATTACH, attr)


def prog_detach(attr: ctypes.Structure) -> None:
    """BPF_PROG_DETACH. ``attr`` is a ``uapi.ProgAttachAttr``."""
    libc.bpf(uapi.BPF_PROG_DETACH, attr)


def prog_query(attr: ctypes.Structure) -> None:
    """BPF_PROG_QUERY: fills ``attr``, a ``uapi.ProgQueryAttr``; ENOSPC still fills the count."""
    libc.bpf(uapi.BPF_PROG_QUERY, attr)


def link_create(attr: ctypes.Structure) -> int:
    """BPF_LINK_CREATE: a new link's descriptor. ``attr`` is a ``uapi.LinkCreateAttr``."""
    return libc.bpf(uapi.BPF_LINK_CREATE, attr)


def link_update(fd: int, new_prog_fd: int, old_prog_fd: int | None = None, flags: int = 0) -> None:
    """BPF_LINK_UPDATE; with ``old_prog_fd`` (and BPF_F_REPLACE) only if that is the program now."""
    attr = uapi.LinkUpdateAttr(link_fd=fd, flags=flags)
    attr.new_prog_fd = new_prog_fd
    if old_prog_fd is not None:
        attr.old_prog_fd = old_prog_fd
    libc.bpf(uapi.BPF_LINK_UPDATE, attr)


def link_detach(fd: int) -> None:
    """BPF_LINK_DETACH: the link stays as an object, defunct."""
    libc.bpf(uapi.BPF_LINK_DETACH, uapi.LinkDetachAttr(link_fd=fd))


def enable_stats(kind: int = uapi.BPF_STATS_RUN_TIME) -> int:
    """BPF_ENABLE_STATS: a descriptor that keeps the statistics on."""
    return libc.bpf(uapi.BPF_ENABLE_STATS, uapi.EnableStatsAttr(type=kind))


def prog_test_run(attr: ctypes.Structure) -> None:
    """BPF_PROG_TEST_RUN: runs once or more and fills ``attr``, a ``uapi.TestRunAttr``."""
    libc.bpf(uapi.BPF_PROG_TEST_RUN, attr)


def get_next_id(cmd: int, start: int) -> int:
    """BPF_*_GET_NEXT_ID: the smallest id above ``start``; ENOENT after the last."""
    attr = uapi.GetIdAttr(start_id=start)
    libc.bpf(cmd, attr)
    return int(attr.next_id)


def get_fd_by_id(cmd: int, number: int) -> int:
    """BPF_*_GET_FD_BY_ID: a descriptor of the object with that id."""
    return libc.bpf(cmd, uapi.GetIdAttr(start_id=number))


def obj_get_info(fd: int, info: Info) -> Info:
    """BPF_OBJ_GET_INFO_BY_FD: fills ``info`` (fields a kernel does not know stay as they are)."""
    attr = uapi.ObjInfoAttr(bpf_fd=fd, info_len=ctypes.sizeof(info), info=_address(info))
    libc.bpf(uapi.BPF_OBJ_GET_INFO_BY_FD, attr)
    return info
