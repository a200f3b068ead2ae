"""The map definitions of an object file: the structs in ``.maps``."""

from __future__ import annotations

from netbpf.bpf import uapi
from netbpf.btf import types as t
from netbpf.btf.blob import Btf
from netbpf.elf.file import ElfFile, Section, Symbol
from netbpf.elf.spec import MapSpec
from netbpf.records import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

MAPS = ".maps"
# bpf_helpers.h: enum libbpf_pin_type
_PIN_NONE = 0
_PIN_BY_NAME = 1
_POINTER = 8
_OF_MAPS = (uapi.BPF_MAP_TYPE_ARRAY_OF_MAPS, uapi.BPF_MAP_TYPE_HASH_OF_MAPS)

_NUMBERS = {
    "type": "type",
    "key_size": "key_size",
    "value_size": "value_size",
    "max_entries": "max_entries",
    "map_flags": "flags",
    "map_extra": "map_extra",
    "numa_node": "numa_node",
    "pinning": "pinning",
}


class MapReader:
    """Reads the definitions of ``.maps``.

    :param programs: names of programs by (section index, offset), for maps of programs.
    """

    def __init__(
        self, elf: ElfFile, btf: Btf | None, programs: Mapping[tuple[int, int], str]
    ) -> None:
        self._elf = elf
        self._btf = btf
        self._programs = programs

    def read(self) -> tuple[list[MapSpec], dict[tuple[int, int], str]]:
        """The maps, and their names by (section index, offset)."""
        elf = self._elf
        for section in elf.sections:
            if section.name == "maps" or section.name.startswith("maps/"):
                raise elf.error(
                    "map definitions of the old kind (struct bpf_map_def)",
                    section=section.name,
                    hint='define the map with SEC(".maps"), as libbpf 1.0 and later want it',
                )
        section_ = elf.section(MAPS)
        if section_ is None or not section_.size:
            return [], {}
        if self._btf is None:
            raise elf.error(
                "maps need BTF, and the file has none", section=MAPS, hint="compile it with -g"
            )
        type_id = self._btf.find(MAPS, t.KIND_DATASEC)
        layout = self._btf.type(type_id) if type_id is not None else None
        if not isinstance(layout, t.DataSec):
            raise elf.error("the BTF says nothing of the maps", section=MAPS)
        maps: dict[str, MapSpec] = {}
        places: dict[tuple[int, int], str] = {}
        values: dict[str, tuple[int, int, int | None]] = {}
        for variable in layout.variables:
            found = self._btf.type(variable.type_id)
            if not isinstance(found, t.Var):
                raise elf.error("something other than a variable", section=MAPS)
            self._check(found, variable, section_)
            if found.name in maps:
                raise elf.error(f"two maps are called {found.name}", section=MAPS)
            spec, offset = self._definition(found.name, found.type_id)
            maps[spec.name] = spec
            places[section_.index, variable.offset] = spec.name
            values[spec.name] = (variable.offset, variable.size, offset)
        return self._initial(section_, maps, places, values), places

    def _check(self, found: t.Var, variable: t.SecVar, section: Section) -> None:
        if not found.name:
            raise self._elf.error("a map without a name", section=MAPS)
        if found.linkage != t.LINKAGE_GLOBAL:
            how = "static" if found.linkage == t.LINKAGE_STATIC else "only declared"
            raise self._elf.error(
                f"map {found.name} is {how}", section=MAPS, hint="define it as a global variable"
            )
        if variable.offset + variable.size > section.size:
            raise self._bad(found.name, "it ends outside of its section")
        assert self._btf is not None
        _, body = self._btf.resolve(found.type_id)
        if isinstance(body, t.Struct) and body.size > variable.size:
            raise self._bad(found.name, f"it has {variable.size} bytes, its struct {body.size}")

    def _definition(
        self, name: str, type_id: int, *, inside: bool = False
    ) -> tuple[MapSpec, int | None]:
        """A map from its struct; also the byte offset of its initial values, if it may have any."""
        assert self._btf is not None
        _, found = self._btf.resolve(type_id)
        if not isinstance(found, t.Struct):
            raise self._bad(name, "it is no struct")
        numbers: dict[str, int] = {}
        types: dict[str, int] = {}
        inner: MapSpec | None = None
        values: int | None = None
        for member in found.members:
            if member.name in _NUMBERS:
                if inside and member.name == "pinning":
                    raise self._bad(name, "a map inside of another one cannot be pinned")
                self._set(name, numbers, _NUMBERS[member.name], self._number(name, member))
            elif member.name in ("key", "value"):
                types[member.name] = target = self._pointee(name, member)
                self._set(name, numbers, f"{member.name}_size", self._size(name, member, target))
            elif member.name == "values":
                if member is not found.members[-1]:
                    raise self._bad(name, "its values are not its last attribute")
                if inside:
                    raise self._bad(name, "maps of maps of maps are not known")
                values = member.offset
                inner = self._values(name, member, numbers.get("type", 0))
                if numbers.setdefault("value_size", 4) != 4:
                    raise self._bad(
                        name, f"its values have 4 bytes, value_size says {numbers['value_size']}"
                    )
            else:
                raise self._bad(name, f"attribute {member.name or 'without a name'} is not known")
        pinning = numbers.pop("pinning", _PIN_NONE)
        if pinning not in (_PIN_NONE, _PIN_BY_NAME):
            raise self._bad(name, f"pinning {pinning} is not known")
        if not numbers.get("type"):
            raise self._bad(name, "it has no type")
        spec = MapSpec(
            name,
            numbers["type"],
            numbers.get("key_size", 0),
            numbers.get("value_size", 0),
            numbers.get("max_entries", 0),
            flags=numbers.get("flags", 0),
            map_extra=numbers.get("map_extra", 0),
            numa_node=numbers.get("numa_node", 0),
            pinned_by_name=pinning == _PIN_BY_NAME,
            key_type_id=types.get("key", 0),
            value_type_id=types.get("value", 0),
            inner=inner,
        )
        return spec, values

    def _set(self, name: str, numbers: dict[str, int], what: str, value: int) -> None:
        # A size may be said twice, by a type and by a number.
        if what.endswith("_size") and numbers.get(what) not in (None, 0, value):
            raise self._bad(name, f"{what} is both {numbers[what]} and {value}")
        numbers[what] = value

    def _number(self, name: str, member: t.Member) -> int:
        # __uint(max_entries, 10) is a pointer to an array of ten, __ulong an enum of one value.
        assert self._btf is not None
        _, found = self._btf.resolve(member.type_id)
        if isinstance(found, t.Enum) and member.name == "map_extra" and len(found.values) == 1:
            return found.values[0][1] & 0xFFFFFFFFFFFFFFFF
        if isinstance(found, t.Ptr):
            array = self._btf.type(found.type_id)
            if isinstance(array, t.Array):
                return array.length
        how = "__uint or __ulong" if member.name == "map_extra" else "__uint"
        raise self._bad(name, f"its {member.name} is not written with {how}")

    def _pointee(self, name: str, member: t.Member) -> int:
        assert self._btf is not None
        found = self._btf.type(member.type_id)
        if not isinstance(found, t.Ptr):
            raise self._bad(name, f"its {member.name} is not written with __type")
        return found.type_id

    def _size(self, name: str, member: t.Member, type_id: int) -> int:
        assert self._btf is not None
        _, found = self._btf.resolve(type_id)
        if isinstance(found, t.Void | t.Func | t.FuncProto | t.Fwd | t.DeclTag | t.Unknown):
            raise self._bad(name, f"its {member.name} has no size")
        size = self._btf.size(type_id)
        if size > 0xFFFFFFFF:
            raise self._bad(name, f"its {member.name} has {size} bytes")
        return size

    def _values(self, name: str, member: t.Member, kind: int) -> MapSpec | None:
        # __array(values, struct inner) for maps of maps; an array of pointers to functions for a
        # map of programs.
        assert self._btf is not None
        if kind not in _OF_MAPS and kind != uapi.BPF_MAP_TYPE_PROG_ARRAY:
            raise self._bad(
                name, "only maps of maps and of programs have values (and their type before them)"
            )
        array = self._btf.type(member.type_id)
        if not isinstance(array, t.Array) or array.length:
            raise self._bad(name, "its values are not written with __array")
        _, pointer = self._btf.resolve(array.type_id)
        if not isinstance(pointer, t.Ptr):
            raise self._bad(name, "its values are no pointers")
        target_id, target = self._btf.resolve(pointer.type_id)
        if kind == uapi.BPF_MAP_TYPE_PROG_ARRAY:
            if not isinstance(target, t.FuncProto):
                raise self._bad(name, "its values are no functions: __array(values, int (void *))")
            return None
        return self._definition(f"{name}.inner", target_id, inside=True)[0]

    def _initial(
        self,
        section: Section,
        maps: dict[str, MapSpec],
        places: Mapping[tuple[int, int], str],
        values: Mapping[str, tuple[int, int, int | None]],
    ) -> list[MapSpec]:
        # What ``.values = { [2] = &other }`` leaves behind: relocations at the struct's end.
        homes = sorted((start, size, name) for name, (start, size, _) in values.items())
        slots: dict[str, dict[int, str]] = {}
        at = 0
        for rel in self._elf.relocations(section):
            while at < len(homes) and rel.offset >= homes[at][0] + homes[at][1]:
                at += 1
            if at == len(homes) or rel.offset < homes[at][0]:
                raise self._elf.error(f"a pointer at {rel.offset} lies in no map", section=MAPS)
            start, size, name = homes[at]
            first = values[name][2]
            index, rest = divmod(rel.offset - start - (first or 0), _POINTER)
            if first is None or index < 0 or rest or rel.offset + _POINTER > start + size:
                raise self._bad(name, "an initial value is no element of its values")
            slots.setdefault(name, {})[index] = self._target(maps[name], rel.symbol, places)
        return [
            replace(spec, slots=tuple(sorted(slots[name].items()))) if name in slots else spec
            for name, spec in maps.items()
        ]

    def _target(self, spec: MapSpec, symbol: Symbol, places: Mapping[tuple[int, int], str]) -> str:
        where = (symbol.section, symbol.value)
        called = self._elf.name_of(symbol)
        if spec.inner is None:
            program = self._programs.get(where)
            if program is None:
                raise self._bad(spec.name, f"its initial value {called} is no program")
            return program
        target = places.get(where)
        if target is None:
            raise self._bad(spec.name, f"its initial value {called} is no map")
        if spec.type == uapi.BPF_MAP_TYPE_HASH_OF_MAPS and spec.key_size != 4:
            raise self._bad(spec.name, "a hash of maps with initial values has keys of 4 bytes")
        return target

    def _bad(self, name: str, reason: str) -> Exception:
        return self._elf.error(f"map {name}: {reason}", section=MAPS)
