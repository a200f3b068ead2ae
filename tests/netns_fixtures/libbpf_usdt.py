"""libbpf as a witness: what a program finds at a probe that libbpf attached it to. Tests only."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from ctypes import c_char_p, c_int, c_size_t, c_uint64, c_void_p
from pathlib import Path
from typing import Any

from netbpf.bpf.map import Map

_TYPES: dict[str, tuple[Any, ...]] = {
    "bpf_object__open_file": (c_void_p, c_char_p, c_void_p),
    "bpf_object__load": (c_int, c_void_p),
    "bpf_object__close": (None, c_void_p),
    "bpf_object__find_program_by_name": (c_void_p, c_void_p, c_char_p),
    "bpf_object__find_map_fd_by_name": (c_int, c_void_p, c_char_p),
    "bpf_program__attach_usdt": (
        c_void_p,
        c_void_p,
        c_int,
        c_char_p,
        c_char_p,
        c_char_p,
        c_void_p,
    ),
    "bpf_link__destroy": (c_int, c_void_p),
}


class _Options(ctypes.Structure):
    # libbpf.h: struct bpf_usdt_opts.
    _fields_ = [("sz", c_size_t), ("usdt_cookie", c_uint64)]


def attached(
    object_file: Path, program: str, probed: Path, name: str, cookie: int, do: Callable[[], None]
) -> dict[str, list[bytes]]:
    """The values of the maps of arrays after ``do``, with a program attached to ``netbpf:name``."""
    lib = ctypes.CDLL(os.environ.get("NETBPF_TEST_LIBBPF", "libbpf.so.1"), use_errno=True)
    for function, (result, *arguments) in _TYPES.items():
        found = getattr(lib, function)
        found.restype, found.argtypes = result, arguments
    lib.libbpf_set_print(None)
    options = _Options(sz=ctypes.sizeof(_Options), usdt_cookie=cookie)
    obj = lib.bpf_object__open_file(os.fsencode(object_file), None)
    assert obj
    try:
        assert lib.bpf_object__load(obj) == 0
        prog = lib.bpf_object__find_program_by_name(obj, program.encode())
        link = lib.bpf_program__attach_usdt(
            prog, -1, os.fsencode(probed), b"netbpf", name.encode(), ctypes.byref(options)
        )
        assert link, os.strerror(ctypes.get_errno())
        do()
        values = {
            each: contents(lib.bpf_object__find_map_fd_by_name(obj, each.encode()))
            for each in ("hits", "__bpf_usdt_specs")
        }
        lib.bpf_link__destroy(link)
        return values
    finally:
        lib.bpf_object__close(obj)


def contents(fd: int) -> list[bytes]:
    """The values of an array."""
    with Map.from_fd(fd) as opened:
        entries = opened.info().max_entries
        found = [opened.lookup(number.to_bytes(4, "little")) for number in range(entries)]
    return [value for value in found if value is not None]
