"""Perf events that programs hang at: tracepoints, and probes of functions.

They take and return plain descriptors, own nothing and raise plain OSError.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import re

from netbpf import libc

TRACEFS = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")
"""Where tracefs is mounted by custom."""

_EVENT_SOURCES = "/sys/bus/event_source/devices"

# include/uapi/linux/perf_event.h
_PERF_TYPE_TRACEPOINT = 2
_PERF_FLAG_FD_CLOEXEC = 1 << 3
_IOC_ENABLE = 0x2400
_IOC_SET_BPF = 0x40042408


class _Attr(ctypes.Structure):
    # struct perf_event_attr as of PERF_ATTR_SIZE_VER1, which every kernel with bpf(2) takes.
    _fields_ = [
        ("type", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("config", ctypes.c_uint64),
        ("sample_period", ctypes.c_uint64),
        ("sample_type", ctypes.c_uint64),
        ("read_format", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
        ("wakeup_events", ctypes.c_uint32),
        ("bp_type", ctypes.c_uint32),
        ("config1", ctypes.c_uint64),
        ("config2", ctypes.c_uint64),
    ]


def tracefs() -> str | None:
    """The folder of tracefs; None where it is not mounted, or may not be looked into."""
    return next((path for path in TRACEFS if os.path.isdir(f"{path}/events")), None)


def tracepoint(category: str, name: str) -> int:
    """A descriptor of the tracepoint, for all processes.

    Since Linux 4.7 (kernel/trace/bpf_trace.c). :raises OSError: ENOENT without tracefs as well.
    """
    folder = tracefs()
    if folder is None:
        raise FileNotFoundError(2, "tracefs is not mounted", TRACEFS[0])
    with open(f"{folder}/events/{category}/{name}/id") as file:
        number = int(file.read())
    attr = _Attr(type=_PERF_TYPE_TRACEPOINT, config=number)
    return _open(attr, -1)


def probe(
    kind: str,
    target: str,
    offset: int,
    *,
    at_return: bool = False,
    pid: int = -1,
    semaphore: int = 0,
) -> int:
    """A descriptor of a kprobe at a function, or of a uprobe at a place in a file.

    :param kind: ``kprobe`` or ``uprobe``.
    :param offset: from the function's start; of a uprobe from the file's.
    :param pid: of a uprobe, only in that process; -1 is every process.
    :param semaphore: of a uprobe, where in the file the program counts who looks, 0 for nowhere.
        Since Linux 4.20 (kernel/events/core.c: PERF_UPROBE_REF_CTR_OFFSET_SHIFT).

    Since Linux 4.17 (kernel/events/core.c: perf_kprobe_event_init, perf_uprobe_event_init).
    :raises OSError: ENOENT where the kernel has no such probes.
    """
    folder = f"{_EVENT_SOURCES}/{kind}"
    with open(f"{folder}/type") as file:
        number = int(file.read())
    config = 0
    if at_return:
        config |= 1 << _first_bit(f"{folder}/format/retprobe")
    if semaphore:
        config |= semaphore << _first_bit(f"{folder}/format/ref_ctr_offset")
    name = ctypes.create_string_buffer(os.fsencode(target))
    attr = _Attr(type=number, config=config, config1=ctypes.addressof(name), config2=offset)
    return _open(attr, pid)


def _first_bit(path: str) -> int:
    with open(path) as file:
        bit = re.search(r"config:(\d+)", file.read())
    return int(bit[1] if bit else 0)


def _open(attr: _Attr, pid: int) -> int:
    attr.size = ctypes.sizeof(attr)
    # One CPU stands for all: the program is called by the probe, not by the event's count.
    cpu = 0 if pid < 0 else -1
    return libc.perf_event_open(attr, pid, cpu, _PERF_FLAG_FD_CLOEXEC)


def enable(perf_fd: int) -> None:
    """Let the event happen."""
    fcntl.ioctl(perf_fd, _IOC_ENABLE, 0)


def set_program(perf_fd: int, prog_fd: int) -> None:
    """Hang a program at the event without a link, as before Linux 5.15; it ends with the event."""
    fcntl.ioctl(perf_fd, _IOC_SET_BPF, prog_fd)
