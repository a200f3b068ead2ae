"""Values of C types in bytes: written and read by BTF type and by path."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from netbpf.btf import types as t
from netbpf.btf.blob import Btf
from netbpf.records import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal

_TOKEN = r"\.?([A-Za-z_][A-Za-z0-9_]*)|\[(\d+)\]"
_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}


def split(path: str) -> tuple[str, list[str | int]]:
    """``limits.table[2]`` as the variable and the steps into it.

    :raises ValueError: it is no such path.
    """
    # Few commands read a path: none of the others has to import this.
    import re

    token = re.compile(_TOKEN)
    steps: list[str | int] = []
    at = 0
    while at < len(path):
        found = token.match(path, at)
        if found is None or (at == 0 and (found[1] is None or path[0] == ".")):
            break
        if at and found[1] is not None and path[at] != ".":
            break
        steps.append(found[1] if found[1] is not None else int(found[2]))
        at = found.end()
    if not steps or at < len(path):
        raise ValueError(f"{path!r} is no variable, member or element: write a.b[1]")
    return str(steps[0]), steps[1:]


class Values:
    """Reads and writes values of the types of one BTF."""

    def __init__(self, btf: Btf) -> None:
        self._btf = btf
        self._order: Literal["little", "big"] = "little" if btf.byteorder == "little" else "big"

    def size(self, type_id: int) -> int:
        """The size of a value in bytes."""
        return self._btf.size(type_id)

    def step(self, type_id: int, steps: Sequence[str | int], name: str) -> tuple[int, int]:
        """Follow ``steps`` from a value of ``type_id``: the (type id, offset) they lead to.

        :raises ValueError: there is no such member or element.
        """
        offset = 0
        for step in steps:
            _, found = self._btf.resolve(type_id)
            if isinstance(step, int):
                if not isinstance(found, t.Array):
                    raise ValueError(f"{name} is no array")
                if step >= found.length:
                    raise ValueError(
                        f"{name} has {found.length} elements, [{step}] is none of them"
                    )
                offset += step * self._btf.size(found.type_id)
                type_id = found.type_id
                name = f"{name}[{step}]"
                continue
            if not isinstance(found, t.Struct | t.Union):
                raise ValueError(f"{name} has no members")
            member = self._member(found, step)
            if member is None:
                known = ", ".join(self._members(found)) or "none"
                raise ValueError(f"{name} has no member {step}, only {known}")
            offset += member[1]
            type_id = member[0]
            name = f"{name}.{step}"
        return type_id, offset

    def _member(self, found: t.Struct | t.Union, name: str) -> tuple[int, int] | None:
        for member in found.members:
            if member.name == name:
                if member.bit_size:
                    raise ValueError(f"{name} is a bit field, which cannot be set")
                return member.type_id, member.offset
            if not member.name:
                _, inner = self._btf.resolve(member.type_id)
                if isinstance(inner, t.Struct | t.Union):
                    deeper = self._member(inner, name)
                    if deeper is not None:
                        return deeper[0], member.offset + deeper[1]
        return None

    def _members(self, found: t.Struct | t.Union) -> list[str]:
        names = []
        for member in found.members:
            _, inner = self._btf.resolve(member.type_id)
            if member.name:
                names.append(member.name)
            elif isinstance(inner, t.Struct | t.Union):
                names += self._members(inner)
        return names

    def write(self, buffer: bytearray, offset: int, type_id: int, value: Any, name: str) -> None:
        """Put ``value`` into ``buffer``.

        Numbers, enums and bools also from text (``0x10``, an enumerator, ``true``); character
        arrays from text or bytes, the rest filled with zeroes; other arrays from a sequence or text
        (``1,2,3``), structs from a mapping, what is left out stays as it was.

        :raises TypeError: a value of another kind. :raises ValueError: it does not fit.
        """
        _, found = self._btf.resolve(type_id)
        size = self._btf.size(type_id)
        if offset + size > len(buffer):
            raise ValueError(f"{name} lies outside of its section")
        if isinstance(found, t.Int | t.Enum):
            data = self._scalar(found, value, name)
        elif isinstance(found, t.Float):
            data = self._float_bytes(found, value, name)
        elif isinstance(found, t.Array):
            self._write_array(buffer, offset, found, value, name)
            return
        elif isinstance(found, t.Struct | t.Union):
            if not isinstance(value, Mapping):
                raise TypeError(f"{name} is a struct: give it a mapping, or set a member of it")
            for key, item in value.items():
                if field := self.bit_field(type_id, str(key)):
                    self._write_bits(buffer, offset, size, field, item, f"{name}.{key}")
                    continue
                inner, at = self.step(type_id, [str(key)], name)
                self.write(buffer, offset + at, inner, item, f"{name}.{key}")
            return
        else:
            what = "a pointer" if isinstance(found, t.Ptr) else "of a type"
            raise TypeError(f"{name} is {what} that cannot be set")
        buffer[offset : offset + size] = data

    def bit_field(self, type_id: int, name: str) -> t.Member | None:
        """The bit field called ``name`` of a struct or union, its place in bits of all of it."""
        _, found = self._btf.resolve(type_id)
        for member in found.members if isinstance(found, t.Struct | t.Union) else ():
            if member.name == name:
                return member if member.bit_size else None
            if not member.name and (inner := self.bit_field(member.type_id, name)):
                return replace(inner, bit_offset=inner.bit_offset + 8 * member.offset)
        return None

    def _write_bits(
        self, buffer: bytearray, offset: int, size: int, field: t.Member, value: Any, name: str
    ) -> None:
        _, kind = self._btf.resolve(field.type_id)
        if not isinstance(kind, t.Int | t.Enum):
            raise TypeError(f"{name} is a bit field of no number")
        number, width = _integer(kind, value, name), field.bit_size
        low = -(1 << (width - 1)) if kind.signed else 0
        if not low <= number < low + (1 << width):
            raise ValueError(f"{name} has {width} bits, {number} does not fit into it")
        shift, mask = self._shift(field, size), (1 << width) - 1
        whole = int.from_bytes(buffer[offset : offset + size], self._order) & ~(mask << shift)
        whole |= (number & mask) << shift
        buffer[offset : offset + size] = whole.to_bytes(size, self._order)

    def _shift(self, field: t.Member, size: int) -> int:
        # Counted from the lowest bit in little endian, from the highest in big.
        if self._order == "little":
            return field.bit_offset
        return 8 * size - field.bit_offset - field.bit_size

    def _scalar(self, found: t.Int | t.Enum, value: Any, name: str) -> bytes:
        number = _integer(found, value, name)
        signed = number < 0 if isinstance(found, t.Enum) else found.signed
        try:
            return number.to_bytes(found.size, self._order, signed=signed)
        except OverflowError:
            kind = found.name or "an enum"
            raise ValueError(f"{name} is of type {kind}, {number} does not fit into it") from None

    def _float_bytes(self, found: t.Float, value: Any, name: str) -> bytes:
        number = _real(value, name)
        try:
            return struct.pack(self._float(found), number)
        except OverflowError:
            raise ValueError(
                f"{name} is of type {found.name}, {value} does not fit into it"
            ) from None

    def _float(self, found: t.Float) -> str:
        if found.size not in (4, 8):
            raise ValueError(f"numbers of {found.size} bytes are not known")
        return ("<" if self._order == "little" else ">") + ("f" if found.size == 4 else "d")

    def _write_array(
        self, buffer: bytearray, offset: int, found: t.Array, value: Any, name: str
    ) -> None:
        size = self._btf.size(found.type_id)
        _, element = self._btf.resolve(found.type_id)
        if isinstance(value, str) and _is_char(element):
            text = value.encode("utf-8", "surrogateescape")
            # C reads up to the NUL, so one has to fit.
            if len(text) >= found.length:
                raise ValueError(f"{name} has room for {found.length - 1} bytes, not {len(text)}")
            value = text
        if isinstance(value, bytes | bytearray) and size == 1:
            if len(value) > found.length:
                raise ValueError(f"{name} has {found.length} bytes, not {len(value)}")
            buffer[offset : offset + found.length] = bytes(value).ljust(found.length, b"\0")
            return
        if isinstance(value, str) and "," in value:
            value = value.split(",")
        if isinstance(value, str | bytes) or not isinstance(value, Sequence):
            raise TypeError(f"{name} is an array: give it values, as 1,2,3, or set {name}[0]")
        if len(value) > found.length:
            raise ValueError(f"{name} has {found.length} elements, not {len(value)}")
        for index, item in enumerate(value):
            self.write(buffer, offset + index * size, found.type_id, item, f"{name}[{index}]")

    def read(self, buffer: bytes, offset: int, type_id: int) -> Any:
        """The value at ``offset``: int (pointers too), bool, float, str (character arrays), list.

        A struct or union is a dict of its members; those of an anonymous one inside it belong to
        it. What stands for nothing of these gives its bytes.
        """
        _, found = self._btf.resolve(type_id)
        size = self._btf.size(type_id)
        data = bytes(buffer[offset : offset + size])
        if len(data) < size:
            raise ValueError("a value lies outside of its section")
        if isinstance(found, t.Int | t.Enum):
            number = int.from_bytes(data, self._order, signed=found.signed)
            return bool(number) if isinstance(found, t.Int) and found.bool_ else number
        if isinstance(found, t.Float):
            return struct.unpack(self._float(found), data)[0]
        if isinstance(found, t.Array):
            _, element = self._btf.resolve(found.type_id)
            if _is_char(element):
                return data.split(b"\0")[0].decode("utf-8", "surrogateescape")
            step = self._btf.size(found.type_id)
            length = found.length if step else 0
            return [self.read(data, i * step, found.type_id) for i in range(length)]
        if isinstance(found, t.Ptr):
            return int.from_bytes(data, self._order)
        if isinstance(found, t.Struct | t.Union):
            return self._read_members(found, data)
        return data

    def _read_members(self, found: t.Struct | t.Union, data: bytes) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for member in found.members:
            if member.bit_size:
                values[member.name] = self._read_bits(member, data)
                continue
            value = self.read(data, member.offset, member.type_id)
            if not member.name and isinstance(value, dict):
                values |= value
            else:
                values[member.name] = value
        return values

    def _read_bits(self, member: t.Member, data: bytes) -> int:
        shift = self._shift(member, len(data))
        number = int.from_bytes(data, self._order) >> shift & ((1 << member.bit_size) - 1)
        _, kind = self._btf.resolve(member.type_id)
        if isinstance(kind, t.Int) and kind.signed and number >> (member.bit_size - 1):
            number -= 1 << member.bit_size
        return number


def _is_char(found: t.Type) -> bool:
    return isinstance(found, t.Int) and found.size == 1 and found.name == "char"


def _integer(found: t.Int | t.Enum, value: Any, name: str) -> int:
    if isinstance(found, t.Enum):
        return _enumerator(found, value, name)
    return _truth(value, name) if found.bool_ else _number(value, name)


def _real(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError(f"{name} is a number, not {value!r}")
    try:
        return float(value)
    except (ValueError, OverflowError):
        raise ValueError(f"{name} is a number, {value!r} is none") from None


def _number(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TypeError(f"{name} is a number, not {value!r}")
    if isinstance(value, int):
        return value
    try:
        return int(value, 0)
    except ValueError:
        raise ValueError(f"{name} is a number, {value!r} is none") from None


def _truth(value: Any, name: str) -> int:
    if isinstance(value, str) and value.lower() in _TRUE | _FALSE:
        return int(value.lower() in _TRUE)
    if isinstance(value, bool | int) and value in (0, 1):
        return int(value)
    raise ValueError(f"{name} is true or false, not {value!r}")


def _enumerator(found: t.Enum, value: Any, name: str) -> int:
    if isinstance(value, str):
        for known, number in found.values:
            if known == value:
                # Without the flag for signed enums (LLVM before 15) a negative one reads as large.
                return number if number < 0 else number & ((1 << 8 * found.size) - 1)
        import re

        if not re.fullmatch(r"-?(0x)?[0-9a-fA-F]+", value):
            words = ", ".join(known for known, _ in found.values)
            raise ValueError(f"{name} is one of {words}, not {value!r}")
    return _number(value, name)
