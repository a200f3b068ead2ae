"""C declarators: what stands before a name and what behind it, so that it gets a type."""

from __future__ import annotations

import re

from netbpf.btf import types as t
from netbpf.btf.blob import Btf
from netbpf.btf.errors import BtfFormatError

# What a type is to whom a pointer, a qualifier or an array comes on top.
BASE, POINTER, FUNCTION, ARRAY, POINTERS = range(5)
# Added where the text holds the body of an anonymous type: it depends on the place.
INLINE = 8

Parts = tuple[str, str, int]

_MAX_DEPTH = 96
# Prototypes that take prototypes double in length with each level; those of kernels stay far below.
_MAX_LENGTH = 1 << 20
_WORDS = frozenset({"char", "short", "int", "long", "signed", "unsigned", "_Bool", "__int128"})
_INTEGERS = {
    (1, False): "unsigned char",
    (1, True): "signed char",
    (2, False): "unsigned short",
    (2, True): "short",
    (4, False): "unsigned int",
    (4, True): "int",
    (8, False): "unsigned long",
    (8, True): "long",
    (16, False): "unsigned __int128",
    (16, True): "__int128",
}
# No other floating point type of C is there for each target: these have the size and alignment.
_FLOATS = {2: "short", 4: "float", 8: "double", 16: "__int128"}
_QUALIFIERS = {
    t.KIND_CONST: "const ",
    t.KIND_VOLATILE: "volatile ",
    # In this spelling a word of every standard of C.
    t.KIND_RESTRICT: "__restrict ",
}
_KEYWORDS = frozenset(
    word
    for line in (
        "auto break case char const continue default do double else enum extern float for goto",
        "if inline int long register restrict return short signed sizeof static struct switch",
        "typedef typeof union unsigned void volatile while asm _Bool _Complex _Imaginary",
    )
    for word in line.split()
)
_ATTRIBUTE = re.compile(r"[A-Za-z_]\w*(\([\w, ]*\))?", re.ASCII)


def c_name(name: str) -> str:
    """``name`` as C takes it: what is no letter, digit or underscore becomes one."""
    if name.isidentifier() and name.isascii():
        return name + "_" if name in _KEYWORDS else name
    name = re.sub(r"\W", "_", name, flags=re.ASCII)
    return f"_{name}" if name[:1].isdigit() else name


def tag_text(kind: str, name: str, attribute: bool) -> str:
    """A type tag or a declaration tag; ``kind`` is ``type`` or ``decl``."""
    if attribute and _ATTRIBUTE.fullmatch(name):
        return f"__attribute__(({name}))"
    text = "".join(c if c.isascii() and c.isprintable() and c not in '"\\' else "_" for c in name)
    return f'__btf_{kind}_tag("{text}")'


