"""Arenas: memory that programs and user space share, with the types that programs give it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, TypeVar

from netbpf.bpf.map import Map
from netbpf.btf import types as t
from netbpf.btf.blob import Btf
from netbpf.btf.values import Values, split
from netbpf.errors import NotFoundError
from netbpf.loader.arena_memory import Memory

_KINDS = {
    "struct": (t.KIND_STRUCT,),
    "union": (t.KIND_UNION,),
    "enum": (t.KIND_ENUM, t.KIND_ENUM64),
}
_PLAIN = (t.KIND_TYPEDEF, t.KIND_INT, t.KIND_FLOAT)
_WORDS = {t.Struct: "struct ", t.Union: "union ", t.Enum: "enum "}


class Placed(Protocol):
    """What lies at an address."""

    address: int


P = TypeVar("P", bound=Placed)


def walk(start: P, following: Callable[[P], P | None]) -> Iterator[P]:
    """``start`` and what follows: up to None, or back to ``start``.

    :raises ValueError: the list runs into itself.
    """
    seen = {start.address}
    place: P | None = start
    while place is not None:
        yield place
        place = following(place)
        if place is not None and place.address in seen:
            if place.address == start.address:
                return
            raise ValueError(f"the list comes back to {place.address:#x}, not to its start")
        if place is not None:
            seen.add(place.address)


class _Values(Values):
    """Values of which pointers can be written: an address, a place, or None for NULL."""

    def write(self, buffer: bytearray, offset: int, type_id: int, value: Any, name: str) -> None:
        _, found = self._btf.resolve(type_id)
        if not isinstance(found, t.Ptr):
            super().write(buffer, offset, type_id, value, name)
            return
        number = value.address if isinstance(value, Place) else value or 0
        if not isinstance(number, int):
            raise TypeError(f"{name} is a pointer, not {value!r}")
        if not 0 <= number < 1 << 64:
            raise ValueError(f"{name} is a pointer, {number} is none")
        buffer[offset : offset + 8] = number.to_bytes(8, self._order)


class Arena(Memory):
    """An arena with the types of an object file.

    ::

        with loader.open("list.o") as obj:
            obj.load()
            ...
            for node in obj.arena.at(obj.get("head"), "struct node").walk("next"):
                print(node["number"])

    ``variables`` are those that lie in it: type and offset by name.
    """

    def __init__(
        self,
        found: Map,
        btf: Btf | None = None,
        *,
        address: int = 0,
        variables: Mapping[str, tuple[int, int]] | None = None,
    ) -> None:
        """Map the arena ``found``, which may be closed afterwards; raises what ``Memory`` does.

        :param btf: the types that ``at`` knows.
        """
        self._variables = dict(variables or {})
        self._btf = btf
        super().__init__(found, address)

    def at(self, pointer: int, type: str | int) -> Place:
        """What a pointer leads to, as a ``type`` of the object file: ``struct node``, ``__u32``.

        :param type: a number is an id in the object's BTF.
        :raises ValueError: it does not lie within the arena.
        :raises NotFoundError: there is no such type.
        """
        return Place(self, pointer, self.type_id(type) if isinstance(type, str) else type)

    def variable(self, name: str) -> Place:
        """A global variable that lies in the arena (``__arena``).

        :raises NotFoundError: there is none of that name.
        """
        if name not in self._variables:
            known = ", ".join(sorted(self._variables)) or "none"
            raise NotFoundError(
                "variable", name, where=f"in arena {self.name}", hint=f"its variables: {known}"
            )
        type_id, offset = self._variables[name]
        return Place(self, self.address + offset, type_id)

    def types(self) -> Btf:
        """The types of the object file.

        :raises NotFoundError: it has none.
        """
        if self._btf is None:
            raise NotFoundError(
                "types", f"for arena {self.name}", hint="the file has no BTF, compile it with -g"
            )
        return self._btf

    def type_id(self, name: str) -> int:
        """The id of a type that is written as in C.

        :raises NotFoundError: there is none.
        """
        kind, _, rest = name.strip().partition(" ")
        kinds = _KINDS.get(kind, _PLAIN)
        wanted = rest.strip() if kind in _KINDS else name.strip()
        found = self.types().find(wanted, *kinds) if wanted else None
        if found is None:
            raise NotFoundError(
                "type", name, where=f"for arena {self.name}", hint="write struct node, or __u32"
            )
        return found


class Place:
    """A value of a C type at an address of an arena: read and written there, never copied before.

    ``place["member.of[3].it"]`` is a value; ``place.at(...)`` is the place of it.
    """

    __slots__ = ("_arena", "_btf", "_values", "address", "size", "type_id")

    def __init__(self, arena: Arena, pointer: int, type_id: int) -> None:
        """What ``Arena.at`` does."""
        self._arena = arena
        self._btf = arena.types()
        self._values = _Values(self._btf)
        self.type_id = type_id
        self.size = self._values.size(type_id)
        self.address = arena.locate(pointer, self.size)

    @property
    def type(self) -> str:
        """The name of the type under typedefs and qualifiers, empty where it has none."""
        _, found = self._btf.resolve(self.type_id)
        return _WORDS.get(type(found), "") + getattr(found, "name", "")

    @property
    def value(self) -> Any:
        """All of it: int (pointers too), bool, float, str, list, or a dict of its members.

        Reading and setting raise what ``Arena.read`` and ``Arena.write`` do.
        """
        return self._values.read(self._arena.read(self.address, self.size), 0, self.type_id)

    @value.setter
    def value(self, value: Any) -> None:
        _, found = self._btf.resolve(self.type_id)
        if isinstance(found, t.Struct | t.Union) and isinstance(value, Mapping):
            # Each by itself: what programs write beside them stays.
            for name, item in value.items():
                self.at(str(name)).value = item
            return
        data = bytearray(self._arena.read(self.address, self.size))
        self._values.write(data, 0, self.type_id, value, self.type or "it")
        self._arena.write(self.address, data)

    def at(self, path: str | int) -> Place:
        """The place of a member or an element: ``inner.table[2]``, or a number for ``[number]``.

        :raises ValueError: there is none.
        """
        if isinstance(path, int):
            path = f"[{path}]"
        _, steps = split(f"_{path}" if path.startswith("[") else f"_.{path}")
        type_id, offset = self._values.step(self.type_id, steps, self.type or "it")
        return Place(self._arena, self.address + offset, type_id)

    def __getitem__(self, path: str | int) -> Any:
        return self.at(path).value

    def __setitem__(self, path: str | int, value: Any) -> None:
        self.at(path).value = value

    def follow(self, path: str | int | None = None) -> Place | None:
        """What the pointer here, or the one at ``path``, leads to; None for NULL.

        :raises ValueError: it is no pointer, or leads out of the arena.
        :raises TypeError: it does not say to what (``void *``): ``Arena.at`` does.
        """
        here = self if path is None else self.at(path)
        _, found = self._btf.resolve(here.type_id)
        if not isinstance(found, t.Ptr):
            raise ValueError(f"{'it' if path is None else path} is no pointer")
        _, inner = self._btf.resolve(found.type_id)
        if isinstance(inner, t.Void | t.Fwd | t.FuncProto):
            raise TypeError(
                f"{'it' if path is None else path} does not say what it points to: use "
                'arena.at(pointer, "struct ...")'
            )
        pointer = here.value
        return Place(self._arena, pointer, found.type_id) if pointer else None

    def walk(self, path: str) -> Iterator[Place]:
        """This, and what the pointer at ``path`` of each leads to: up to NULL, or back to here.

        :raises ValueError: the list runs into itself, or out of the arena.
        """
        return walk(self, lambda place: place.follow(path))

    def container(self, type: str, path: str) -> Place:
        """The ``type`` that this is the member ``path`` of, as container_of() in C.

        :raises ValueError: there is no such member, or it would lie outside of the arena.
        :raises NotFoundError: there is no such type.
        """
        type_id = self._arena.type_id(type)
        _, offset = self._values.step(type_id, split(f"_.{path}")[1], type)
        return Place(self._arena, self.address - offset, type_id)

    def __repr__(self) -> str:
        return f"<{self.type or 'value'} at {self.address:#x} of arena {self._arena.name}>"
