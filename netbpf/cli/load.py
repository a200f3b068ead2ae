"""``netbpf prog load``: an object file into the kernel, and pins that keep it there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from netbpf.cli import keep
from netbpf.cli.output import Document, emit, note, say
from netbpf.cli.references import assignment
from netbpf.cli.settings import settings

if TYPE_CHECKING:
    from netbpf.bpf.bpffs import BpfFs
    from netbpf.loader import Object
    from netbpf.loader.foresee import Foreseen
    from netbpf.loader.pinning import Pins

_MAX_ENTRIES = 2**32 - 1


def prog_load(
    file: Annotated[str, typer.Argument(metavar="FILE.o", help="The object file.")],
    pin: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Pin all of it in this folder on a bpffs."),
    ] = None,
    variables: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="VAR=VALUE", help="Set a global before it is loaded."),
    ] = None,
    map_pins: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="NAME=PIN", help="Use a pinned map for this one."),
    ] = None,
    map_sizes: Annotated[
        list[str] | None,
        typer.Option("--map-size", metavar="NAME=N", help="Give a map N entries."),
    ] = None,
    btf: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="The kernel's types, in place of the running kernel's."),
    ] = None,
) -> None:
    """Load all programs and maps of an object file.

    With --pin they stay, all or none of them; without it they end with the command.
    """
    from netbpf.loader.foresee import chosen

    with _opened(file, variables or [], map_pins or [], map_sizes or []) as obj:
        if settings.dry_run:
            _would_load(obj, pin, btf)
            return
        folder, fs = (None, None) if pin is None else _folder(pin)
        if folder is not None:
            _plan(chosen(obj), folder)
        keep.tell(fs)
        obj.load(btf=btf)
        pins = None
        if folder is not None:
            from netbpf.loader import pinning

            pins = pinning.pin_all(obj, folder)
        document = _document(obj, pins, fs)
        emit({"object": document}, lambda: _say(document, "loaded"))
        if pins is None:
            note("not pinned: it ended with this command (--pin DIR keeps it)")


@contextmanager
def _opened(
    file: str, variables: list[str], map_pins: list[str], map_sizes: list[str]
) -> Iterator[Object]:
    from netbpf import loader
    from netbpf.bpf.map import Map

    with loader.open(file) as obj:
        for text in variables:
            obj.set(*assignment(text))
        for text in map_sizes:
            name, size = assignment(text, "--map-size", ("NAME", "N"))
            if not (size.isascii() and size.isdecimal() and 0 < int(size[:11]) <= _MAX_ENTRIES):
                raise ValueError(f"--map-size {text}: N is a number from 1 to {_MAX_ENTRIES}")
            obj.resize(name, int(size))
        for text in map_pins:
            name, path = assignment(text, "--map", ("NAME", "PIN"))
            with Map.from_pin(path.removeprefix("pin:")) as existing:
                obj.reuse_map(name, existing)
        yield obj


def _folder(pin: str, *, mount: bool = True) -> tuple[str, BpfFs | None]:
    if not pin:
        raise ValueError("--pin is followed by a folder, this one is empty")
    return keep.settle(pin, mount=mount)


def _plan(found: Foreseen, folder: str) -> Pins:
    """Where the pins would be: asked before anything is loaded that would have to go again."""
    from netbpf.loader import pinning

    maps, programs = [m.name for m in found.maps], [p.name for p in found.programs]
    return pinning.plan(folder, maps, programs, shared=found.shared)


def _would_load(obj: Object, pin: str | None, btf: str | None) -> None:
    from netbpf.loader import maps
    from netbpf.loader.foresee import foresee

    found = foresee(obj, btf=btf)
    folder, fs = (None, None) if pin is None else _folder(pin, mount=False)
    # On a bpffs that is not mounted yet there is nothing that could stand in the way.
    pins = None if folder is None or (fs is not None and fs.mounted) else _plan(found, folder)
    at = _Shown(pins, fs)
    document: Document = {
        "file": obj.spec.path,
        "programs": [
            {
                "id": None,
                "name": p.name,
                "tag": None,
                "type": p.type_name,
                "section": p.section,
                "pin": at.program(p.name),
            }
            for p in found.programs
        ],
        "maps": [
            {
                "id": None,
                "name": m.name,
                "type": m.type_name,
                "key_size": m.key_size,
                "value_size": m.value_size,
                "max_entries": maps.entries(m),
                "flags": m.flags,
                "pin": at.map(m.name),
            }
            for m in found.maps
        ],
        "links": [],
    }
    emit({"dry_run": True, "object": document}, lambda: _say(document, "would load"))


class _Shown:
    """The pins as the bpffs' own mount namespace has them; null where there are none."""

    def __init__(self, pins: Pins | None, fs: BpfFs | None) -> None:
        self._pins, self._fs = pins, fs

    def map(self, name: str) -> str | None:
        return self._path(self._pins.maps if self._pins else {}, name)

    def program(self, name: str) -> str | None:
        return self._path(self._pins.programs if self._pins else {}, name)

    def _path(self, paths: Mapping[str, str], name: str) -> str | None:
        return keep.shown(paths[name], self._fs) if name in paths else None


def _document(obj: Object, pins: Pins | None, fs: BpfFs | None) -> Document:
    at = _Shown(pins, fs)
    programs = [
        (p, obj.programs[p.name].info()) for p in obj.spec.programs if p.name in obj.programs
    ]
    maps = [(name, found.info()) for name, found in obj.maps.items()]
    return {
        "file": obj.spec.path,
        "programs": [
            {
                "id": info.id,
                "name": spec.name,
                "tag": info.tag,
                "type": info.type_name,
                "section": spec.section,
                "pin": at.program(spec.name),
            }
            for spec, info in programs
        ],
        "maps": [
            {
                "id": info.id,
                "name": name,
                "type": info.type_name,
                "key_size": info.key_size,
                "value_size": info.value_size,
                "max_entries": info.max_entries,
                "flags": info.flags,
                "pin": at.map(name),
            }
            for name, info in maps
        ],
        "links": [],
    }


def _say(document: Document, word: str) -> None:
    say(f"{word} {document['file']}")
    for kind in ("program", "map"):
        for each in document[f"{kind}s"]:
            number = "" if each["id"] is None else f" (id:{each['id']})"
            shape = (
                each["section"]
                if kind == "program"
                else f"key {each['key_size']}, value {each['value_size']} bytes, "
                f"max_entries {each['max_entries']}"
            )
            at = f", pinned at {each['pin']}" if each["pin"] else ""
            say(f"{kind} {each['name']}{number}: {each['type']}, {shape}{at}")
