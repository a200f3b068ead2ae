"""Maps with typed keys and values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar, overload

from netbpf.bpf import map as bpf_map
from netbpf.errors import NotFoundError
from netbpf.skeleton.codecs import Codec

if TYPE_CHECKING:
    from netbpf.loader.object import Object

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")


class MissingKeyError(NotFoundError, KeyError):
    """There is no such key in the map; a KeyError too."""


class PerCpu(Codec[list[V]]):
    """The values of all possible CPUs, each padded to a multiple of 8 bytes."""

    def __init__(self, element: Codec[V]) -> None:
        self._element = element
        self._step = -(-element.size // 8) * 8

    @property
    def size(self) -> int:  # type: ignore[override]
        """All values together; a number of this machine."""
        return self._step * bpf_map.possible_cpus()

    def read(self, data: bytes, offset: int) -> list[V]:
        """One value for each CPU."""
        places = range(offset, len(data), self._step)
        return [self._element.read(data, place) for place in places]

    def write(self, buffer: bytearray, offset: int, value: Sequence[V], name: str) -> None:
        """One value for each possible CPU."""
        count = len(buffer) // self._step
        if isinstance(value, str | bytes) or not isinstance(value, Sequence):
            raise TypeError(f"{name} has a value for each CPU: give it a sequence, not {value!r}")
        if len(value) != count:
            raise ValueError(f"{name} has values of {count} CPUs, not {len(value)}")
        for cpu, item in enumerate(value):
            self._element.write(buffer, offset + cpu * self._step, item, f"{name}[{cpu}]")


class Map(Generic[K, V]):
    """A map of the object, by typed keys and values.

    Each access is a system call of its own: what programs do meanwhile is seen at once, and a value
    that is changed has to be put back. A map that programs change while it is walked may give a key
    twice or leave it out.
    """

    __slots__ = ("_key", "_name", "_object", "_value")

    def __init__(self, obj: Object, name: str, key: Codec[K], value: Codec[V]) -> None:
        self._object = obj
        self._name = name
        self._key = key
        self._value = value

    @property
    def map(self) -> bpf_map.Map:
        """The map itself, for what goes beyond its elements: id, pin, bytes.

        :raises ValueError: the object is not loaded.
        """
        return loaded_map(self._object, self._name)

    def resize(self, max_entries: int) -> None:
        """Give the map another size before it is created.

        :raises ValueError: the object is loaded already.
        """
        self._object.resize(self._name, max_entries)

    def __getitem__(self, key: K) -> V:
        """The value at ``key``.

        :raises MissingKeyError: there is none. :raises BpfError: the kernel refused.
        """
        data = self.map.lookup(self._packed(key))
        if data is None:
            raise MissingKeyError("key", repr(key), where=f"in map {self._name}")
        return self._value.read(data, 0)

    @overload
    def get(self, key: K) -> V | None: ...

    @overload
    def get(self, key: K, default: D) -> V | D: ...

    def get(self, key: K, default: D | None = None) -> V | D | None:
        """The value at ``key``, ``default`` when there is none."""
        data = self.map.lookup(self._packed(key))
        return default if data is None else self._value.read(data, 0)

    def __contains__(self, key: K) -> bool:
        """Whether there is such a key."""
        return self.map.lookup(self._packed(key)) is not None

    def __setitem__(self, key: K, value: V) -> None:
        """Set the value at ``key``, as ``update`` does."""
        self.update(key, value)

    def update(self, key: K, value: V, flags: int = 0) -> None:
        """Set the value at ``key``; ``flags`` are the kernel's, 1 for only new and 2 for only old.

        :raises BpfError: the map is full, frozen, or the flags say no.
        """
        self.map.update(self._packed(key), self._value.pack(value, f"{self._name}[…]"), flags)

    def __delitem__(self, key: K) -> None:
        """Remove ``key``.

        :raises MissingKeyError: it was not there.
        """
        if not self.delete(key):
            raise MissingKeyError("key", repr(key), where=f"in map {self._name}")

    def delete(self, key: K) -> bool:
        """Remove ``key``; whether it was there.

        :raises BpfError: the kernel refused; the elements of arrays are always there.
        """
        return self.map.delete(self._packed(key))

    def __iter__(self) -> Iterator[K]:
        """The keys there are."""
        return self.keys()

    def keys(self) -> Iterator[K]:
        """The keys there are."""
        keys = self.map.keys()
        return (self._key.read(key, 0) for key in keys)

    def values(self) -> Iterator[V]:
        """The values there are."""
        for _, value in self.items():
            yield value

    def items(self) -> Iterator[tuple[K, V]]:
        """The keys there are with their values; one that goes meanwhile is left out."""
        found = self.map
        keys = found.keys()
        for key in keys:
            data = found.lookup(key)
            if data is not None:
                yield self._key.read(key, 0), self._value.read(data, 0)

    def __len__(self) -> int:
        """How many keys there are, counted one by one."""
        return sum(1 for _ in self)

    def __bool__(self) -> bool:
        """A map is something even when it is empty."""
        return True

    def _packed(self, key: K) -> bytes:
        return self._key.pack(key, f"the key of {self._name}")


def loaded_map(obj: Object, name: str) -> bpf_map.Map:
    """The map called ``name`` in the kernel.

    :raises ValueError: the object is not loaded. :raises NotFoundError: the map was not created.
    """
    if not obj.loaded:
        raise ValueError(f"map {name}: the object is not loaded")
    if name not in obj.maps:
        raise NotFoundError("map", name, where=f"among those created for {obj.spec.path}")
    return obj.maps[name]


class MapOf(Generic[K, V]):
    """The attribute of a map with typed elements."""

    def __init__(self, name: str, key: Codec[K], value: Codec[V]) -> None:
        self._arguments = (name, key, value)

    def __get__(self, maps: Maps, owner: type) -> Map[K, V]:
        return Map(maps._object, *self._arguments)


class PlainMap:
    """The attribute of a map whose elements are no typed values: a ``netbpf.Map`` once loaded."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, maps: Maps, owner: type) -> bpf_map.Map:
        return loaded_map(maps._object, self._name)


class Maps:
    """The maps of a skeleton, as attributes."""

    __slots__ = ("_object",)

    def __init__(self, obj: Object) -> None:
        self._object = obj


def map_of(name: str, key: Codec[K], value: Codec[V]) -> MapOf[K, V]:
    """A map with typed elements."""
    return MapOf(name, key, value)


def plain_map(name: str) -> PlainMap:
    """A map that is only its bytes."""
    return PlainMap(name)


def per_cpu(element: Codec[V]) -> Codec[list[V]]:
    """A value for each possible CPU."""
    return PerCpu(element)
