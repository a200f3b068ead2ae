"""All that an object file holds as one document, the same for each run."""

from __future__ import annotations

import struct
from bisect import bisect_right
from typing import Any

from netbpf.bpf.macros import BPF_INSN_SIZE
from netbpf.btf.errors import BtfFormatError
from netbpf.elf.externs import KCONFIG
from netbpf.elf.spec import Extern, Function, Global, MapSpec, ObjectSpec, ProgramSpec, Relocation
from netbpf.elf.words import Words, attach_type, map_flags, prog_flags
from netbpf.errors import ObjectFileError

Document = dict[str, Any]


def document(spec: ObjectSpec) -> Document:
    """What ``spec`` holds, made of strings, numbers, lists and mappings.

    Functions are named; of static ones there may be several of one name. Offsets of instructions
    count instructions, from the start of their function.

    :raises ObjectFileError: the types of the file contradict themselves.
    """
    try:
        return _Shown(spec).document()
    except BtfFormatError as error:
        raise ObjectFileError(spec.path, str(error), section=".BTF") from error


class _Shown:
    def __init__(self, spec: ObjectSpec) -> None:
        self._spec = spec
        self._words = Words(spec.btf)
        # Values of the configuration are shown as externs.
        self._contents = {m.section: m.contents for m in spec.maps if m.section}
        if spec.arena is not None:
            self._contents[spec.arena.section] = spec.arena.contents
        self._globals = [g for g in spec.globals() if g.section != KCONFIG]
        self._variables: dict[str, list[Global]] = {}
        for variable in self._globals:
            self._variables.setdefault(variable.section, []).append(variable)

    def document(self) -> Document:
        spec = self._spec
        entries = {p.function.key for p in spec.programs}
        functions = [f for key, f in sorted(spec.functions.items()) if key not in entries]
        everything = [*(p.function for p in spec.programs), *functions]
        return {
            "file": spec.path,
            "name": spec.name,
            "byteorder": spec.byteorder,
            "license": spec.license or None,
            "version": spec.version,
            "btf": self._btf(everything),
            "programs": [self._program(p) for p in spec.programs],
            "functions": [self._function(f) for f in functions],
            "maps": [self._map(m) for m in spec.maps],
            "globals": [self._global(g) for g in self._globals],
            "externs": [self._extern(e) for e in spec.externs],
            "relocations": [self._relocation(f, r) for f in everything for r in f.relocations],
            "core_relocations": [
                {
                    "function": f.name,
                    "section": f.section,
                    "instruction": r.offset // BPF_INSN_SIZE,
                    "asks": self._words.core(r),
                    "access": r.access,
                }
                for f in everything
                for r in f.core
            ],
            "arena": None
            if spec.arena is None
            else {
                "map": spec.arena.map,
                "section": spec.arena.section,
                "size": len(spec.arena.contents),
            },
            "jump_tables": [n for (n,) in self._jumps()],
        }

    def _jumps(self) -> list[tuple[int]]:
        order = "<" if self._spec.byteorder == "little" else ">"
        return list(struct.iter_unpack(order + "Q", self._spec.jump_tables))

    def _btf(self, functions: list[Function]) -> Document | None:
        btf = self._spec.btf
        if btf is None:
            return None
        return {
            "size": len(btf.data),
            "types": len(btf) - 1,
            "type_bytes": btf.header.types[1],
            "string_bytes": btf.header.strings[1],
            "functions": sum(f.info is not None for f in functions),
            "lines": sum(len(f.lines) for f in functions),
            "core_relocations": sum(len(f.core) for f in functions),
        }

    def _program(self, program: ProgramSpec) -> Document:
        return {
            "name": program.name,
            "section": program.section,
            "type": program.type_name if program.type else None,
            "attach_type": attach_type(program.section, program.expected_attach_type),
            "extra": program.extra or None,
            "autoload": program.autoload,
            "attach": program.attach or None,
            "flags": prog_flags(program.flags),
            "binding": program.function.binding,
            "instructions": len(program.function.insns) // BPF_INSN_SIZE,
            "prototype": self._prototype(program.function),
            "calls": self._calls(program.function),
            "exception_callback": program.exception_callback or None,
        }

    def _function(self, function: Function) -> Document:
        return {
            "name": function.name,
            "section": function.section,
            "binding": function.binding,
            "hidden": function.hidden,
            "instructions": len(function.insns) // BPF_INSN_SIZE,
            "prototype": self._prototype(function),
            "calls": self._calls(function),
        }

    def _prototype(self, function: Function) -> str | None:
        return self._words.type(function.info.type_id) if function.info is not None else None

    def _calls(self, function: Function) -> list[str]:
        called = (self._called(r) for r in function.relocations if r.kind in ("call", "function"))
        return list(dict.fromkeys(called))

    def _called(self, relocation: Relocation) -> str:
        found = self._spec.functions.get((relocation.section, relocation.value))
        return found.name if found is not None else f"{relocation.target}+{relocation.value}"

    def _map(self, spec: MapSpec) -> Document:
        ops = spec.struct_ops
        return {
            "name": spec.name,
            "type": spec.type_name,
            "key_size": spec.key_size,
            "value_size": spec.value_size,
            "max_entries": spec.max_entries,
            "flags": map_flags(spec.flags),
            "map_extra": spec.map_extra,
            "numa_node": spec.numa_node,
            "key_type": self._words.type(spec.key_type_id),
            "value_type": self._words.type(spec.value_type_id),
            "pinned_by_name": spec.pinned_by_name,
            "autocreate": spec.autocreate,
            "section": spec.section or None,
            "inner": self._map(spec.inner) if spec.inner is not None else None,
            "slots": [{"index": index, "target": target} for index, target in spec.slots],
            "struct_ops": None
            if ops is None
            else {
                "type": ops.type_name,
                "link": ops.link,
                "value": self._words.value(ops.data, 0, ops.type_id),
                "programs": [
                    {"member": member, "offset": offset, "program": program}
                    for member, offset, program in ops.programs
                ],
            },
        }

    def _global(self, variable: Global) -> Document:
        contents = self._contents.get(variable.section)
        return {
            "name": variable.name,
            "section": variable.section,
            "map": variable.map,
            "type": self._words.type(variable.type_id),
            "offset": variable.offset,
            "size": variable.size,
            "static": variable.static,
            "value": self._words.value(contents, variable.offset, variable.type_id)
            if contents is not None
            else None,
        }

    def _extern(self, extern: Extern) -> Document:
        return {
            "name": extern.name,
            "section": extern.section,
            "kind": "function"
            if extern.function
            else "variable"
            if extern.kconfig is None
            else "kconfig",
            "type": self._words.type(extern.type_id),
            "weak": extern.weak,
        }

    def _relocation(self, function: Function, relocation: Relocation) -> Document:
        target = relocation.target
        value: int | None = relocation.value
        if relocation.kind in ("call", "function"):
            target = self._called(relocation)
            value = None
        elif relocation.kind in ("map", "extern"):
            value = None
        return {
            "function": function.name,
            "section": function.section,
            "instruction": relocation.offset // BPF_INSN_SIZE,
            "kind": relocation.kind,
            "target": target,
            "offset": value,
            "variable": self._variable(relocation),
        }

    def _variable(self, relocation: Relocation) -> str | None:
        # Nothing in the file says it but where it lies; a string literal has no name.
        section = relocation.target
        if relocation.kind == "arena" and self._spec.arena is not None:
            section = self._spec.arena.section
        elif relocation.kind != "data":
            return None
        known = self._variables.get(section, [])
        at = bisect_right(known, relocation.value, key=lambda v: v.offset) - 1
        if at < 0 or relocation.value >= known[at].offset + known[at].size:
            return None
        return known[at].name
