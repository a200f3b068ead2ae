"""Values of C types as Python's: how each kind is read from bytes and written to them.

A skeleton is only ever opened on a machine of its object's byte order, so all is native here.
"""

from __future__ import annotations

import struct
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, Generic, TypeVar

T = TypeVar("T")
E = TypeVar("E", bound="Enum")


class Codec(ABC, Generic[T]):
    """How a value of ``size`` bytes is read and written."""

    size: int

    @abstractmethod
    def read(self, data: bytes, offset: int) -> T:
        """The value at ``offset``."""

    @abstractmethod
    def write(self, buffer: bytearray, offset: int, value: T, name: str) -> None:
        """Put ``value`` at ``offset``; ``name`` is what errors call it.

        :raises TypeError: a value of another kind. :raises ValueError: it does not fit.
        """

    def pack(self, value: T, name: str) -> bytes:
        """The bytes of ``value``."""
        buffer = bytearray(self.size)
        self.write(buffer, 0, value, name)
        return bytes(buffer)


class Integer(Codec[int]):
    """A number; a pointer too."""

    def __init__(self, size: int, signed: bool = False) -> None:
        self.size = size
        self._signed = signed

    def read(self, data: bytes, offset: int) -> int:
        """The number."""
        found = data[offset : offset + self.size]
        return int.from_bytes(found, sys.byteorder, signed=self._signed)

    def write(self, buffer: bytearray, offset: int, value: int, name: str) -> None:
        """The number in two's complement."""
        number = _integer(value, name)
        try:
            data = number.to_bytes(self.size, sys.byteorder, signed=self._signed)
        except OverflowError:
            kind = "signed" if self._signed else "unsigned"
            raise ValueError(
                f"{name} has {8 * self.size} bits, {kind}: {number} does not fit"
            ) from None
        buffer[offset : offset + self.size] = data


class Boolean(Codec[bool]):
    """C's ``_Bool``: whatever is not 0 is true."""

    def __init__(self, size: int) -> None:
        self.size = size

    def read(self, data: bytes, offset: int) -> bool:
        """Whether it is not 0."""
        return any(data[offset : offset + self.size])

    def write(self, buffer: bytearray, offset: int, value: bool, name: str) -> None:
        """1 or 0."""
        if not isinstance(value, bool):
            raise TypeError(f"{name} is true or false, not {value!r}")
        buffer[offset : offset + self.size] = int(value).to_bytes(self.size, sys.byteorder)


