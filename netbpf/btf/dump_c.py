"""All types of a BTF as one C header, in an order that a compiler takes: a vmlinux.h."""

from __future__ import annotations

from collections.abc import Iterable

from netbpf.btf import types as t
from netbpf.btf.blob import Btf
from netbpf.btf.c_layout import Layouts, paddings
from netbpf.btf.declare import Declarator, c_name, tag_text
from netbpf.btf.errors import BtfFormatError

_HEAD = """\
#ifndef __VMLINUX_H__
#define __VMLINUX_H__

#ifndef BPF_NO_PRESERVE_ACCESS_INDEX
#pragma clang attribute push (__attribute__((preserve_access_index)), apply_to = record)
#endif
"""
_TAIL = """\
#ifndef BPF_NO_PRESERVE_ACCESS_INDEX
#pragma clang attribute pop
#endif

#endif /* __VMLINUX_H__ */
"""
_TAG_MACRO = """\
#ifndef __btf_{0}_tag
#if __has_attribute(btf_{0}_tag)
#define __btf_{0}_tag(name) __attribute__((btf_{0}_tag(name)))
#else
#define __btf_{0}_tag(name)
#endif
#endif
"""
_KSYM_MACROS = """\
#ifndef __ksym
#define __ksym __attribute__((section(".ksyms")))
#endif

#ifndef __weak
#define __weak __attribute__((weak))
#endif

#ifndef __bpf_fastcall
#if __has_attribute(bpf_fastcall)
#define __bpf_fastcall __attribute__((bpf_fastcall))
#else
#define __bpf_fastcall
#endif
#endif
"""
# Since C23 these are words of the language.
_BOOL_WORDS = frozenset({"bool", "true", "false"})
_BEFORE_C23 = "#if !defined(__STDC_VERSION__) || __STDC_VERSION__ < 202311L\n{}#endif\n"

# How far a type is: not named yet, its name known, in the middle of its definition, defined.
_NEW, _DECLARED, _BUSY, _DONE = range(4)
# The kernel's own types need 13 and 7, and Python's stack does not hold much more.
_MAX_DEPTH = 64
_MAX_LEVEL = 32
_MAX_LINES = 1_000_000
_MAX_TEXT = 64 << 20
_MAX_PADDINGS = 1024
_NAMED = (t.KIND_STRUCT, t.KIND_UNION, t.KIND_FWD, t.KIND_TYPEDEF, t.KIND_ENUM, t.KIND_ENUM64)
_MODES = {1: "QI", 2: "HI", 4: "SI", 8: "DI"}


def dump(btf: Btf, roots: Iterable[int] | None = None) -> str:
    """The C header of all types of ``btf``, or of the types ``roots`` and what they need.

    Of a split BTF it holds its own types and those of the base that they need. Two types of one
    name get names that CO-RE takes for the same: ``x`` and ``x___2``. The functions that the
    kernel offers to programs (kfuncs) come last. Compiled for BPF, each struct has the size and the
    members the offsets that BTF says.

    :raises BtfFormatError: no C has such types, as when a struct contains itself.
    """
    return _Writer(btf).written(roots)


