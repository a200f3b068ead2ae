"""From an ObjectSpec to the text of its module: the same for the same object, wherever it lay."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass

from netbpf.bpf import uapi
from netbpf.btf.errors import BtfFormatError
from netbpf.elf.externs import KCONFIG
from netbpf.elf.spec import Global, ObjectSpec
from netbpf.errors import ObjectFileError
from netbpf.skeleton.names import Names, attribute, class_name, shown
from netbpf.skeleton.pointed import pointed
from netbpf.skeleton.runtime import FORMAT
from netbpf.skeleton.types import Kind, Types, call, raw, resolved

FIRST_WORDS = "# netbpf skeleton, format "
_PER_CPU = frozenset(
    {
        uapi.BPF_MAP_TYPE_PERCPU_HASH,
        uapi.BPF_MAP_TYPE_PERCPU_ARRAY,
        uapi.BPF_MAP_TYPE_LRU_PERCPU_HASH,
    }
)
_TYPED = _PER_CPU | {
    uapi.BPF_MAP_TYPE_HASH,
    uapi.BPF_MAP_TYPE_ARRAY,
    uapi.BPF_MAP_TYPE_LRU_HASH,
    uapi.BPF_MAP_TYPE_LPM_TRIE,
    uapi.BPF_MAP_TYPE_DEVMAP,
    uapi.BPF_MAP_TYPE_DEVMAP_HASH,
    uapi.BPF_MAP_TYPE_CPUMAP,
}
# What the module has beside the classes of the object's types.
_TAKEN = ("Maps", "Progs", "Skeleton", "annotations", "dataclass", "open")
_COLUMNS = 76


def module(spec: ObjectSpec, data: bytes) -> str:
    """The text of a typed module for the object that ``data`` holds and ``spec`` tells of.

    Nothing of an object file gets into it but checked names, numbers, and its bytes in base64.

    :raises ObjectFileError: the types of the file contradict themselves.
    """
    try:
        return _Module(spec, data).text()
    except BtfFormatError as error:
        raise ObjectFileError(spec.path, str(error), section=".BTF") from error


@dataclass(frozen=True, slots=True)
class _Place:
    """Where variables lie: a section, or the arena; ``word`` is what it is called after."""

    section: str
    word: str
    size: int
    read_only: bool = False


class _Module:
    def __init__(self, spec: ObjectSpec, data: bytes) -> None:
        self._spec = spec
        self._data = data
        # As the reader names it, which is what data sections' maps are called after.
        self._file = f"{re.sub(r'[^A-Za-z0-9_]', '_', spec.name)}.o"
        self._globals: dict[str, list[Global]] = {}
        for variable in spec.globals():
            # What is static belongs to its C file; sections of the loader's own have no contents.
            if not variable.static and variable.name:
                self._globals.setdefault(variable.section, []).append(variable)
        names = Names(["at", "attach", "close", "links", "load", "maps", "object", "progs"])
        classes = Names(_TAKEN, between="X")
        places = [
            _Place(m.section, m.section.removeprefix("."), m.value_size, m.read_only)
            for m in spec.maps
            if m.contents is not None
        ]
        if spec.arena is not None:
            places.append(_Place(spec.arena.section, "arena", len(spec.arena.contents)))
        self._sections = [
            (place, names.new(attribute(place.word)), classes.new(class_name(place.word)))
            for place in places
            if place.section in self._globals
        ]
        variables = [g for listed in self._globals.values() for g in listed]
        # A variable would hide a class of its name from the annotations of its section.
        taken = [
            *_TAKEN,
            *(own for *_, own in self._sections),
            *(attribute(g.name) for g in variables),
        ]
        taken += [attribute(m.name) for m in spec.maps]
        roots = [g.type_id for g in variables]
        roots += [i for m in spec.maps for i in (m.key_type_id, m.value_type_id) if not m.section]
        self._pointed: list[int] = []
        if spec.btf is not None and any(m.type == uapi.BPF_MAP_TYPE_ARENA for m in spec.maps):
            self._pointed = pointed(spec.btf, roots)
        roots += self._pointed
        self._types = Types(spec.btf, roots, taken) if spec.btf is not None else None

    def text(self) -> str:
        blocks = [*map(self._section, self._sections), self._maps(), self._progs()]
        if self._types is not None:
            for type_id in self._pointed:
                self._types.value(type_id, "pointed")
            blocks = [*self._types.classes, *blocks]
        blocks += [self._skeleton(), self._opener()]
        body = "\n\n".join(blocks)
        imports = ["import builtins as _builtins\n"] if "_builtins." in body else []
        imports += ["from dataclasses import dataclass\n"] if "@dataclass" in body else []
        head = (
            f"{FIRST_WORDS}{FORMAT}, of {self._file}: made by netbpf, edits will be lost.\n"
            f'"""The BPF object {self._file}: its maps, programs and variables as attributes.\n'
            "\n"
            "::\n"
            "\n"
            "    with open() as skel:\n"
            "        skel.load()\n"
            '        skel.attach(ifindex=socket.if_nametoindex("eth0"))\n'
            '"""\n'
            "\n"
            "from __future__ import annotations\n"
            "\n"
        )
        own = "".join(imports) + ("\n" if imports else "")
        return f"{head}{own}from netbpf import skeleton as _s\n\n\n{body}\n\n{self._object()}"

    def _section(self, place: tuple[_Place, str, str]) -> str:
        section, _, own = place
        assert self._types is not None
        names = Names()
        found: list[tuple[str, int, Kind]] = []
        for variable in self._globals[section.section]:
            name = names.new(attribute(variable.name))
            kind, size = self._types.value(variable.type_id, variable.name)
            if variable.offset + size > section.size:
                raise ObjectFileError(
                    self._spec.path,
                    f"variable {shown(variable.name)} lies outside",
                    section=section.section,
                )
            found.append((name, variable.offset, kind))
        about, word = "Variables.", "variable"
        if section.section == KCONFIG:
            # Set by their names (Object.set), which tells the loader not to ask the kernel.
            about, word = "Values of the kernel's configuration, there once loaded.", "constant"
        elif section.read_only:
            about = "Variables; constant once loaded."
        elif section.word == "arena":
            about = "Variables that lie in the arena."
        lines = [f"class {own}(_s.Section):", f'    """{about}"""', ""]
        lines += ["    __slots__ = ()", ""]
        for name, offset, kind in found:
            head = f"{name}: _s.{word.title()}[{kind.annotation}] = _s.{word}("
            lines.append(call("    ", head, [str(offset), kind.codec]))
        return resolved("\n".join(lines) + "\n", (name for name, _, _ in found))

    def _maps(self) -> str:
        names = Names()
        lines = ["class Maps(_s.Maps):", '    """The maps."""', "", "    __slots__ = ()"]
        attributes = []
        # Maps are found by name, so of two of one name there is only one.
        for spec in {m.name: m for m in self._spec.maps if m.contents is None}.values():
            name = names.new(attribute(spec.name))
            attributes.append(name)
            lines += ["", f"    # {spec.type_name}, {spec.max_entries} entries"]
            if spec.type not in _TYPED:
                lines.append(
                    call("    ", f"{name}: _s.PlainMap = _s.plain_map(", [_quoted(spec.name)])
                )
                continue
            key = self._element(spec.key_type_id, spec.key_size, f"{spec.name}_key")
            value = self._element(spec.value_type_id, spec.value_size, f"{spec.name}_value")
            if spec.type in _PER_CPU:
                value = Kind(f"$list[{value.annotation}]", f"_s.per_cpu({value.codec})", "")
            head = f"{name}: _s.MapOf[{key.annotation}, {value.annotation}] = _s.map_of("
            lines.append(call("    ", head, [_quoted(spec.name), key.codec, value.codec]))
        return resolved("\n".join(lines) + "\n", attributes)

    def _element(self, type_id: int, size: int, hint: str) -> Kind:
        if type_id and self._types is not None:
            kind, own_size = self._types.value(type_id, hint)
            if own_size == size:
                return kind
        return raw(size)

    def _progs(self) -> str:
        names = Names()
        lines = ["class Progs(_s.Progs):", '    """The programs."""', "", "    __slots__ = ()", ""]
        for spec in self._spec.programs:
            name = names.new(attribute(spec.name))
            lines.append(call("    ", f"{name}: _s.Prog = _s.prog(", [_quoted(spec.name)]))
        return "\n".join(lines).rstrip() + "\n"

    def _skeleton(self) -> str:
        lines = [
            "class Skeleton(_s.Skeleton):",
            f'    """The object {self._file}: set variables, load, attach, close."""',
            "",
            "    def __init__(self) -> None:",
            f'        super().__init__(_OBJECT, "{self._file}", format={FORMAT})',
            "        self.maps = Maps(self.object)",
            "        self.progs = Progs(self.object)",
        ]
        for section, name, own in self._sections:
            arguments = ["self.object", _quoted(section.section)]
            lines.append(call("        ", f"self.{name} = {own}(", arguments))
        return "\n".join(lines) + "\n"

    def _opener(self) -> str:
        return (
            "def open() -> Skeleton:\n"
            '    """Open the object; nothing of it is in the kernel before ``load``."""\n'
            "    return Skeleton()\n"
        )

    def _object(self) -> str:
        # Not compressed: what a compressor makes of it depends on its version.
        text = base64.b64encode(self._data).decode("ascii")
        lines = (text[i : i + _COLUMNS] for i in range(0, len(text), _COLUMNS))
        return '_OBJECT = """\n' + "".join(f"{line}\n" for line in lines) + '"""\n'


def _quoted(text: str) -> str:
    """A string of Python, of ASCII alone, in double quotes where that can be."""
    literal = ascii(text)
    return literal if '"' in literal else f'"{literal[1:-1]}"'