class Declarator:
    """Writes types of one BTF as C; a subclass says how named and anonymous ones look."""

    def __init__(self, btf: Btf) -> None:
        self.btf = btf
        self._parts: dict[int, Parts] = {0: ("void ", "", BASE)}
        # How many types are being written at the moment, each inside the one before.
        self._depth = 0

    def named(self, type_id: int, found: t.Type) -> str:
        """A struct, union, enum, forward declaration or typedef that has a name."""
        word = {t.KIND_STRUCT: "struct ", t.KIND_UNION: "union "}.get(found.kind, "")
        if isinstance(found, t.Enum):
            word = "enum "
        elif isinstance(found, t.Fwd):
            word = "union " if found.union else "struct "
        return word + c_name(found.name)

    def anonymous(self, type_id: int, found: t.Type, level: int) -> str:
        """A struct, union or enum without a name, which has to be written out in its place."""
        word = {t.KIND_STRUCT: "struct", t.KIND_UNION: "union"}.get(found.kind, "enum")
        return f"{word} {{...}}"

    def declare(self, type_id: int, name: str = "") -> str:
        """``name`` declared to be of this type; without one, the type itself."""
        before, behind, _ = self.parts(type_id)
        return f"{before}{name}{behind}".strip()

    def parts(self, type_id: int, level: int = 0) -> Parts:
        """What stands before and behind a name, and what a further declarator has to know.

        :raises BtfFormatError: the type refers to itself.
        """
        known = self._parts.get(type_id)
        if known is not None:
            return known
        if self._depth > _MAX_DEPTH:
            raise BtfFormatError(f"type {type_id} refers to itself, or is nested too deeply")
        self._depth += 1
        try:
            parts = self._made(type_id, self.btf.type(type_id), level)
        finally:
            self._depth -= 1
        if len(parts[0]) + len(parts[1]) > _MAX_LENGTH:
            raise BtfFormatError(f"type {type_id} is too long for a declaration")
        if not parts[2] & INLINE:
            self._parts[type_id] = parts
        return parts

    def _made(self, type_id: int, found: t.Type, level: int) -> Parts:
        if isinstance(found, t.Ptr):
            before, behind, shape = self.parts(found.type_id, level)
            inline = shape & INLINE
            if shape & ~INLINE in (FUNCTION, ARRAY, POINTERS):
                return f"{before}(*", f"){behind}", POINTER | inline
            return f"{before}*", behind, POINTER | inline
        if isinstance(found, t.Qualifier | t.TypeTag):
            return self._qualified(found, *self.parts(found.type_id, level))
        if isinstance(found, t.Array):
            before, behind, shape = self.parts(found.type_id, level)
            pointers = shape & ~INLINE in (POINTER, POINTERS)
            element = POINTERS if pointers else ARRAY
            return before, f"[{found.length}]{behind}", element | shape & INLINE
        if isinstance(found, t.FuncProto):
            return self._function(found, level)
        if isinstance(found, t.Int):
            return f"{_integer(found)} ", "", BASE
        if isinstance(found, t.Float):
            known = found.name in ("float", "double") and found.size in (4, 8)
            name = found.name if known else _FLOATS.get(found.size, "double")
            return f"{name} ", "", BASE
        if isinstance(found, t.Struct | t.Union | t.Enum) and not found.name:
            return f"{self.anonymous(type_id, found, level)} ", "", BASE | INLINE
        if isinstance(found, t.Struct | t.Union | t.Enum | t.Typedef | t.Fwd):
            if not found.name:
                raise BtfFormatError(f"type {type_id} has no name")
            return f"{self.named(type_id, found)} ", "", BASE
        raise BtfFormatError(f"type {type_id} cannot be the type of anything")

    def _qualified(
        self, found: t.Qualifier | t.TypeTag, before: str, behind: str, shape: int
    ) -> Parts:
        plain = shape & ~INLINE
        if isinstance(found, t.TypeTag):
            return f"{before}{tag_text('type', found.name, found.attribute)} ", behind, shape
        word = _QUALIFIERS[found.kind]
        if plain == FUNCTION:
            # A function cannot be const; compilers describe noreturn and pure so.
            return before, behind, shape
        if plain in (POINTER, POINTERS):
            return before if before.endswith(word) else f"{before}{word}", behind, shape
        if before.startswith(word):
            # A const array of const elements: C says it once.
            return before, behind, shape
        if found.kind == t.KIND_RESTRICT:
            # A typedef of a pointer may be restrict, nothing else.
            _, under = self.btf.resolve(found.type_id)
            if not isinstance(under, t.Ptr):
                return before, behind, shape
        return f"{word}{before}", behind, shape

    def _function(self, found: t.FuncProto, level: int) -> Parts:
        before, behind, shape = self.parts(found.type_id, level)
        inline = shape & INLINE
        params = []
        for index, (name, type_id) in enumerate(found.params):
            if not type_id and not name and index == len(found.params) - 1:
                params.append("...")
                continue
            first, last, more = self.parts(type_id, level)
            inline |= more & INLINE
            params.append(f"{first}{self.parameter(name)}{last}".rstrip())
        return before, f"({', '.join(params) or 'void'}){behind}", FUNCTION | inline

    def parameter(self, name: str) -> str:
        """The name of a parameter as it is written."""
        return c_name(name) if name else ""


def _integer(found: t.Int) -> str:
    words = found.name.split()
    if words and _WORDS.issuperset(words):
        return found.name
    # A compiler's own type, such as ssizetype: one of the same size.
    if found.bool_ and found.size == 1:
        return "_Bool"
    return _INTEGERS.get((found.size, found.signed), "int")
