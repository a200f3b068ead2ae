"""Creating an object's maps in the kernel, and what goes into them before programs run."""

from __future__ import annotations

import errno
import os
import struct

from netbpf.bpf import map as bpf_map
from netbpf.bpf import uapi
from netbpf.bpf.map import Map
from netbpf.elf.externs import KCONFIG
from netbpf.elf.spec import MapSpec, ObjectSpec
from netbpf.errors import BpfError, ConflictError, NetbpfError, NotFoundError
from netbpf.loader import log
from netbpf.records import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

# libbpf's default for maps that are pinned by name.
PIN_ROOT = "/sys/fs/bpf"
# Maps whose keys and values the kernel refuses to be described by BTF (kernel/bpf/syscall.c:
# map_check_btf, and the map_check_btf of the types).
_NO_BTF = frozenset(
    {
        uapi.BPF_MAP_TYPE_PERF_EVENT_ARRAY,
        uapi.BPF_MAP_TYPE_CGROUP_ARRAY,
        uapi.BPF_MAP_TYPE_STACK_TRACE,
        uapi.BPF_MAP_TYPE_ARRAY_OF_MAPS,
        uapi.BPF_MAP_TYPE_HASH_OF_MAPS,
        uapi.BPF_MAP_TYPE_DEVMAP,
        uapi.BPF_MAP_TYPE_DEVMAP_HASH,
        uapi.BPF_MAP_TYPE_CPUMAP,
        uapi.BPF_MAP_TYPE_XSKMAP,
        uapi.BPF_MAP_TYPE_SOCKMAP,
        uapi.BPF_MAP_TYPE_SOCKHASH,
        uapi.BPF_MAP_TYPE_QUEUE,
        uapi.BPF_MAP_TYPE_STACK,
        uapi.BPF_MAP_TYPE_ARENA,
    }
)
# What two maps that are used alike have in common.
_SHAPE = ("type", "key size", "value size", "max_entries")
_DEVMAPS = (uapi.BPF_MAP_TYPE_DEVMAP, uapi.BPF_MAP_TYPE_DEVMAP_HASH)
_RINGBUFS = (uapi.BPF_MAP_TYPE_RINGBUF, uapi.BPF_MAP_TYPE_USER_RINGBUF)


def is_arena(spec: MapSpec) -> bool:
    """Whether the map is memory with addresses of its own, not one of keys and values."""
    return spec.type == uapi.BPF_MAP_TYPE_ARENA


def described(spec: ObjectSpec, each: MapSpec) -> MapSpec:
    """``each`` of the object's maps, an arena with the variables that lie in it."""
    image = spec.arena
    if image is None or each.name != image.map:
        return each
    return replace(
        each, section=image.section, value_type_id=image.value_type_id, contents=image.contents
    )


def create(spec: MapSpec, btf_fd: int) -> Map:
    """Create the map that ``spec`` describes, with the sizes that this machine wants.

    :param btf_fd: the object's BTF in the kernel, 0 for none.
    :raises BpfError: the kernel refused.
    """
    inner: Map | None = None
    if spec.inner is not None:
        inner = create(spec.inner, btf_fd)
    try:
        return _create(spec, btf_fd, inner.fileno() if inner is not None else 0)
    finally:
        if inner is not None:
            inner.close()


def _create(spec: MapSpec, btf_fd: int, inner_fd: int) -> Map:
    described = btf_fd and spec.type not in _NO_BTF and (spec.key_type_id or spec.value_type_id)
    if described:
        try:
            return _call(spec, inner_fd, btf_fd)
        except BpfError as error:
            # The description may be what the kernel does not like, then it has to be done without.
            if error.errno in (errno.EPERM, errno.ENOMEM):
                raise
            log.info("map %s: %s; it goes without a description", spec.name, error)
    return _call(spec, inner_fd, 0)


def _call(spec: MapSpec, inner_fd: int, btf_fd: int) -> Map:
    return bpf_map.create(
        spec.type,
        key_size=spec.key_size,
        value_size=spec.value_size,
        max_entries=entries(spec),
        flags=spec.flags,
        name=spec.name,
        inner_map_fd=inner_fd,
        btf_fd=btf_fd,
        btf_key_type_id=spec.key_type_id if btf_fd else 0,
        btf_value_type_id=spec.value_type_id if btf_fd else 0,
        map_extra=spec.map_extra,
        numa_node=spec.numa_node,
    )