class _Writer(Declarator):
    def __init__(self, btf: Btf) -> None:
        super().__init__(btf)
        self._layouts = Layouts(btf)
        self._out: list[str] = []
        self._state = bytearray(len(btf))
        self._forwarded: set[int] = set()
        # How often each name was given: those of structs, unions and enums, and all others, among
        # which one is the compiler's own, and none of the types here.
        self._tags: dict[str, int] = {}
        self._others: dict[str, int] = {"__builtin_va_list": 1}
        self._spelled: dict[int, str] = {}
        self._inlined: set[int] = set()
        self._aliases: dict[tuple[str, int], int] | None = None
        self._decl_tags = self._collect_decl_tags()
        words = btf.header.types[1] // 4
        self._lines_left = min(_MAX_LINES, 100_000 + 2 * words)
        self._text_left = _MAX_TEXT

    def written(self, roots: Iterable[int] | None) -> str:
        whole = roots is None
        if roots is None:
            roots = (i for i in self._own() if self.btf.kind(i) in _NAMED)
        nameless = []
        for type_id in roots:
            found = self.btf.type(type_id)
            if isinstance(found, t.Enum) and not found.name:
                nameless.append(type_id)
            elif found.name or not isinstance(found, t.Struct | t.Union):
                self._need(type_id, True)
        for type_id in nameless:
            # Unless it was the type of a member: then its constants are there.
            if type_id not in self._inlined:
                self._define_enum(type_id)
        kfuncs = self._kfuncs() if whole else []
        return "\n".join([_HEAD, *self._macros(), *self._out, *kfuncs, _TAIL])

    def _own(self) -> range:
        return range(self.btf.first_id, len(self.btf))

    def _macros(self) -> list[str]:
        macros = []
        if self._decl_tags:
            macros.append(_TAG_MACRO.format("decl"))
        if self.btf.ids_of_kind(t.KIND_TYPE_TAG):
            macros.append(_TAG_MACRO.format("type"))
        return macros

    def _collect_decl_tags(self) -> dict[tuple[int, int], str]:
        # By the type and the member that they are of (-1: of the type itself).
        tags: dict[tuple[int, int], str] = {}
        for tag_id in self.btf.ids_of_kind(t.KIND_DECL_TAG):
            found = self.btf.type(tag_id)
            assert isinstance(found, t.DeclTag)
            target = self.btf.type(found.type_id)
            if isinstance(target, t.Struct | t.Union | t.Typedef):
                place = found.type_id, found.component
                text = tag_text("decl", found.name, found.attribute)
                tags[place] = f"{tags.get(place, '')} {text}"
        return tags

    # Names

    def named(self, type_id: int, found: t.Type) -> str:
        spelled = self._spelled.get(type_id)
        if spelled is not None:
            return spelled
        if isinstance(found, t.Fwd):
            alias = self._alias(type_id, found)
            if alias != type_id:
                return self.named(alias, self.btf.type(alias))
        if isinstance(found, t.Typedef):
            spelled = _unique(self._others, found.name)
        else:
            word = "enum" if isinstance(found, t.Enum) else _keyword(found)
            spelled = f"{word} {_unique(self._tags, found.name)}"
        self._spelled[type_id] = spelled
        return spelled

    def _alias(self, type_id: int, found: t.Fwd) -> int:
        # The struct or union that a declaration without a body means: the first of that name.
        if self._aliases is None:
            self._aliases = {}
            names = {self.btf.type(i).name for i in self.btf.ids_of_kind(t.KIND_FWD)}
            for kind in (t.KIND_STRUCT, t.KIND_UNION, t.KIND_FWD):
                for i in self.btf.ids_of_kind(kind):
                    each = self.btf.type(i)
                    if each.name in names:
                        union = each.union if isinstance(each, t.Fwd) else kind == t.KIND_UNION
                        self._aliases.setdefault((each.name, union), i)
        return self._aliases.get((found.name, found.union), type_id)

    def parameter(self, name: str) -> str:
        # A parameter would hide the type of the same name from those that follow.
        name = super().parameter(name)
        return f"{name}_" if name in self._others else name

    # Order: what has to be there before something else

    def _need(self, type_id: int, whole: bool, depth: int = 0) -> None:
        """Write what has to stand before a use of the type: its definition if ``whole``."""
        state = self._state[type_id] if 0 <= type_id < len(self._state) else _NEW
        if state == _DONE or (state == _DECLARED and not whole):
            return
        if depth > _MAX_DEPTH:
            raise BtfFormatError(f"type {type_id} refers to itself, or is nested too deeply")
        found = self.btf.type(type_id)
        depth += 1
        if isinstance(found, t.Struct | t.Union):
            self._need_record(type_id, found, whole, depth)
            return
        if isinstance(found, t.Typedef):
            self._need_typedef(type_id, found, whole, depth)
            return
        if isinstance(found, t.Ptr):
            self._need(found.type_id, False, depth)
        elif isinstance(found, t.Array):
            self._need(found.type_id, True, depth)
        elif isinstance(found, t.Qualifier | t.TypeTag):
            self._need(found.type_id, whole, depth)
            self._state[type_id] = _DONE if whole else _DECLARED
            return
        elif isinstance(found, t.FuncProto):
            self._need(found.type_id, False, depth)
            for _, param in found.params:
                self._need(param, False, depth)
        elif isinstance(found, t.Fwd):
            alias = self._alias(type_id, found)
            if alias != type_id:
                self._need(alias, False, depth)
            else:
                self._forward(type_id, found)
        elif isinstance(found, t.Enum) and found.name:
            self._define_enum(type_id)
        self._state[type_id] = _DONE

    def _need_record(
        self, type_id: int, found: t.Struct | t.Union, whole: bool, depth: int
    ) -> None:
        if found.name and not whole:
            self._forward(type_id, found)
            if self._state[type_id] == _NEW:
                self._state[type_id] = _DECLARED
            return
        if self._state[type_id] == _BUSY:
            raise BtfFormatError(f"type {type_id} ({found.name or 'anonymous'}) contains itself")
        self._state[type_id] = _BUSY
        for member in found.members:
            self._need(member.type_id, True, depth)
        if found.name:
            self._out.append(f"{self._record(type_id, found, 0)};\n")
        self._state[type_id] = _DONE

    def _need_typedef(self, type_id: int, found: t.Typedef, whole: bool, depth: int) -> None:
        state = self._state[type_id]
        if state == _BUSY:
            raise BtfFormatError(f"type {type_id} ({found.name}) refers to itself")
        if state == _NEW:
            self._state[type_id] = _BUSY
            self._need(found.type_id, False, depth)
            before, behind, _ = self.parts(found.type_id)
            name = self.named(type_id, found)
            text = f"typedef {before}{name}{behind}{self._decl_tags.get((type_id, -1), '')};\n"
            self._out.append(_BEFORE_C23.format(text) if name in _BOOL_WORDS else text)
            self._state[type_id] = _DECLARED
        if whole:
            self._need(found.type_id, True, depth)
            self._state[type_id] = _DONE

    def _forward(self, type_id: int, found: t.Struct | t.Union | t.Fwd) -> None:
        if type_id not in self._forwarded:
            self._forwarded.add(type_id)
            self._out.append(f"{self.named(type_id, found)};\n")

    # Definitions

    def anonymous(self, type_id: int, found: t.Type, level: int) -> str:
        if isinstance(found, t.Struct | t.Union):
            return self._record(type_id, found, level)
        assert isinstance(found, t.Enum)
        self._inlined.add(type_id)
        return self._enum(type_id, found, level)

    def _record(
        self, type_id: int, found: t.Struct | t.Union, level: int, named: bool = True
    ) -> str:
        self._count(len(found.members) + 1)
        if level > _MAX_LEVEL:
            raise BtfFormatError(f"type {type_id} is nested too deeply")
        plan = self._layouts.plan(type_id)
        tab = "\t" * (level + 1)
        word = self.named(type_id, found) if found.name and named else _keyword(found)
        lines = [f"{word} {{"]
        gaps, tags = plan.gaps, self._decl_tags
        for index, member in enumerate(found.members):
            if index in gaps:
                lines += self._gap(tab, gaps[index], plan.align)
            text = f"{tab}{self._member(member, level + 1)}"
            if tags:
                text += tags.get((type_id, index), "")
            lines.append(f"{text};")
        if len(found.members) in gaps:
            union = isinstance(found, t.Union)
            lines += self._gap(tab, gaps[len(found.members)], plan.align, as_array=union)
        end = "\t" * level + "}"
        if plan.packed:
            end += " __attribute__((packed))"
        if tags:
            end += tags.get((type_id, -1), "")
        if len(lines) == 1:
            # On one line, as there is nothing to show.
            return f"{lines[0]}{end.lstrip()}"
        text = "\n".join([*lines, end])
        self._count(0, len(text))
        return text

    def _member(self, member: t.Member, level: int) -> str:
        before, behind, _ = self.parts(member.type_id, level)
        if not member.name:
            under, found = self.btf.resolve(member.type_id)
            if isinstance(found, t.Struct | t.Union) and found.name:
                # Its members are those of the outer one, but only with -fms-extensions (the
                # kernel's since Linux 6.19) may it stand here without a body.
                const = "const " if before.startswith("const ") else ""
                return const + self._record(under, found, level, named=False)
        text = f"{before}{c_name(member.name)}{behind}".rstrip()
        _, width = self._layouts.bits(member)
        return f"{text}: {width}" if width else text

    def _gap(
        self, tab: str, gap: tuple[int, int], align: int, *, as_array: bool = False
    ) -> list[str]:
        start, end = gap
        lines = []
        if as_array or end - start > _MAX_PADDINGS * 8 * align:
            # Bit fields up to a byte, and one member for the rest.
            edge = min(end, (start + 7) // 8 * 8)
            lines.append(f"{tab}unsigned char __padding_{edge // 8}[{(end - edge) // 8}];")
            end = edge
        pads = [f"{tab}{word}: {bits};" for word, bits in paddings(start, end, align)]
        self._count(len(pads))
        return pads + lines

    def _define_enum(self, type_id: int) -> None:
        found = self.btf.type(type_id)
        assert isinstance(found, t.Enum)
        text = f"{self._enum(type_id, found, 0)};\n"
        words = not _BOOL_WORDS.isdisjoint(name for name, _ in found.values)
        self._out.append(_BEFORE_C23.format(text) if words else text)

    def _enum(self, type_id: int, found: t.Enum, level: int) -> str:
        self._count(len(found.values) + 1)
        word = self.named(type_id, found) if found.name else "enum"
        if not found.values:
            return word
        tab = "\t" * (level + 1)
        lines = [f"{word} {{"]
        lines += [
            f"{tab}{_unique(self._others, name)} = {_number(value)},"
            for name, value in found.values
        ]
        end = "\t" * level + "}"
        if found.size != _enum_size(found) and found.size in _MODES:
            end += f" __attribute__((mode({_MODES[found.size]})))"
        return "\n".join([*lines, end])

    def _kfuncs(self) -> list[str]:
        """Declarations of the functions that are tagged as kfuncs, by name."""
        tagged: dict[str, set[int]] = {"bpf_kfunc": set(), "bpf_fastcall": set()}
        for tag_id in self.btf.ids_of_kind(t.KIND_DECL_TAG):
            tag = self.btf.type(tag_id)
            assert isinstance(tag, t.DeclTag)
            if tag.component == -1 and tag.type_id >= self.btf.first_id and tag.name in tagged:
                tagged[tag.name].add(tag.type_id)
        lines: dict[str, str] = {}
        for type_id in tagged["bpf_kfunc"]:
            found = self.btf.type(type_id)
            # A name that a type or a constant has cannot be declared a second time.
            if not isinstance(found, t.Func) or found.name in self._others:
                continue
            self._need(found.type_id, False)
            before, behind, _ = self.parts(found.type_id)
            fast = "__bpf_fastcall " if type_id in tagged["bpf_fastcall"] else ""
            name = c_name(found.name)
            lines[name] = f"extern {fast}{before}{name}{behind} __weak __ksym;\n"
        if not lines:
            return []
        declared = "".join(lines[name] for name in sorted(lines))
        return [_KSYM_MACROS, f"#ifndef BPF_NO_KFUNC_PROTOTYPES\n{declared}#endif\n"]

    def _count(self, lines: int, text: int = 0) -> None:
        # Anonymous types in anonymous types can be few bytes and endless text.
        self._lines_left -= lines
        self._text_left -= text
        if self._lines_left < 0 or self._text_left < 0:
            raise BtfFormatError("the types would be far larger as text than they are")


def _keyword(found: t.Type) -> str:
    union = found.union if isinstance(found, t.Fwd) else isinstance(found, t.Union)
    return "union" if union else "struct"


def _unique(given: dict[str, int], name: str) -> str:
    name = c_name(name)
    count = given[name] = given.get(name, 0) + 1
    return name if count == 1 else f"{name}___{count}"


def _number(value: int) -> str:
    if -(1 << 31) <= value < 1 << 32:
        return str(value)
    if value == -(1 << 63):
        # No constant of C: the minus sign is an operator of its own.
        return "(-9223372036854775807LL - 1)"
    return f"{value}LL" if value < 0 else f"{value}ULL"


def _enum_size(found: t.Enum) -> int:
    values = [value for _, value in found.values]
    if min(values) < 0:
        return 4 if min(values) >= -(1 << 31) and max(values) < 1 << 31 else 8
    return 4 if max(values) < 1 << 32 else 8
