"""An object file into the kernel, and pins that keep it there: the work of ``prog load``."""

from __future__ import annotations

from netbpf.cli import places
from netbpf.cli.output import Document, emit, note, say
from netbpf.cli.settings import settings
from netbpf.closing import Several
from netbpf.errors import NetbpfError
from netbpf.records import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from netbpf.bpf.bpffs import BpfFs
    from netbpf.bpf.prog import Program
    from netbpf.loader import Object
    from netbpf.loader.foresee import Foreseen
    from netbpf.loader.pinning import Pins
    from netbpf.plumbing.attach import Attachments, Auto

_MAX_ENTRIES = 2**32 - 1


@record(slots=True, frozen=True)
class Asked:
    """What the options ask for, as they are written."""

    variables: Sequence[str] = ()
    map_pins: Sequence[str] = ()
    map_sizes: Sequence[str] = ()
    btf: str | None = None
    autoattach: bool = False
    attach_to: Sequence[str] = ()


def load(file: str, pin: str | None, asked: Asked) -> None:
    """Load all programs and maps of an object file, pin them in ``pin``, and tell of it."""
    with Several() as own:
        if settings.dry_run:
            _would_load(file, pin, asked, own)
            return
        document = _load(file, pin, asked, own)
        tell(document, pin is not None)


def made(file: str, pin: str | None) -> Document:
    """Load an object file without any options; its programs end with this unless pinned."""
    with Several() as own:
        return _load(file, pin, Asked(), own)


def tell(document: Document, pinned: bool) -> None:
    """Print what was loaded."""
    emit({"object": document}, lambda: _say(document, "loaded"))
    if not pinned:
        note("not pinned: it ended with this command (--pin DIR keeps it)")


def _load(file: str, pin: str | None, asked: Asked, own: Several) -> Document:
    from netbpf.loader.foresee import chosen

    obj = _opened(file, asked, own)
    folder, fs = (None, None) if pin is None else _folder(pin)
    _plan(chosen(obj), folder, asked.autoattach)
    targets = _targets(obj, asked, own)
    obj.load(btf=asked.btf, attach_to=targets)
    made = own.add(_attach(obj)) if asked.autoattach else None
    pins = _pin(obj, folder, made) if folder is not None else None
    # Not before it has succeeded: a quick command that is refused is done twice (quick.py).
    places.tell(fs)
    return _document(obj, pins, fs, made)


def _attach(obj: Object) -> Attachments:
    from netbpf.plumbing.attach import attach_all

    made = attach_all(obj)
    for name, missing in made.open.items():
        note(f"{name} is not attached: its section does not say {missing}")
    return made


def _pin(obj: Object, folder: str, made: Attachments | None) -> Pins:
    from netbpf.loader import pinning

    links = {}
    for name, each in (made or {}).items():
        if each.link is None:
            raise _unkeepable(name)
        links[name] = each.link
    return pinning.pin_all(obj, folder, links)


def _unkeepable(name: str) -> NetbpfError:
    return NetbpfError(
        f"{name} is attached without a link, which no pin can keep",
        hint="load it without --autoattach, or in a process that stays",
        code="no_link",
    )


def _opened(file: str, asked: Asked, own: Several) -> Object:
    from netbpf import loader

    obj = own.add(loader.open(file))
    if asked.variables or asked.map_sizes or asked.map_pins:
        _changed(obj, asked)
    return obj


def _changed(obj: Object, asked: Asked) -> None:
    from netbpf.bpf.bpffs import reach
    from netbpf.bpf.map import Map
    from netbpf.cli.references import assignment

    for text in asked.variables:
        obj.set(*assignment(text))
    for text in asked.map_sizes:
        name, size = assignment(text, "--map-size", ("NAME", "N"))
        if not (size.isascii() and size.isdecimal() and 0 < int(size[:11]) <= _MAX_ENTRIES):
            raise ValueError(f"--map-size {text}: N is a number from 1 to {_MAX_ENTRIES}")
        obj.resize(name, int(size))
    for text in asked.map_pins:
        name, path = assignment(text, "--map", ("NAME", "PIN"))
        with Map.from_pin(reach(path.removeprefix("pin:"))) as existing:
            obj.reuse_map(name, existing)


def _targets(obj: Object, asked: Asked, own: Several) -> dict[str, Program]:
    """The loaded programs that programs of the object are to be attached to, by their names."""
    if not asked.attach_to:
        return {}
    # Imported only here: it brings the parser.
    from netbpf.cli.references import assignment, loaded

    found: dict[str, Program] = {}
    for text in asked.attach_to:
        name, ref = assignment(text, "--attach-to", ("NAME", "PROG"))
        obj.spec.program(name)
        if name in found:
            raise ValueError(f"--attach-to {text}: {name} is attached to one program only")
        found[name] = own.add(loaded(ref))
    return found


def _folder(pin: str, *, mount: bool = True) -> tuple[str, BpfFs | None]:
    if not pin:
        raise ValueError("--pin is followed by a folder, this one is empty")
    return places.settle(pin, mount=mount)


def _plan(found: Foreseen, folder: str | None, autoattach: bool) -> tuple[Pins | None, Auto | None]:
    """What would be pinned and attached: asked before anything is made that would have to go."""
    auto = None
    if autoattach:
        from netbpf.plumbing import attach

        auto = attach.foresee(found.programs, found.maps)
    if folder is None:
        return None, auto
    from netbpf.loader import pinning

    for each in auto.structs if auto else ():
        if each.struct_ops is not None and not each.struct_ops.link:
            raise _unkeepable(each.name)
    maps, programs = [m.name for m in found.maps], [p.name for p in found.programs]
    links = auto.names if auto else ()
    return pinning.plan(folder, maps, programs, links, shared=found.shared), auto


def _would_load(file: str, pin: str | None, asked: Asked, own: Several) -> None:
    from netbpf.loader import maps
    from netbpf.loader.foresee import foresee

    obj = _opened(file, asked, own)
    found = foresee(obj, btf=asked.btf, attach_to=_targets(obj, asked, own))
    folder, fs = (None, None) if pin is None else _folder(pin, mount=False)
    places.tell(fs, mount=False)
    # On a bpffs that is not mounted yet there is nothing that could stand in the way.
    pins, auto = _plan(found, None if fs is not None and fs.mounted else folder, asked.autoattach)
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
        "links": [
            {"id": None, "type": None, "program": name, "pin": at.link(name)}
            for name in (auto.names if auto else ())
        ],
        "not_attached": _not_attached(auto.open if auto else {}),
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

    def link(self, name: str) -> str | None:
        return self._path(self._pins.links if self._pins else {}, name)

    def _path(self, paths: Mapping[str, str], name: str) -> str | None:
        if name not in paths:
            return None
        return places.shown(paths[name], self._fs)


def _not_attached(left: Mapping[str, str]) -> list[Document]:
    return [{"program": name, "missing": missing} for name, missing in left.items()]


def _document(
    obj: Object, pins: Pins | None, fs: BpfFs | None, made: Attachments | None
) -> Document:
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
        "links": [
            {
                "id": info.id if info else None,
                "type": info.type_name if info else None,
                "program": name,
                "pin": at.link(name),
            }
            for name, info in (
                (name, each.link.info() if each.link else None)
                for name, each in (made or {}).items()
            )
        ],
        "not_attached": _not_attached(made.open if made else {}),
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
    for each in document["links"]:
        number = "" if each["id"] is None else f" by link:{each['id']} ({each['type']})"
        at = f", pinned at {each['pin']}" if each["pin"] else ""
        say(f"{each['program']} attached{number}{at}")