def entries(spec: MapSpec) -> int:
    """``max_entries`` on this machine: a page size that fits, a CPU count where none is given."""
    if spec.type == uapi.BPF_MAP_TYPE_PERF_EVENT_ARRAY and not spec.max_entries:
        return bpf_map.possible_cpus()
    if spec.type in _RINGBUFS and spec.max_entries:
        # A ring buffer is a power of two pages long (kernel/bpf/ringbuf.c: ringbuf_map_alloc).
        size = os.sysconf("SC_PAGE_SIZE")
        while size < spec.max_entries and size < 1 << 31:
            size *= 2
        return size
    return spec.max_entries


def check_reuse(spec: MapSpec, found: Map) -> None:
    """Whether a map that exists already can stand for ``spec``.

    :raises ConflictError: it is another kind of map.
    """
    if difference := _difference(spec, found, _SHAPE):
        word, ours, theirs = difference
        raise ConflictError(
            f"map {spec.name} cannot be map {found.id}: its {word} is {ours}, not {theirs}"
        )


def pinned(spec: MapSpec, btf_fd: int, fill_new: Callable[[Map, MapSpec], None]) -> Map:
    """The one map for all objects that define it (LIBBPF_PIN_BY_NAME), made where none is yet.

    :param fill_new: gives a new one its contents, before others can find it.
    :raises ConflictError: what is pinned there is another map. :raises BpfError: refused.
    """
    path = os.path.join(PIN_ROOT, spec.name)
    try:
        found = Map.from_pin(path)
    except NotFoundError:
        made = create(spec, btf_fd)
        try:
            fill_new(made, spec)
            made.pin(path)
        except NetbpfError:
            made.close()
            raise
        return made
    try:
        check_pinned(spec, found, path)
    except NetbpfError:
        found.close()
        raise
    return found


def check_pinned(spec: MapSpec, found: Map, path: str) -> None:
    """Whether the map pinned at ``path`` is the one that ``spec`` defines, as libbpf asks it.

    :raises ConflictError: it is another.
    """
    if difference := _difference(spec, found, (*_SHAPE, "flags", "map_extra")):
        word, ours, theirs = difference
        raise ConflictError(
            f"use the map pinned at {path} as map {spec.name}: {word} {theirs} there, {ours} here",
            hint=f"remove that pin, or name another map: --map {spec.name}=PIN",
        )


def _difference(
    spec: MapSpec, found: Map, words: Collection[str]
) -> tuple[str, object, object] | None:
    info = found.info()
    # The kernel adds it to what it tells of a device map (kernel/bpf/devmap.c: dev_map_alloc).
    added = uapi.BPF_F_RDONLY_PROG if spec.type in _DEVMAPS else 0
    for word, ours, theirs in (
        ("type", spec.type_name, info.type_name),
        ("key size", spec.key_size, info.key_size),
        ("value size", spec.value_size, info.value_size),
        ("max_entries", entries(spec), info.max_entries),
        ("flags", hex(spec.flags | added), hex(info.flags | added)),
        ("map_extra", hex(spec.map_extra), hex(info.map_extra)),
    ):
        if word in words and ours != theirs:
            return word, ours, theirs
    return None


def fill(found: Map, spec: MapSpec, contents: bytes) -> None:
    """Give a data section's map its initial value, and freeze it when it is read-only."""
    found.update(bytes(4), contents)
    if constant(spec):
        found.freeze()


def constant(spec: MapSpec) -> bool:
    """Whether nobody writes it once it is loaded: constants, and values of the configuration."""
    return spec.read_only or spec.section == KCONFIG


def read(found: Map, spec: MapSpec) -> bytes:
    """A data section's value now."""
    value = found.lookup(bytes(4))
    if value is None or len(value) != spec.value_size:
        raise ValueError(f"map {spec.name} is no data section")
    return value


def write(found: Map, spec: MapSpec, offset: int, data: bytes) -> None:
    """Change a piece of a data section while programs use it.

    Through a mapping, where the map can be mapped: what programs write beside it is left alone.
    """
    if spec.flags & uapi.BPF_F_MMAPABLE:
        import mmap

        try:
            with mmap.mmap(found.fileno(), spec.value_size) as view:
                view[offset : offset + len(data)] = data
            return
        except OSError:
            # One with locks or timers in its values cannot (kernel/bpf/syscall.c: bpf_map_mmap).
            pass
    value = bytearray(read(found, spec))
    value[offset : offset + len(data)] = data
    found.update(bytes(4), bytes(value))


def fill_slots(found: Map, spec: MapSpec, targets: Mapping[str, int]) -> None:
    """Put maps or programs, by descriptor, where ``.values`` wants them."""
    for index, name in spec.slots:
        if name in targets:
            found.update(struct.pack("=I", index), struct.pack("=I", targets[name]))
