"""BTF types as the text of Python classes and codecs.

In texts ``$int`` stands for the built-in: a class whose struct has a member ``int`` names it
otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from netbpf.btf import types as t
from netbpf.btf.blob import Btf
from netbpf.btf.c_layout import Layouts
from netbpf.btf.errors import BtfFormatError
from netbpf.skeleton.names import ENUM_TAKEN, Names, attribute, class_name, shown

_LINE = 100
_MAX_DEPTH = 32
# A larger value is only its bytes: as numbers it would take many times its size.
_MAX_VALUE = 1 << 20
# Of all structs together; an anonymous one counts wherever it is.
_MAX_MEMBERS = 100_000
_BUILTIN = re.compile(r"\$(\w+)", re.ASCII)
_NUMBERS = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True)
class Kind:
    """A type as text: its annotation, its codec, and the value that is all zeroes."""

    annotation: str
    codec: str
    default: str


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    offset: int
    kind: Kind


def resolved(text: str, attributes: Iterable[str] = ()) -> str:
    """``text`` with built-ins by the names that they have beside ``attributes``."""
    hidden = set(attributes)
    return _BUILTIN.sub(lambda m: f"_builtins.{m[1]}" if m[1] in hidden else m[1], text)


def call(indent: str, head: str, arguments: Iterable[str], tail: str = ")") -> str:
    """A call on one line, or with one argument on each where it would be too long."""
    listed = list(arguments)
    line = f"{indent}{head}{', '.join(listed)}{tail}"
    if len(line) <= _LINE:
        return line
    inner = "".join(f"{indent}    {argument},\n" for argument in listed)
    return f"{indent}{head}\n{inner}{indent}{tail}"


def raw(size: int) -> Kind:
    """Bytes as they are."""
    return Kind("$bytes", f"_s.Raw({size})", f"$bytes({size})")


class Types:
    """The types of one BTF; ``classes`` are the texts of those that were asked for, in order.

    :param roots: the types that will be asked for.
    :param taken: names that no class can have. None has the name of a member either, which would
        hide it from annotations.
    :raises BtfFormatError: there are too many members.
    """

    def __init__(self, btf: Btf, roots: Iterable[int], taken: Iterable[str]) -> None:
        self._btf = btf
        self._layouts = Layouts(btf)
        self._names = Names([*taken, *self._attributes(roots)], between="X")
        self._kinds: dict[int, Kind] = {}
        self._fields_left = _MAX_MEMBERS
        self.classes: list[str] = []

    def value(self, type_id: int, hint: str) -> tuple[Kind, int]:
        """A variable's, key's or value's type and its size in bytes.

        :param hint: what a type without a name is called after.
        :raises BtfFormatError: it has no size, or contains itself.
        """
        size = self._layouts.size(type_id)
        if size > _MAX_VALUE:
            return raw(size), size
        return self._kind(type_id, hint, 0), size

    def _attributes(self, roots: Iterable[int]) -> Iterator[str]:
        # The names of all members and enumerators that can be reached.
        pending = list(roots)
        seen = set(pending)
        left = _MAX_MEMBERS
        while pending:
            found = self._btf.type(pending.pop())
            below: Iterable[int] = ()
            names: Iterable[str] = ()
            match found:
                case t.Struct() | t.Union():
                    below = [member.type_id for member in found.members]
                    names = {member.name for member in found.members}
                case t.Enum():
                    names = {name for name, _ in found.values}
                case t.Typedef() | t.Qualifier() | t.TypeTag() | t.Array():
                    below = [found.type_id]
            for name in names:
                left -= 1
                yield attribute(name)
            if left < 0:
                raise BtfFormatError(f"over {_MAX_MEMBERS} members are too many for a skeleton")
            pending += [i for i in below if i not in seen]
            seen.update(below)

    def _kind(self, type_id: int, hint: str, depth: int) -> Kind:
        if depth > _MAX_DEPTH:
            raise BtfFormatError(f"type {type_id} contains itself, or is nested too deeply")
        under, found = self._btf.resolve(type_id)
        known = self._kinds.get(under)
        if known is None:
            name = found.name or self._typedef(type_id) or hint
            known = self._kinds[under] = self._made(under, found, name, depth)
        return known

    def _typedef(self, type_id: int) -> str:
        # The typedef that is next to the type.
        name = ""
        for _ in range(_MAX_DEPTH):
            found = self._btf.type(type_id)
            if isinstance(found, t.Typedef):
                name = found.name
            elif not isinstance(found, t.Qualifier | t.TypeTag):
                break
            type_id = found.type_id
        return name

    def _made(self, type_id: int, found: t.Type, name: str, depth: int) -> Kind:
        match found:
            case t.Int() if found.bool_:
                codec = "_s.boolean" if found.size == 1 else f"_s.Boolean({found.size})"
                return Kind("$bool", codec, "False")
            case t.Int() if found.size in _NUMBERS:
                return _number(found.size, found.signed)
            case t.Int():
                return Kind("$int", f"_s.Integer({found.size}, {found.signed})", "0")
            case t.Ptr():
                return _number(8, False)
            case t.Float() if found.size in (4, 8):
                return Kind("$float", f"_s.f{8 * found.size}", "0.0")
            case t.Enum() if found.size in _NUMBERS:
                return self._enum(found, name) if found.values else _number(found.size, False)
            case t.Array():
                return self._array(found, name, depth)
            case t.Struct():
                return self._struct(type_id, found, name, depth)
            case t.Union():
                return self._union(type_id, found, name, depth)
            case _:
                return raw(self._layouts.size(type_id))

    def _array(self, found: t.Array, name: str, depth: int) -> Kind:
        size = self._layouts.size(found.type_id)
        if not size or not found.length:
            return raw(0)
        _, element = self._btf.resolve(found.type_id)
        if isinstance(element, t.Int) and element.size == 1 and not element.bool_:
            if element.name == "char":
                return Kind("$str", f"_s.Chars({found.length})", '""')
            if not element.signed:
                return raw(found.length)
        kind = self._kind(found.type_id, name, depth + 1)
        return Kind(
            f"$tuple[{kind.annotation}, ...]",
            f"_s.Array({kind.codec}, {found.length})",
            f"({kind.default},) * {found.length}",
        )

    def _enum(self, found: t.Enum, name: str) -> Kind:
        own = self._names.new(class_name(name))
        names = Names(ENUM_TAKEN)
        values = [(names.new(attribute(n)), number) for n, number in found.values]
        lines = [f"class {own}(_s.Enum):", f'    """enum {shown(found.name)}."""', ""]
        lines += [f"    {n} = {number}" for n, number in values]
        self.classes.append("\n".join(lines) + "\n")
        zero = next((f"{own}.{n}" for n, number in values if not number), f"{own}(0)")
        signed = ", signed=True" if found.signed else ""
        return Kind(own, f"_s.Enumerated({own}, {found.size}{signed})", zero)

    def _struct(self, type_id: int, found: t.Struct, name: str, depth: int) -> Kind:
        # Refuses members that overlap, lie outside, or contain the struct.
        self._layouts.plan(type_id)
        own = self._names.new(class_name(name))
        names = Names()
        fields = self._fields(found, own, 0, names, depth)
        lines = _head(own, "Struct", "struct", found)
        for field in fields:
            lines.append(f"    {field.name}: {field.kind.annotation} = {field.kind.default}")
        lines += [""] if fields else []
        places = [f'("{f.name}", {f.offset}, {f.kind.codec})' for f in fields]
        lines.append(call("    ", "_layout = _s.layout(", [str(found.size), *places]))
        text = resolved("\n".join(lines) + "\n", (field.name for field in fields))
        self.classes.append(text)
        return Kind(own, f"_s.struct({own})", f"{own}()")

    def _union(self, type_id: int, found: t.Union, name: str, depth: int) -> Kind:
        self._layouts.plan(type_id)
        own = self._names.new(class_name(name))
        names = Names(["raw", "holding"])
        fields = self._fields(found, own, 0, names, depth)
        lines = _head(own, "Union", "union", found)
        lines += [f"    raw: $bytes = $bytes({found.size})", "", f"    _size = {found.size}"]
        # Without an annotation, which would make them fields of the dataclass.
        lines += [f"    {f.name} = _s.variant({f.kind.codec})" for f in fields]
        text = resolved("\n".join(lines) + "\n", (field.name for field in fields))
        self.classes.append(text)
        return Kind(own, f"_s.union({own})", f"{own}()")

    def _fields(
        self, found: t.Struct | t.Union, own: str, base: int, names: Names, depth: int
    ) -> list[_Field]:
        """The members; those of an anonymous struct in a struct belong to the outer one.

        :param base: the byte at which ``found`` lies in the struct that the fields are of.
        """
        fields = []
        for member in found.members:
            self._fields_left -= 1
            if self._fields_left < 0:
                raise BtfFormatError(f"over {_MAX_MEMBERS} members are too many for a skeleton")
            start, width = self._layouts.bits(member)
            _, inner = self._btf.resolve(member.type_id)
            if width:
                bits = Kind("$int", _bits(8 * base + start, width, inner), "0")
                fields.append(_Field(names.new(attribute(member.name)), 0, bits))
                continue
            nested = not member.name and isinstance(inner, t.Struct | t.Union)
            if nested and isinstance(found, t.Struct) and isinstance(inner, t.Struct):
                if depth > _MAX_DEPTH:
                    raise BtfFormatError(f"struct {found.name} is nested too deeply")
                fields += self._fields(inner, own, base + start // 8, names, depth + 1)
                continue
            word = "struct" if isinstance(inner, t.Struct) else "union"
            name = names.new(attribute(word if nested else member.name))
            kind = self._kind(member.type_id, f"{own}_{name}", depth + 1)
            fields.append(_Field(name, base + start // 8, kind))
        return fields


def _head(own: str, base: str, word: str, found: t.Struct | t.Union) -> list[str]:
    what = f"{word} {shown(found.name)}" if found.name else f"A {word} without a name"
    return [
        "@dataclass(frozen=True, slots=True)",
        f"class {own}(_s.{base}):",
        f'    """{what}: {found.size} bytes."""',
        "",
    ]


def _number(size: int, signed: bool) -> Kind:
    return Kind("$int", f"_s.{'s' if signed else 'u'}{8 * size}", "0")


def _bits(start: int, width: int, found: t.Type) -> str:
    signed = isinstance(found, t.Int | t.Enum) and found.signed and not getattr(found, "bool_", 0)
    return f"_s.Bits({start}, {width}{', signed=True' if signed else ''})"
