"""Structs and unions as classes: a layout beside the fields, by which values become bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Self, TypeVar, overload

from netbpf.skeleton.codecs import Codec

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Layout:
    """The ``size`` of a struct in bytes, and its fields: attribute, offset, codec."""

    size: int
    fields: tuple[tuple[str, int, Codec[Any]], ...]


def layout(size: int, *fields: tuple[str, int, Codec[Any]]) -> Layout:
    """The layout of a struct of ``size`` bytes; the offset of a bit field is that of the struct."""
    return Layout(size, fields)


class Struct:
    """A struct of C as a value: it does not change, ``dataclasses.replace`` makes another."""

    __slots__ = ()
    _layout: ClassVar[Layout]


S = TypeVar("S", bound=Struct)


class _StructCodec(Codec[S]):
    def __init__(self, kind: type[S]) -> None:
        self._kind = kind
        self._fields = kind._layout.fields
        self.size = kind._layout.size

    def read(self, data: bytes, offset: int) -> S:
        values = {name: codec.read(data, offset + at) for name, at, codec in self._fields}
        return self._kind(**values)

    def write(self, buffer: bytearray, offset: int, value: S, name: str) -> None:
        if not isinstance(value, self._kind):
            raise TypeError(f"{name} is a {self._kind.__name__}, not {value!r}")
        for field, at, codec in self._fields:
            codec.write(buffer, offset + at, getattr(value, field), f"{name}.{field}")


def struct(kind: type[S]) -> Codec[S]:
    """The codec of a struct's class; bytes between its fields are written as they were, or 0."""
    return _StructCodec(kind)


class Variant(Generic[T]):
    """One reading of a union: ``value.v4`` reads, ``Addr.holding(Addr.v4, 1)`` makes one."""

    def __init__(self, codec: Codec[T]) -> None:
        self._codec = codec
        self._name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = f"{owner.__name__}.{name}"

    @overload
    def __get__(self, value: None, owner: type) -> Self: ...

    @overload
    def __get__(self, value: Union, owner: type) -> T: ...

    def __get__(self, value: Union | None, owner: type) -> Self | T:
        return self if value is None else self._codec.read(value.raw, 0)

    def fill(self, size: int, value: T) -> bytes:
        """A union of ``size`` bytes that holds ``value``, zeroes behind it."""
        buffer = bytearray(size)
        self._codec.write(buffer, 0, value, self._name)
        return bytes(buffer)


def variant(codec: Codec[T]) -> Variant[T]:
    """One reading of a union."""
    return Variant(codec)


@dataclass(frozen=True, slots=True)
class Union:
    """A union of C as a value: its bytes, and a variant for each way to read them."""

    raw: bytes

    _size: ClassVar[int] = 0

    @classmethod
    def holding(cls, variant: Variant[T], value: T) -> Self:
        """The union with ``value`` in it, zeroes behind it.

        :raises TypeError: a value of another kind. :raises ValueError: it does not fit.
        """
        return cls(variant.fill(cls._size, value))


U = TypeVar("U", bound=Union)


class _UnionCodec(Codec[U]):
    def __init__(self, kind: type[U]) -> None:
        self._kind = kind
        self.size = kind._size

    def read(self, data: bytes, offset: int) -> U:
        return self._kind(bytes(data[offset : offset + self.size]))

    def write(self, buffer: bytearray, offset: int, value: U, name: str) -> None:
        if not isinstance(value, self._kind):
            raise TypeError(f"{name} is a {self._kind.__name__}, not {value!r}")
        if len(value.raw) != self.size:
            raise ValueError(f"{name} has {self.size} bytes, not {len(value.raw)}")
        buffer[offset : offset + self.size] = value.raw


def union(kind: type[U]) -> Codec[U]:
    """The codec of a union's class."""
    return _UnionCodec(kind)
