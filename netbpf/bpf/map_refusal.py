"""Why the kernel makes no map of such a type with such sizes: the rules of kernel/bpf/*map*.c."""

from __future__ import annotations

import ctypes
import errno

from netbpf.bpf import rights, syscall, uapi
from netbpf.errors import BpfError

_STORAGE = frozenset(
    {
        uapi.BPF_MAP_TYPE_SK_STORAGE,
        uapi.BPF_MAP_TYPE_INODE_STORAGE,
        uapi.BPF_MAP_TYPE_TASK_STORAGE,
        uapi.BPF_MAP_TYPE_CGRP_STORAGE,
    }
)
_MEMORY = frozenset(
    {
        uapi.BPF_MAP_TYPE_RINGBUF,
        uapi.BPF_MAP_TYPE_USER_RINGBUF,
        uapi.BPF_MAP_TYPE_ARENA,
    }
)
# Keys are numbers of elements, values descriptors.
_DESCRIPTORS = frozenset(
    {
        uapi.BPF_MAP_TYPE_PROG_ARRAY,
        uapi.BPF_MAP_TYPE_PERF_EVENT_ARRAY,
        uapi.BPF_MAP_TYPE_CGROUP_ARRAY,
        uapi.BPF_MAP_TYPE_ARRAY_OF_MAPS,
    }
)
_ARRAYS = _DESCRIPTORS | {uapi.BPF_MAP_TYPE_ARRAY, uapi.BPF_MAP_TYPE_PERCPU_ARRAY}


def explained(operation: str, number: int, attr: ctypes.Structure) -> BpfError:
    """The error of BPF_MAP_CREATE with ``attr``: in the kernel's words, where it has any."""
    if number == errno.EPERM:
        return BpfError(operation, number, "not permitted", hint=rights.hint(["CAP_BPF"]))
    if said := syscall.refusal(uapi.BPF_MAP_CREATE, attr):
        return BpfError(operation, number, "; ".join(said.splitlines()))
    if number != errno.EINVAL:
        return BpfError(operation, number)
    hint = None
    if not attr.max_entries and attr.map_type not in _STORAGE:
        name = attr.map_name.decode(errors="replace") or "NAME"
        hint = f"the file leaves its size to you: --map-size {name}=N"
    return BpfError(operation, number, _reason(attr), hint=hint)


def _reason(attr: ctypes.Structure) -> str:
    key, value, flags = attr.key_size, attr.value_size, attr.map_flags
    kind = f"a map of type {uapi.MAP_TYPE_NAMES.get(attr.map_type, attr.map_type)}"
    if attr.map_type in _MEMORY and (key or value):
        return f"{kind} has neither keys nor values, here they have {key} and {value} bytes"
    if attr.map_type in _ARRAYS and key != 4:
        return f"keys of {kind} have 4 bytes, not {key}"
    if attr.map_type in _DESCRIPTORS and value != 4:
        return f"values of {kind} have 4 bytes, not {value}"
    if attr.map_type in _STORAGE | {uapi.BPF_MAP_TYPE_LPM_TRIE}:
        if not flags & uapi.BPF_F_NO_PREALLOC:
            return f"{kind} wants the flag BPF_F_NO_PREALLOC"
    elif not attr.max_entries:
        return f"{kind} cannot have 0 entries"
    return (
        f"{kind} cannot have key size {key}, value size {value}, {attr.max_entries} entries and "
        f"flags {flags:#x}"
    )