class Real(Codec[float]):
    """A float or double."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._format = struct.Struct("=f" if size == 4 else "=d")

    def read(self, data: bytes, offset: int) -> float:
        """The number."""
        found: float = self._format.unpack_from(data, offset)[0]
        return found

    def write(self, buffer: bytearray, offset: int, value: float, name: str) -> None:
        """The nearest number that there is."""
        if not isinstance(value, int | float):
            raise TypeError(f"{name} is a number, not {value!r}")
        self._format.pack_into(buffer, offset, value)


class Chars(Codec[str]):
    """An array of ``char``: text up to the first NUL; bytes that are no UTF-8 become surrogates."""

    def __init__(self, size: int) -> None:
        self.size = size

    def read(self, data: bytes, offset: int) -> str:
        """The text before the first NUL."""
        found = data[offset : offset + self.size]
        return found.split(b"\0")[0].decode("utf-8", "surrogateescape")

    def write(self, buffer: bytearray, offset: int, value: str, name: str) -> None:
        """The text and zeroes; one that fills the array has no NUL behind it."""
        if not isinstance(value, str):
            raise TypeError(f"{name} is text, not {value!r}")
        text = value.encode("utf-8", "surrogateescape")
        if len(text) > self.size:
            raise ValueError(f"{name} has room for {self.size} bytes, not {len(text)}")
        if b"\0" in text:
            raise ValueError(f"{name} is text, which ends at a NUL: {value!r}")
        buffer[offset : offset + self.size] = text.ljust(self.size, b"\0")


class Raw(Codec[bytes]):
    """Bytes as they are."""

    def __init__(self, size: int) -> None:
        self.size = size

    def read(self, data: bytes, offset: int) -> bytes:
        """All of them."""
        return bytes(data[offset : offset + self.size])

    def write(self, buffer: bytearray, offset: int, value: bytes, name: str) -> None:
        """All of them."""
        if not isinstance(value, bytes | bytearray | memoryview):
            raise TypeError(f"{name} is bytes, not {value!r}")
        data = bytes(value)
        if len(data) != self.size:
            raise ValueError(f"{name} has {self.size} bytes, not {len(data)}")
        buffer[offset : offset + self.size] = data


class Array(Codec[tuple[T, ...]]):
    """``length`` values one after the other."""

    def __init__(self, element: Codec[T], length: int) -> None:
        self._element = element
        self._length = length
        self.size = element.size * length

    def read(self, data: bytes, offset: int) -> tuple[T, ...]:
        """All elements."""
        step = self._element.size
        return tuple(self._element.read(data, offset + i * step) for i in range(self._length))

    def write(self, buffer: bytearray, offset: int, value: Sequence[T], name: str) -> None:
        """As many elements as the array has."""
        if isinstance(value, str | bytes) or not isinstance(value, Sequence):
            raise TypeError(f"{name} is an array, not {value!r}")
        if len(value) != self._length:
            raise ValueError(f"{name} has {self._length} elements, not {len(value)}")
        for index, item in enumerate(value):
            place = offset + index * self._element.size
            self._element.write(buffer, place, item, f"{name}[{index}]")


class Bits(Codec[int]):
    """A bit field: ``width`` bits from bit ``start`` of the struct on, in the order of the machine.

    In little endian that is counted from the lowest bit of the first byte, in big endian from the
    highest.
    """

    def __init__(self, start: int, width: int, signed: bool = False) -> None:
        self._first = start // 8
        self._bytes = (start + width + 7) // 8 - self._first
        low = start % 8
        self._shift = low if sys.byteorder == "little" else 8 * self._bytes - low - width
        self._width = width
        self._signed = signed
        self.size = self._first + self._bytes

    def read(self, data: bytes, offset: int) -> int:
        """The number in the field."""
        number = self._around(data, offset) >> self._shift & ((1 << self._width) - 1)
        if self._signed and number >> (self._width - 1):
            number -= 1 << self._width
        return number

    def write(self, buffer: bytearray, offset: int, value: int, name: str) -> None:
        """Change the field and no bit beside it."""
        number = _integer(value, name)
        low = -(1 << (self._width - 1)) if self._signed else 0
        if not low <= number < low + (1 << self._width):
            raise ValueError(f"{name} has {self._width} bits: {number} does not fit")
        mask = (1 << self._width) - 1
        whole = self._around(buffer, offset) & ~(mask << self._shift)
        whole |= (number & mask) << self._shift
        start = offset + self._first
        buffer[start : start + self._bytes] = whole.to_bytes(self._bytes, sys.byteorder)

    def _around(self, data: bytes | bytearray, offset: int) -> int:
        start = offset + self._first
        return int.from_bytes(data[start : start + self._bytes], sys.byteorder)


class Enum(IntEnum):
    """An enumeration of C: a number that is none of its enumerators is one all the same."""

    @classmethod
    def _missing_(cls, value: object) -> Any:
        if not isinstance(value, int):
            return None
        made = int.__new__(cls, value)
        made._name_ = str(value)
        made._value_ = value
        return made


class Enumerated(Codec[E]):
    """An enumeration in ``size`` bytes."""

    def __init__(self, kind: type[E], size: int, signed: bool = False) -> None:
        self._kind = kind
        self._number = Integer(size, signed)
        self.size = size

    def read(self, data: bytes, offset: int) -> E:
        """The enumerator."""
        return self._kind(self._number.read(data, offset))

    def write(self, buffer: bytearray, offset: int, value: E, name: str) -> None:
        """Its number."""
        self._number.write(buffer, offset, value, name)


def _integer(value: object, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is a number, not {value!r}")
    return value


u8, u16, u32, u64 = Integer(1), Integer(2), Integer(4), Integer(8)
s8, s16, s32, s64 = (Integer(size, signed=True) for size in (1, 2, 4, 8))
boolean = Boolean(1)
f32, f64 = Real(4), Real(8)
