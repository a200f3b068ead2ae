"""Pins of all that an object has in the kernel: every one of them, or none."""

from __future__ import annotations

import os

from netbpf.bpf import pin as pins
from netbpf.bpf.map import Map
from netbpf.elf.spec import MapSpec
from netbpf.errors import ConflictError, NetbpfError
from netbpf.interrupts import held as uninterrupted
from netbpf.loader.maps import PIN_ROOT
from netbpf.loader.object import Object
from netbpf.records import field, record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from netbpf.bpf.link import Link


@record(frozen=True, slots=True)
class Pins:
    """Where each map, program and link of an object is pinned, by its name.

    A link has the name of its program. A map that is ``shared`` (LIBBPF_PIN_BY_NAME) keeps the pin
    that it has.
    """

    maps: Mapping[str, str] = field(default_factory=dict)
    programs: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    shared: frozenset[str] = frozenset()

    def paths(self) -> Iterator[str]:
        """The pins in the order in which they are made."""
        yield from (path for name, path in self.maps.items() if name not in self.shared)
        yield from self.programs.values()
        yield from self.links.values()


def plan(
    folder: str,
    maps: Iterable[str],
    programs: Iterable[str],
    links: Iterable[str] = (),
    *,
    shared: Collection[str] = (),
) -> Pins:
    """Where these would be pinned in ``folder``, if all of them could be now; nothing is made.

    A pin has the name of its map or program, with ``_`` for the dots that no name on a bpffs can
    have, as libbpf has it; a link's ends in ``_link``.

    :raises BpfError: one is there already, or could not be made.
    :raises ConflictError: two would have one name.
    :raises NetbpfError: a name that no pin can have.
    """
    if not folder:
        raise ValueError("the folder for the pins has an empty name")
    folder = os.path.abspath(folder)
    planned = Pins(
        {n: f"{PIN_ROOT}/{n}" if n in shared else _path(folder, "map", n) for n in maps},
        {n: _path(folder, "program", n) for n in programs},
        {n: _path(folder, "link", n, "_link") for n in links},
        frozenset(shared),
    )
    seen: set[str] = set()
    for path in planned.paths():
        if path in seen:
            raise ConflictError(
                f"two of the object's maps and programs would be pinned at {path}",
                hint="give one of them another name",
            )
        seen.add(path)
    for path in planned.paths():
        pins.check(path)
    return planned


def pin_all(obj: Object, folder: str, links: Mapping[str, Link] | None = None) -> Pins:
    """Pin the maps and programs of a loaded object in ``folder``, and ``links`` by program.

    All or none: after a failure, and after Ctrl-C, no pin of it is there, and no folder that was
    made for it. First maps, then programs, then links: of a process that is killed half-way there
    may be some of the first ones, and no link without all that it needs. They stay until somebody
    removes them, and until then a second ``pin_all`` is refused.

    :raises BpfError: one is there already, or cannot be made.
    :raises ConflictError: two would have one name.
    :raises NetbpfError: a name that no pin can have.
    """
    if not obj.loaded:
        raise ValueError("the object is not loaded: there is nothing to pin")
    links = links or {}
    shared = {m.name for m in obj.spec.maps if m.name in obj.maps and _shared(m, obj.maps[m.name])}
    planned = plan(folder, obj.maps, obj.programs, links, shared=shared)
    wanted = [
        *((path, obj.maps[n]) for n, path in planned.maps.items() if n not in shared),
        *((path, obj.programs[n]) for n, path in planned.programs.items()),
        *((path, links[n]) for n, path in planned.links.items()),
    ]
    made: list[str] = []
    folders: list[str] = []
    try:
        for path, each in wanted:
            with uninterrupted():
                folders += pins.make_folder(os.path.dirname(path))
                each.pin(path)
                made.append(path)
    except BaseException:
        with uninterrupted():
            for path in reversed(made):
                try:
                    os.unlink(path)
                except OSError:
                    # Somebody else removed it, or the bpffs is gone: the rest goes all the same.
                    pass
            pins.remove_folders(folders)
        raise
    return planned


def _path(folder: str, kind: str, name: str, suffix: str = "") -> str:
    if not name or "/" in name or "\0" in name:
        raise NetbpfError(f"a {kind} called {name!r} cannot be pinned", code="invalid_name")
    return f"{folder}/{name.replace('.', '_')}{suffix}"


def _shared(spec: MapSpec, found: Map) -> bool:
    """Whether the map has its pin by name; one that was reused has another, or none."""
    if not spec.pinned_by_name:
        return False
    try:
        with Map.from_pin(f"{PIN_ROOT}/{spec.name}") as pinned:
            return pinned.id == found.id
    except NetbpfError:
        return False
