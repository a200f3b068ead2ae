"""Maps: creating one, finding one, reading and writing its elements."""

from __future__ import annotations

import errno

from netbpf.bpf import syscall, uapi
from netbpf.bpf.fd import FD
from netbpf.bpf.kobject import KernelObject, refused
from netbpf.records import cached_property, record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_PER_CPU = frozenset(
    {
        uapi.BPF_MAP_TYPE_PERCPU_HASH,
        uapi.BPF_MAP_TYPE_PERCPU_ARRAY,
        uapi.BPF_MAP_TYPE_LRU_PERCPU_HASH,
        uapi.BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE_DEPRECATED,
    }
)


@record(frozen=True, slots=True)
class MapInfo:
    """What the kernel tells of a map; sizes in bytes, ``name`` at most 15 characters."""

    id: int
    type: int
    name: str
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    btf_id: int
    btf_key_type_id: int
    btf_value_type_id: int
    map_extra: int

    @property
    def type_name(self) -> str:
        """The map type in the kernel's word, ``array``."""
        return uapi.MAP_TYPE_NAMES.get(self.type, str(self.type))


class Map(KernelObject):
    """A map in the kernel."""

    kind = "map"
    _next_id_cmd = uapi.BPF_MAP_GET_NEXT_ID
    _fd_by_id_cmd = uapi.BPF_MAP_GET_FD_BY_ID

    @property
    def id(self) -> int:
        """The map's id."""
        return self._shape.id

    def info(self) -> MapInfo:
        """Ask the kernel about the map."""
        raw = uapi.MapInfo()
        try:
            syscall.obj_get_info(self.fileno(), raw)
        except OSError as error:
            raise refused("ask about a map", error) from error
        return MapInfo(
            id=raw.id,
            type=raw.type,
            name=bytes(raw.name).split(b"\0")[0].decode(errors="replace"),
            key_size=raw.key_size,
            value_size=raw.value_size,
            max_entries=raw.max_entries,
            flags=raw.map_flags,
            btf_id=raw.btf_id,
            btf_key_type_id=raw.btf_key_type_id,
            btf_value_type_id=raw.btf_value_type_id,
            map_extra=raw.map_extra,
        )

    @cached_property
    def _shape(self) -> MapInfo:
        # None of these can change while the map lives.
        return self.info()

    @property
    def per_cpu(self) -> bool:
        """Whether each possible CPU has a value of its own."""
        return self._shape.type in _PER_CPU

    @property
    def _user_value_size(self) -> int:
        if self.per_cpu:
            return -(-self._shape.value_size // 8) * 8 * possible_cpus()
        return self._shape.value_size

    def lookup(self, key: bytes) -> bytes | None:
        """The value at ``key``, None when there is none.

        A per-CPU map gives the values of all possible CPUs one after another, each padded to a
        multiple of 8 bytes; ``split`` takes them apart.
        """
        self._check("key", key, self._shape.key_size)
        try:
            return syscall.map_lookup_elem(self.fileno(), key, self._user_value_size)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return None
            raise refused(f"look up in map {self._shape.name}", error) from error

    def split(self, value: bytes) -> list[bytes]:
        """The values that ``lookup`` gave: of a per-CPU map one for each possible CPU, else one."""
        if not self.per_cpu:
            return [value]
        step = len(value) // possible_cpus()
        return [value[i : i + self._shape.value_size] for i in range(0, len(value), step)]

    def update(self, key: bytes, value: bytes, flags: int = 0) -> None:
        """Set the value at ``key``.

        :raises BpfError: the map is full (E2BIG), frozen (EPERM) or refuses the flags.
        """
        self._check("key", key, self._shape.key_size)
        self._check("value", value, self._user_value_size)
        try:
            syscall.map_update_elem(self.fileno(), key, value, flags)
        except OSError as error:
            raise refused(f"update map {self._shape.name}", error) from error

    def delete(self, key: bytes) -> bool:
        """Remove ``key``; whether it was there."""
        self._check("key", key, self._shape.key_size)
        try:
            syscall.map_delete_elem(self.fileno(), key)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return False
            raise refused(f"delete from map {self._shape.name}", error) from error
        return True

    def keys(self) -> Iterator[bytes]:
        """The keys there are; a map that changes meanwhile may give one twice or leave it out."""
        key: bytes | None = None
        while True:
            try:
                key = syscall.map_get_next_key(self.fileno(), key, self._shape.key_size)
            except OSError as error:
                if error.errno == errno.ENOENT:
                    return
                raise refused(f"walk map {self._shape.name}", error) from error
            yield key

    def freeze(self) -> None:
        """Let user space write no more. Since Linux 5.2 (kernel/bpf/syscall.c: map_freeze)."""
        try:
            syscall.map_freeze(self.fileno())
        except OSError as error:
            raise refused(f"freeze map {self._shape.name}", error) from error

    def _check(self, what: str, data: bytes, size: int) -> None:
        if len(data) != size:
            raise ValueError(f"map {self._shape.name}: a {what} has {size} bytes, not {len(data)}")


def create(
    map_type: int,
    *,
    key_size: int,
    value_size: int,
    max_entries: int,
    flags: int = 0,
    name: str = "",
    inner_map_fd: int = 0,
    btf_fd: int = 0,
    btf_key_type_id: int = 0,
    btf_value_type_id: int = 0,
    btf_vmlinux_value_type_id: int = 0,
    value_type_btf_fd: int = 0,
    map_extra: int = 0,
    numa_node: int = 0,
) -> Map:
    """Create a map; sizes in bytes.

    :param btf_vmlinux_value_type_id: a type of the kernel's, or of the module whose types
        ``value_type_btf_fd`` is a descriptor of.
    :raises BpfError: the kernel refused.
    """
    attr = uapi.MapCreateAttr(
        map_type=map_type,
        key_size=key_size,
        value_size=value_size,
        max_entries=max_entries,
        map_flags=flags,
        inner_map_fd=inner_map_fd,
        numa_node=numa_node,
        btf_fd=btf_fd,
        btf_key_type_id=btf_key_type_id,
        btf_value_type_id=btf_value_type_id,
        btf_vmlinux_value_type_id=btf_vmlinux_value_type_id,
        map_extra=map_extra,
    )
    if value_type_btf_fd:
        attr.value_type_btf_obj_fd = value_type_btf_fd
        attr.map_flags |= uapi.BPF_F_VTYPE_BTF_OBJ_FD
    attr.map_name = syscall.object_name(name)
    try:
        return Map(FD(syscall.map_create(attr)))
    except OSError as error:
        from netbpf.bpf.map_refusal import explained

        operation = f"create map {name}" if name else "create a map"
        raise explained(operation, error.errno or errno.EIO, attr) from error


def possible_cpus() -> int:
    """How many CPUs the kernel reserves per-CPU values for."""
    with open("/sys/devices/system/cpu/possible") as file:
        last = file.read().strip()
    return int(last.split(",")[-1].split("-")[-1]) + 1
