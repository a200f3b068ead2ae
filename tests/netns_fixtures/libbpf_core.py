"""What libbpf makes of CO-RE relocations, by way of ctypes; objects with others than their own."""

from __future__ import annotations

import ctypes
import os
import struct
from ctypes import c_bool, c_char_p, c_int, c_size_t, c_uint32, c_void_p
from pathlib import Path
from typing import Any

from netbpf.elf.file import ElfFile

Record = tuple[int, int, int, int]
"""Of .BTF.ext: the instruction's offset, the type, the string offset of the access, the kind."""

_RECORD = struct.Struct("=4I")
_HEAD = struct.Struct("=3I")


class _Options(ctypes.Structure):
    # libbpf.h: struct bpf_object_open_opts, as far as it is needed.
    _fields_ = (
        ("sz", c_size_t),
        ("object_name", c_char_p),
        ("relaxed_maps", c_bool),
        ("relaxed_core_relocs", c_bool),
        ("pin_root_path", c_char_p),
        ("attach_prog_fd", c_uint32),
        ("kconfig", c_char_p),
        ("btf_custom_path", c_char_p),
    )


_PRINT = ctypes.CFUNCTYPE(c_int, c_int, c_char_p, c_void_p)
_FAILED = ("failed to relocate:", "failed to patch insn", "candidate search failed")


def _library() -> Any:
    # Another release than the system's can be named, to compare with by hand.
    library = ctypes.CDLL(os.environ.get("NETBPF_TEST_LIBBPF", "libbpf.so.1"), use_errno=True)
    library.bpf_object__open_mem.restype = c_void_p
    library.bpf_object__open_mem.argtypes = [c_char_p, c_size_t, c_void_p]
    library.bpf_object__load.argtypes = [c_void_p]
    library.bpf_object__close.argtypes = [c_void_p]
    library.bpf_object__next_program.restype = c_void_p
    library.bpf_object__next_program.argtypes = [c_void_p, c_void_p]
    library.bpf_program__insns.restype = c_void_p
    library.bpf_program__insns.argtypes = [c_void_p]
    library.bpf_program__insn_cnt.restype = c_size_t
    library.bpf_program__insn_cnt.argtypes = [c_void_p]
    return library


def version() -> tuple[int, int]:
    """The release of libbpf, (1, 8)."""
    lib = _library()
    return lib.libbpf_major_version(), lib.libbpf_minor_version()


def fitted(data: bytes, btf: Path) -> bytes | None:
    """The instructions of an object's one program, fitted to the types in ``btf``.

    None where libbpf refuses a relocation. What the verifier says of the program does not matter.
    """
    lib = _library()
    libc = ctypes.CDLL(None)
    said = []

    def hear(level: int, text: bytes, values: int) -> int:
        buffer = ctypes.create_string_buffer(4096)
        libc.vsnprintf(buffer, c_size_t(len(buffer)), text, c_void_p(values))
        said.append(buffer.value.decode(errors="replace"))
        return 0

    listener = _PRINT(hear)
    options = _Options(
        sz=ctypes.sizeof(_Options), object_name=b"core", btf_custom_path=os.fsencode(btf)
    )
    lib.libbpf_set_print(listener)
    try:
        obj = lib.bpf_object__open_mem(data, len(data), ctypes.byref(options))
        assert obj, said
        try:
            lib.bpf_object__load(obj)
            prog = lib.bpf_object__next_program(obj, None)
            insns = ctypes.string_at(
                lib.bpf_program__insns(prog), 8 * lib.bpf_program__insn_cnt(prog)
            )
        finally:
            lib.bpf_object__close(obj)
    finally:
        lib.libbpf_set_print(None)
    return None if any(words in line for line in said for words in _FAILED) else insns


def records(data: bytes) -> list[Record]:
    """The CO-RE relocations of an object that has them in one section."""
    at = _place(data)
    size, _, count = _HEAD.unpack_from(data, at)
    assert size == _RECORD.size
    return [_RECORD.unpack_from(data, at + _HEAD.size + i * size) for i in range(count)]


def replaced(data: bytes, wanted: list[Record]) -> bytes:
    """The object with other relocations, no more than it has."""
    changed = bytearray(data)
    at = _place(data)
    size, section, count = _HEAD.unpack_from(data, at)
    assert len(wanted) <= count
    _HEAD.pack_into(changed, at, size, section, len(wanted))
    for number, record in enumerate(wanted):
        _RECORD.pack_into(changed, at + _HEAD.size + number * size, *record)
    start = _section(data, ".BTF.ext")
    struct.pack_into("=I", changed, start + 28, _HEAD.size + len(wanted) * size)
    return bytes(changed)


def expecting(data: bytes, section: str, offset: int, value: int) -> bytes:
    """The object with ``value`` in the instruction at ``offset``, where relocations look for it."""
    changed = bytearray(data)
    at = _section(data, section) + offset
    code = changed[at]
    if code & 7 in (1, 2, 3):
        struct.pack_into("=H", changed, at + 2, value & 0xFFFF)
    elif code & 7 in (4, 7) or code == 0x18:
        struct.pack_into("=I", changed, at + 4, value & 0xFFFFFFFF)
    if code == 0x18:
        struct.pack_into("=I", changed, at + 12, value >> 32 & 0xFFFFFFFF)
    return bytes(changed)


def _place(data: bytes) -> int:
    start = _section(data, ".BTF.ext")
    length, offset = struct.unpack_from("=4xI16xI", data, start)
    return start + int(length) + int(offset)


def _section(data: bytes, name: str) -> int:
    section = ElfFile("object", data).section(name)
    assert section is not None
    return section.offset
