"""Users of a queue: an AF_XDP socket, and an io_uring that receives without copies; by hand."""

from __future__ import annotations

import ctypes
import mmap
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from netbpf.netns import NetNS, entered

_libc = ctypes.CDLL(None, use_errno=True)

# include/uapi/linux/if_xdp.h
_AF_XDP, _SOL_XDP = 44, 283
_RX_RING, _UMEM_REG, _FILL_RING, _COMPLETION_RING = 2, 4, 5, 6
COPY, ZEROCOPY = 2, 4

# include/uapi/linux/io_uring.h; the numbers are the same on every architecture.
_SETUP, _REGISTER = 425, 427
_CQE32, _SINGLE_ISSUER, _DEFER_TASKRUN = 1 << 11, 1 << 12, 1 << 13
_REGISTER_ZCRX_IFQ = 32
_TYPE_USER = 1


def _memory(size: int) -> tuple[mmap.mmap, int]:
    memory = mmap.mmap(-1, size)
    return memory, ctypes.addressof(ctypes.c_char.from_buffer(memory))


def _fail() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


@contextmanager
def xdp_socket(ns: NetNS, ifindex: int, queue: int, mode: int) -> Iterator[socket.socket]:
    """An AF_XDP socket bound to a queue of a device.

    :param mode: COPY or ZEROCOPY.
    :raises OSError: the kernel refused.
    """
    with entered(ns):
        made = socket.socket(_AF_XDP, socket.SOCK_RAW)
    with made:
        _, address = _memory(16 * 4096)
        made.setsockopt(
            _SOL_XDP, _UMEM_REG, struct.pack("=QQIIII", address, 16 * 4096, 4096, 0, 0, 0)
        )
        for ring in (_FILL_RING, _COMPLETION_RING, _RX_RING):
            made.setsockopt(_SOL_XDP, ring, 16)
        place = struct.pack("=HHIII", _AF_XDP, mode, ifindex, queue, 0)
        if _libc.bind(made.fileno(), place, len(place)) < 0:
            raise _fail()
        yield made


@contextmanager
def zero_copy_receive(ns: NetNS, ifindex: int, queue: int) -> Iterator[None]:
    """An io_uring that has taken over an rx queue of a device.

    :raises OSError: the kernel refused.
    """
    parameters = bytearray(120)
    struct.pack_into("=I", parameters, 8, _CQE32 | _SINGLE_ISSUER | _DEFER_TASKRUN)
    held = (ctypes.c_char * len(parameters)).from_buffer(parameters)
    ring = _libc.syscall(_SETUP, 8, held)
    if ring < 0:
        raise _fail()
    try:
        size = 64 * 4096
        _, area_at = _memory(size)
        _, refill_at = _memory(4096)
        area = ctypes.create_string_buffer(
            struct.pack("=QQQIIQQ", area_at, size, 0, 0, 0, 0, 0), 48
        )
        region = ctypes.create_string_buffer(
            struct.pack("=QQIIQQQQQ", refill_at, 4096, _TYPE_USER, 0, 0, 0, 0, 0, 0), 64
        )
        request = struct.pack("=IIII", ifindex, queue, 64, 0)
        request += struct.pack("=QQ", ctypes.addressof(area), ctypes.addressof(region))
        wanted = ctypes.create_string_buffer(request, 96)
        with entered(ns):
            if _libc.syscall(_REGISTER, ring, _REGISTER_ZCRX_IFQ, wanted, 1) < 0:
                raise _fail()
        yield
    finally:
        os.close(ring)
