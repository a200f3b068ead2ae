"""libbpf as a witness: what it reads from an object file, by way of ctypes. Tests only."""

from __future__ import annotations

import ctypes
import os
from ctypes import POINTER, c_bool, c_char_p, c_int, c_size_t, c_uint32, c_uint64, c_void_p
from pathlib import Path
from typing import Any

_TYPES: dict[str, tuple[Any, ...]] = {
    "bpf_object__open_file": (c_void_p, c_char_p, c_void_p),
    "bpf_object__close": (None, c_void_p),
    "bpf_object__kversion": (c_uint32, c_void_p),
    "bpf_object__next_program": (c_void_p, c_void_p, c_void_p),
    "bpf_program__name": (c_char_p, c_void_p),
    "bpf_program__section_name": (c_char_p, c_void_p),
    "bpf_program__type": (c_int, c_void_p),
    "bpf_program__expected_attach_type": (c_int, c_void_p),
    "bpf_program__autoload": (c_bool, c_void_p),
    "bpf_program__insn_cnt": (c_size_t, c_void_p),
    "bpf_program__insns": (c_void_p, c_void_p),
    "bpf_object__next_map": (c_void_p, c_void_p, c_void_p),
    "bpf_map__name": (c_char_p, c_void_p),
    "bpf_map__type": (c_int, c_void_p),
    "bpf_map__key_size": (c_uint32, c_void_p),
    "bpf_map__value_size": (c_uint32, c_void_p),
    "bpf_map__max_entries": (c_uint32, c_void_p),
    "bpf_map__map_flags": (c_uint32, c_void_p),
    "bpf_map__map_extra": (c_uint64, c_void_p),
    "bpf_map__numa_node": (c_uint32, c_void_p),
    "bpf_map__btf_key_type_id": (c_uint32, c_void_p),
    "bpf_map__btf_value_type_id": (c_uint32, c_void_p),
    "bpf_map__pin_path": (c_char_p, c_void_p),
    "bpf_map__autocreate": (c_bool, c_void_p),
    "bpf_map__initial_value": (c_void_p, c_void_p, POINTER(c_size_t)),
    "bpf_map__inner_map": (c_void_p, c_void_p),
}


def _library() -> Any:
    # Another release than the system's can be named, to compare with by hand.
    library = ctypes.CDLL(os.environ.get("NETBPF_TEST_LIBBPF", "libbpf.so.1"), use_errno=True)
    for name, (result, *arguments) in _TYPES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    library.libbpf_set_print(None)
    return library


def opened(path: Path) -> dict[str, Any] | None:
    """What libbpf sees in an object file before it is loaded; None where it refuses it."""
    lib = _library()
    obj = lib.bpf_object__open_file(os.fsencode(path), None)
    if not obj:
        return None
    try:
        programs = []
        prog = lib.bpf_object__next_program(obj, None)
        while prog:
            programs.append(
                {
                    "name": lib.bpf_program__name(prog).decode(),
                    "section": lib.bpf_program__section_name(prog).decode(),
                    "type": lib.bpf_program__type(prog),
                    "attach_type": lib.bpf_program__expected_attach_type(prog),
                    "autoload": lib.bpf_program__autoload(prog),
                    "insns": ctypes.string_at(
                        lib.bpf_program__insns(prog), 8 * lib.bpf_program__insn_cnt(prog)
                    ),
                }
            )
            prog = lib.bpf_object__next_program(obj, prog)
        maps = []
        found = lib.bpf_object__next_map(obj, None)
        while found:
            maps.append(_map(lib, found))
            found = lib.bpf_object__next_map(obj, found)
        return {
            "version": lib.bpf_object__kversion(obj),
            "programs": programs,
            "maps": maps,
        }
    finally:
        lib.bpf_object__close(obj)


def _map(lib: Any, found: int) -> dict[str, Any]:
    pin = lib.bpf_map__pin_path(found)
    inner = lib.bpf_map__inner_map(found)
    size = c_size_t()
    value = lib.bpf_map__initial_value(found, ctypes.byref(size))
    return {
        "name": lib.bpf_map__name(found).decode(),
        "type": lib.bpf_map__type(found),
        "key_size": lib.bpf_map__key_size(found),
        "value_size": lib.bpf_map__value_size(found),
        "max_entries": lib.bpf_map__max_entries(found),
        "flags": lib.bpf_map__map_flags(found),
        "map_extra": lib.bpf_map__map_extra(found),
        "numa_node": lib.bpf_map__numa_node(found),
        "key_type_id": lib.bpf_map__btf_key_type_id(found),
        "value_type_id": lib.bpf_map__btf_value_type_id(found),
        "pinned": pin is not None,
        "autocreate": lib.bpf_map__autocreate(found),
        "contents": ctypes.string_at(value, size.value) if value else None,
        "inner": _map(lib, inner) if inner else None,
    }
