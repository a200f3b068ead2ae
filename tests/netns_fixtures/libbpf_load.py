"""What an object is in the kernel: loaded by libbpf (ctypes) and by netbpf, in the same words."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable, Iterable
from ctypes import c_bool, c_char_p, c_int, c_size_t, c_uint32, c_void_p
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from netbpf import libc, loader
from netbpf.bpf import syscall, uapi
from netbpf.bpf.map import Map
from netbpf.bpf.prog import Program
from netbpf.errors import KernelError, NetbpfError
from netbpf.netns.enter import in_thread

_PRINT = ctypes.CFUNCTYPE(c_int, c_int, c_char_p, c_void_p)
_TYPES: dict[str, tuple[Any, ...]] = {
    "bpf_object__open_file": (c_void_p, c_char_p, c_void_p),
    "bpf_object__load": (c_int, c_void_p),
    "bpf_object__close": (None, c_void_p),
    "bpf_object__next_program": (c_void_p, c_void_p, c_void_p),
    "bpf_program__name": (c_char_p, c_void_p),
    "bpf_program__fd": (c_int, c_void_p),
    "bpf_program__set_autoload": (c_int, c_void_p, c_bool),
    "bpf_object__next_map": (c_void_p, c_void_p, c_void_p),
    "bpf_map__name": (c_char_p, c_void_p),
    "bpf_map__fd": (c_int, c_void_p),
    "bpf_map__autocreate": (c_bool, c_void_p),
    "bpf_map__type": (c_int, c_void_p),
    "bpf_map__max_entries": (c_uint32, c_void_p),
    "bpf_map__set_max_entries": (c_int, c_void_p, c_uint32),
}
# Maps that tools give their size only when they run.
_SIZED = (
    uapi.BPF_MAP_TYPE_HASH,
    uapi.BPF_MAP_TYPE_ARRAY,
    uapi.BPF_MAP_TYPE_PERCPU_HASH,
    uapi.BPF_MAP_TYPE_PERCPU_ARRAY,
    uapi.BPF_MAP_TYPE_CPUMAP,
    uapi.BPF_MAP_TYPE_DEVMAP,
)
_OF_MAPS = (uapi.BPF_MAP_TYPE_ARRAY_OF_MAPS, uapi.BPF_MAP_TYPE_HASH_OF_MAPS)
# What /proc/self/fdinfo says of objects that are made alike.
_PROGRAM_WORDS = ("prog_type", "prog_tag", "verified_insns")
_MAP_WORDS = ("map_type", "key_size", "value_size", "max_entries", "map_flags", "map_extra")
_MORE_MAP_WORDS = ("frozen", "owner_prog_type")

Said = dict[str, object]


@dataclass
class Outcome:
    """What became of an object: refused for a reason, or its programs and maps by name.

    ``names`` are those of all programs, where libbpf could open the object; ``pins`` are the names
    that have come to be below /sys/fs/bpf.
    """

    refused: str | None = None
    errno: int = 0
    names: list[str] = field(default_factory=list)
    programs: dict[str, Said] = field(default_factory=dict)
    maps: dict[str, Said] = field(default_factory=dict)
    pins: list[str] = field(default_factory=list)


def by_libbpf(path: Path, only: str = "") -> Outcome:
    """Load an object with libbpf, look at it, and let go of it.

    :param only: one program; maps without a size get one then.
    """
    return _apart(lambda: _by_libbpf(path, only))


def by_netbpf(path: Path, only: str = "") -> Outcome:
    """Load an object with netbpf as libbpf does with the same arguments."""
    return _apart(lambda: _by_netbpf(path, only))


def compared(path: Path) -> tuple[Outcome, Outcome, dict[str, tuple[object, object]]]:
    """What netbpf and libbpf make of an object, and where they differ.

    Of an object that both refuse, also how each of its programs fares alone.
    """
    ours, theirs = by_netbpf(path), by_libbpf(path)
    found = differences(ours, theirs)
    if theirs.refused is not None and not found:
        for name in theirs.names:
            alone = differences(by_netbpf(path, name), by_libbpf(path, name))
            found |= {f"{name} alone: {words}": pair for words, pair in alone.items()}
    return ours, theirs, found


def differences(ours: Outcome, theirs: Outcome) -> dict[str, tuple[object, object]]:
    """Where two outcomes differ: what is meant in a few words, and both values."""
    if ours.refused is not None or theirs.refused is not None:
        if (ours.refused is None) == (theirs.refused is None):
            return {}
        return {"outcome": (ours.refused or "loaded", theirs.refused or "loaded")}
    found: dict[str, tuple[object, object]] = {}
    if ours.pins != theirs.pins:
        found["pins"] = (ours.pins, theirs.pins)
    for kind, mine, others in (
        ("program", ours.programs, theirs.programs),
        ("map", ours.maps, theirs.maps),
    ):
        if mine.keys() != others.keys():
            found[f"{kind}s"] = (sorted(mine), sorted(others))
        for name in mine.keys() & others.keys():
            for word in sorted(mine[name].keys() | others[name].keys()):
                pair = (mine[name].get(word), others[name].get(word))
                if pair[0] != pair[1]:
                    found[f"{kind} {name} {word}"] = pair
    return found


def _apart(function: Callable[[], Outcome]) -> Outcome:
    # Objects pin maps by name: with a bpffs of their own they meet nobody's.
    def alone() -> Outcome:
        libc.unshare(libc.CLONE_NEWNS)
        libc.mount("none", "/", "", libc.MS_REC | libc.MS_PRIVATE)
        libc.mount("bpf", "/sys/fs/bpf", "bpf")
        return function()

    return in_thread(alone)


def _by_netbpf(path: Path, only: str) -> Outcome:
    try:
        with loader.open(path) as obj:
            for each in obj.spec.maps:
                if only and each.type in _SIZED and not each.max_entries:
                    obj.resize(each.name, 64)
            obj.load(only=[only] if only else ())
            return Outcome(
                programs={name: _program(p.fileno()) for name, p in obj.programs.items()},
                maps={name: _map(m.fileno()) for name, m in obj.maps.items()},
                pins=sorted(os.listdir("/sys/fs/bpf")),
            )
    except NetbpfError as error:
        return Outcome(str(error), error.errno if isinstance(error, KernelError) else 0)


def _by_libbpf(path: Path, only: str) -> Outcome:
    lib = ctypes.CDLL(os.environ.get("NETBPF_TEST_LIBBPF", "libbpf.so.1"), use_errno=True)
    for name, (result, *arguments) in _TYPES.items():
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    said: list[str] = []
    libc_all = ctypes.CDLL(None)

    def hear(level: int, text: bytes, values: int) -> int:
        buffer = ctypes.create_string_buffer(512)
        libc_all.vsnprintf(buffer, c_size_t(len(buffer)), text, c_void_p(values))
        if level == 0:
            said.append(buffer.value.decode(errors="replace").strip())
        return 0

    listener = _PRINT(hear)
    lib.libbpf_set_print(listener)
    try:
        obj = lib.bpf_object__open_file(os.fsencode(path), None)
        if not obj:
            return Outcome("open: " + "; ".join(said[:4]), ctypes.get_errno())
        try:
            programs = {
                lib.bpf_program__name(each).decode(): each
                for each in _each(lib.bpf_object__next_program, obj)
            }
            found = {
                lib.bpf_map__name(each).decode(): each
                for each in _each(lib.bpf_object__next_map, obj)
            }
            if only:
                _narrow(lib, programs, found.values(), only)
            status = lib.bpf_object__load(obj)
            if status:
                return Outcome("load: " + "; ".join(said[:4]), -status, names=list(programs))
            fds = {name: lib.bpf_program__fd(each) for name, each in programs.items()}
            # What is left out may have a descriptor all the same, of nothing in particular.
            map_fds = {
                name: lib.bpf_map__fd(each) if lib.bpf_map__autocreate(each) else -1
                for name, each in found.items()
            }
            return Outcome(
                names=list(programs),
                programs={name: _program(fd) for name, fd in fds.items() if fd >= 0},
                maps={name: _map(fd) for name, fd in map_fds.items() if fd >= 0},
                pins=sorted(os.listdir("/sys/fs/bpf")),
            )
        finally:
            lib.bpf_object__close(obj)
    finally:
        lib.libbpf_set_print(None)


def _narrow(lib: Any, programs: dict[str, int], maps: Iterable[int], only: str) -> None:
    for name, each in programs.items():
        lib.bpf_program__set_autoload(each, name == only)
    for each in maps:
        if lib.bpf_map__type(each) in _SIZED and not lib.bpf_map__max_entries(each):
            lib.bpf_map__set_max_entries(each, 64)


def _each(following: Any, obj: int) -> list[int]:
    found: list[int] = []
    while at := following(obj, found[-1] if found else None):
        found.append(at)
    return found


def _program(fd: int) -> Said:
    raw = uapi.ProgInfo()
    syscall.obj_get_info(fd, raw)
    return {
        **_fdinfo(fd, _PROGRAM_WORDS),
        "name": raw.name,
        "instructions": raw.xlated_prog_len,
        "functions": raw.nr_func_info,
        "lines": raw.nr_line_info,
        "attach_btf_id": raw.attach_btf_id,
        "maps": raw.nr_map_ids,
        "described": bool(raw.btf_id),
    }


def _map(fd: int) -> Said:
    raw = uapi.MapInfo()
    syscall.obj_get_info(fd, raw)
    with Map.from_fd(fd) as opened:
        return {
            **_fdinfo(fd, (*_MAP_WORDS, *_MORE_MAP_WORDS)),
            "name": raw.name,
            "types": (raw.btf_key_type_id, raw.btf_value_type_id, raw.btf_vmlinux_value_type_id),
            "contents": _contents(opened, raw.type),
        }


def _contents(opened: Map, kind: int) -> object:
    if kind in _OF_MAPS:
        return {key: _inner(value) for key, value in _entries(opened)}
    if kind == uapi.BPF_MAP_TYPE_PROG_ARRAY:
        return {key: _tag(value) for key, value in _entries(opened)}
    if kind in (uapi.BPF_MAP_TYPE_ARRAY, uapi.BPF_MAP_TYPE_PERCPU_ARRAY):
        # A large one is all zeros but at its start.
        return [
            opened.lookup(struct.pack("=I", i)) for i in range(min(opened.info().max_entries, 8))
        ]
    return None


def _entries(opened: Map) -> list[tuple[bytes, int]]:
    found = []
    # A map is no mapping, it has no other way to be walked.
    for key in opened.keys():  # noqa: SIM118
        try:
            value = opened.lookup(key)
        except NetbpfError:
            value = None
        if value is not None:
            found.append((key, struct.unpack("=I", value)[0]))
    return found


def _inner(number: int) -> Said:
    with Map.from_id(number) as inner:
        return _fdinfo(inner.fileno(), _MAP_WORDS) | {"name": inner.info().name}


def _tag(number: int) -> str:
    with Program.from_id(number) as program:
        return program.info().tag


def _fdinfo(fd: int, words: tuple[str, ...]) -> Said:
    lines = Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines()
    told = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    return {word: told.get(word) for word in words}
