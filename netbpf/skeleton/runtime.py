"""What every skeleton does: open from its own bytes, load, attach, close; variables, programs."""

from __future__ import annotations

import binascii
import os
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, overload

from netbpf.bpf.link import Link
from netbpf.bpf.prog import Program
from netbpf.closing import Closing, Several
from netbpf.elf.object import open_object
from netbpf.errors import NetbpfError, NotFoundError
from netbpf.loader.object import Object
from netbpf.skeleton.classes import Struct, Union
from netbpf.skeleton.codecs import Codec
from netbpf.skeleton.places import Place, codec_of

if TYPE_CHECKING:
    from netbpf.plumbing.attach import Attachments

T = TypeVar("T")
S = TypeVar("S", bound=Struct | Union)

FORMAT = 1
"""The format of generated modules; it changes when modules of the old one no longer work."""


class Skeleton(Closing):
    """An object that came with its module.

    ::

        with counter.open() as skel:
            skel.rodata.limit = 5
            skel.load()
            skel.attach(ifindex=ifindex)

    Closing detaches what ``attach`` attached, last first, and lets go of programs and maps; what is
    pinned stays.
    """

    def __init__(self, data: str, path: str, *, format: int) -> None:
        if format != FORMAT:
            raise NetbpfError(
                f"a skeleton of format {format}, this netbpf reads {FORMAT}",
                code="skeleton_format",
                hint="make it anew with netbpf object skeleton",
            )
        self.object = Object(open_object(path, binascii.a2b_base64(data)))
        # Variables are read and written in the order of this machine, before loading too.
        self.object.check()
        self._attached = Several()
        self._links: list[Link] = []

    @property
    def links(self) -> tuple[Link, ...]:
        """The links that ``attach`` made; they are closed with the skeleton."""
        return tuple(self._links)

    def load(
        self,
        *,
        only: Collection[str] = (),
        log_level: int = 0,
        btf: str | os.PathLike[str] | None = None,
    ) -> None:
        """Create the maps and load the programs; what is said at ``netbpf.loader.Object.load``.

        :raises VerifierError: a program was refused. :raises BpfError: the kernel refused.
        """
        self.object.load(only=only, log_level=log_level, btf=btf)

    def attach(self, *, ifindex: int | None = None, hook: str | None = None) -> Attachments:
        """Attach the loaded programs where their sections say, those of devices to ``ifindex``.

        All or none; what is attached is the skeleton's, and closed with it. The device is one of
        this thread's network namespace. A program in section ``tc`` goes to ``hook`` (``ingress``,
        ``egress``, ``primary``, ``peer``). Programs that want more than that are left alone:
        ``open`` of the result tells which, and ``netbpf.plumbing.attach`` attaches them.

        :raises ValueError: the object is not loaded.
        :raises NetbpfError: no program says where it goes, or one was refused.
        """
        if not self.object.loaded:
            raise ValueError("attach: the object is not loaded")
        # Here, because the parts of netbpf that attach weigh more than reading variables.
        from netbpf.skeleton.attach import attach_all

        made = self._attached.add(attach_all(self.object, ifindex, hook))
        self._links += [each.link for each in made.values() if each.link is not None]
        return made

    @overload
    def at(self, pointer: int, kind: type[S]) -> Place[S]: ...

    @overload
    def at(self, pointer: int, kind: Codec[T]) -> Place[T]: ...

    def at(self, pointer: int, kind: Any) -> Place[Any]:
        """What a pointer into the arena leads to, as a class of the module: ``counter.Node``.

        :param kind: what is no struct or union is written as here: ``netbpf.skeleton.u64``.
        :raises ValueError: it does not lie within the arena; there is none, or none yet.
        :raises TypeError: there are no values of that kind.
        """
        return Place(self.object.arena, pointer, codec_of(kind))

    def close(self) -> None:
        """Detach and let go of everything, in reverse; a second call does nothing."""
        self._links.clear()
        try:
            self._attached.close()
        finally:
            self.object.close()


class Section:
    """The variables of one data section, as attributes.

    Before loading they are what the programs will find, afterwards what they use at this moment;
    those that programs cannot write are constant then.
    """

    __slots__ = ("_map", "_object")

    def __init__(self, obj: Object, section: str) -> None:
        self._object = obj
        places = {m.section: m.name for m in obj.spec.maps}
        if obj.spec.arena is not None:
            places[obj.spec.arena.section] = obj.spec.arena.map
        self._map = places[section]

    def _read(self, offset: int, size: int) -> bytes:
        return self._object.read_data(self._map, offset, size)


class Constant(Generic[T]):
    """The attribute of a variable that is only read."""

    def __init__(self, offset: int, codec: Codec[T]) -> None:
        self._offset = offset
        self._codec = codec
        self._name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, section: None, owner: type) -> Self: ...

    @overload
    def __get__(self, section: Section, owner: type) -> T: ...

    def __get__(self, section: Section | None, owner: type) -> Self | T:
        if section is None:
            return self
        return self._codec.read(section._read(self._offset, self._codec.size), 0)


class Variable(Constant[T]):
    """The attribute of a global variable."""

    def __set__(self, section: Section, value: T) -> None:
        # What lies between the members of a struct stays as it is.
        data = bytearray(section._read(self._offset, self._codec.size))
        self._codec.write(data, 0, value, self._name)
        section._object.write_data(section._map, self._offset, bytes(data))


class Prog:
    """The attribute of a program: a ``netbpf.Program`` once loaded."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, progs: Progs, owner: type) -> Program:
        obj = progs._object
        if not obj.loaded:
            raise ValueError(f"program {self._name}: the object is not loaded")
        if self._name not in obj.programs:
            raise NotFoundError(
                "program", self._name, where=f"among those loaded of {obj.spec.path}"
            )
        return obj.programs[self._name]


class Progs:
    """The programs of a skeleton, as attributes."""

    __slots__ = ("_object",)

    def __init__(self, obj: Object) -> None:
        self._object = obj


def variable(offset: int, codec: Codec[T]) -> Variable[T]:
    """A variable at ``offset`` of its section."""
    return Variable(offset, codec)


def constant(offset: int, codec: Codec[T]) -> Constant[T]:
    """A variable at ``offset`` of its section that is only read."""
    return Constant(offset, codec)


def prog(name: str) -> Prog:
    """A program."""
    return Prog(name)
