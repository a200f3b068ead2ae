"""What pointers into an object's arena lead to, as values of its skeleton's classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from netbpf.skeleton.classes import Struct, Union, struct, union
from netbpf.skeleton.codecs import Codec

if TYPE_CHECKING:
    from netbpf.loader.arena_memory import Memory

T = TypeVar("T")


class Place(Generic[T]):
    """A value in the arena, at the address that programs know it by.

    Each look at ``value`` reads it anew; what has been read does not change any more.
    """

    __slots__ = ("_arena", "_codec", "address")

    def __init__(self, arena: Memory, pointer: int, codec: Codec[T]) -> None:
        self._arena = arena
        self._codec = codec
        self.address = arena.locate(pointer, codec.size)

    @property
    def value(self) -> T:
        """All of it, and put back: a struct as a whole, bytes between its members as they are.

        :raises KernelError: EFAULT: a page is not there, and may not be made.
        :raises TypeError: a value of another kind. :raises ValueError: it does not fit.
        """
        return self._codec.read(self._arena.read(self.address, self._codec.size), 0)

    @value.setter
    def value(self, value: T) -> None:
        data = bytearray(self._arena.read(self.address, self._codec.size))
        self._codec.write(data, 0, value, "it")
        self._arena.write(self.address, data)

    def walk(self, following: Callable[[T], int]) -> Iterator[Place[T]]:
        """This, and all that follow: up to NULL, or back to here.

        :param following: which pointer of a value leads to the next one: ``lambda n: n.next``.
        :raises ValueError: the list runs into itself, or out of the arena.
        """
        from netbpf.loader.arena import walk

        def follow(place: Place[T]) -> Place[T] | None:
            pointer = following(place.value)
            return Place(place._arena, pointer, place._codec) if pointer else None

        return walk(self, follow)

    def __repr__(self) -> str:
        return f"<place at {self.address:#x} of arena {self._arena.name}>"


def codec_of(kind: Any) -> Codec[Any]:
    """How values of a class of a skeleton are read and written.

    :raises TypeError: it is none of them.
    """
    if isinstance(kind, Codec):
        return kind
    if isinstance(kind, type) and issubclass(kind, Struct):
        return struct(kind)
    if isinstance(kind, type) and issubclass(kind, Union):
        return union(kind)
    raise TypeError(f"a struct or union of the skeleton says what is there, not {kind!r}")
