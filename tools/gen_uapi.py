#!/usr/bin/env python3
"""Write netbpf/bpf/uapi.py from a kernel's BTF: constants, display words, a class per struct.

Take the newest kernel at hand: what an older kernel lacks it refuses by itself, while a name that
is missing here cannot be said at all.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from netbpf.btf import Btf  # noqa: E402
from netbpf.btf import types as t  # noqa: E402

# Enums whose values become constants: the enum, the prefix its members share, the name table.
ENUMS: tuple[tuple[str, str, str | None], ...] = (
    ("bpf_cmd", "BPF_", "CMD_NAMES"),
    ("bpf_map_type", "BPF_MAP_TYPE_", "MAP_TYPE_NAMES"),
    ("bpf_prog_type", "BPF_PROG_TYPE_", "PROG_TYPE_NAMES"),
    ("bpf_attach_type", "BPF_", "ATTACH_TYPE_NAMES"),
    ("bpf_link_type", "BPF_LINK_TYPE_", "LINK_TYPE_NAMES"),
    ("bpf_stats_type", "BPF_STATS_", None),
    ("bpf_task_fd_type", "BPF_FD_TYPE_", None),
    ("tcx_action_base", "TCX_", "TCX_ACTION_NAMES"),
    ("xdp_action", "XDP_", "XDP_ACTION_NAMES"),
    ("sk_action", "SK_", None),
    ("bpf_ret_code", "BPF_", None),
    ("netkit_action", "NETKIT_", "NETKIT_ACTION_NAMES"),
    ("netkit_mode", "NETKIT_", None),
    ("netkit_scrub", "NETKIT_SCRUB_", None),
    ("netkit_pairing", "NETKIT_", None),
)
# Enums without which the package cannot work; the others depend on the kernel's configuration.
NEEDED = frozenset({"bpf_cmd", "bpf_map_type", "bpf_prog_type", "bpf_attach_type", "bpf_link_type"})

# The variants of union bpf_attr that have no name in C, told by a member that only they have.
UNNAMED = {
    "map_type": "MapCreateAttr",
    "next_key": "MapElemAttr",
    "prog_type": "ProgLoadAttr",
    "pathname": "ObjPinAttr",
    "attach_bpf_fd": "ProgAttachAttr",
    "fd_by_id_token_fd": "GetIdAttr",
    "next_id": "GetIdAttr",
    "btf_log_buf": "BtfLoadAttr",
}
# What an element of an array is for type checkers.
PYTHON = {"u8": "c_uint8", "u16": "c_uint16", "u32": "c_uint32", "u64": "c_uint64"}
NAMED = {
    "batch": "MapBatchAttr",
    "test": "TestRunAttr",
    "info": "ObjInfoAttr",
    "query": "ProgQueryAttr",
    "raw_tracepoint": "RawTracepointAttr",
}
STRUCTS = {
    "bpf_prog_info": "ProgInfo",
    "bpf_map_info": "MapInfo",
    "bpf_link_info": "LinkInfo",
    "bpf_btf_info": "BtfInfo",
    "bpf_func_info": "FuncInfo",
    "bpf_line_info": "LineInfo",
    "bpf_common_attr": "CommonAttr",
    # What BPF_PROG_TEST_RUN takes as the context, and what a flow dissector gives.
    "__sk_buff": "SkBuff",
    "xdp_md": "XdpMd",
    "bpf_flow_keys": "FlowKeys",
    "bpf_sk_lookup": "SkLookup",
}
INTS = {(n, s): f"{'s' if s else 'u'}{8 * n}" for n in (1, 2, 4, 8) for s in (False, True)}


class Generator:
    """Turns types of one BTF into Python source."""

    def __init__(self, btf: Btf) -> None:
        self.btf = btf
        self.constants: dict[str, int] = {}

    def constant(self, name: str, value: int) -> str | None:
        """A constant's line; None when another enum has given it already."""
        known = self.constants.setdefault(name, value)
        if known is not value and known != value:
            raise SystemExit(f"{name} is both {known} and {value}")
        return f"{name} = {value}"

    def enums(self) -> Iterator[str]:
        """The named enums, each with its name table."""
        for enum, prefix, table in ENUMS:
            type_id = self.btf.find(enum, t.KIND_ENUM, t.KIND_ENUM64)
            if type_id is None:
                if enum in NEEDED:
                    raise SystemExit(f"this BTF has no enum {enum}")
                continue
            found = self.btf.type(type_id)
            assert isinstance(found, t.Enum)
            values = [(n, v) for n, v in found.values if not n.startswith("__")]
            yield f"# enum {enum}"
            for name, value in values:
                if name not in self.constants:
                    yield str(self.constant(name, value))
            if table is not None:
                yield ""
                yield f"{table} = {{"
                for value, name in names(values, prefix).items():
                    yield f'    {value}: "{name}",'
                yield "}"
            yield ""

    def flags(self) -> Iterator[str]:
        """The enums that hold ``BPF_F_…`` flags, most of them without a name, and ``BPF_ANY``."""
        groups = {}
        for type_id in self.btf.ids_of_kind(t.KIND_ENUM) + self.btf.ids_of_kind(t.KIND_ENUM64):
            found = self.btf.type(type_id)
            assert isinstance(found, t.Enum)
            if any(name.startswith(("BPF_F_", "BPF_ANY")) for name, _ in found.values):
                groups[min(name for name, _ in found.values)] = found
        for _, found in sorted(groups.items()):
            lines = [
                str(self.constant(name, value))
                for name, value in found.values
                if not name.startswith("__") and name not in self.constants
            ]
            if lines:
                yield f"# enum {found.name or 'without a name'}"
                yield from lines
                yield ""

    def classes(self) -> Iterator[tuple[str, str, t.Struct | t.Union]]:
        """(class name, what it is in C, type): variants of union bpf_attr, then the structs."""
        for member in self.struct("bpf_attr", t.KIND_UNION).members:
            _, found = self.btf.resolve(member.type_id)
            assert isinstance(found, t.Struct)
            yield variant_name(member.name, found), "a variant of union bpf_attr", found
        for struct, name in STRUCTS.items():
            if self.btf.find(struct, t.KIND_STRUCT) is not None:
                yield name, f"struct {struct}", self.struct(struct, t.KIND_STRUCT)

    def struct(self, name: str, kind: int) -> t.Struct | t.Union:
        """A struct or union by name."""
        found = self.btf.find(name, kind)
        if found is None:
            raise SystemExit(f"this BTF has no {name}")
        result = self.btf.type(found)
        assert isinstance(result, t.Struct | t.Union)
        return result

    def table(self, found: t.Struct | t.Union, indent: str = "        ") -> Iterator[str]:
        """The fields of a type as lines of the table that ``_build`` reads."""
        end = 0
        for member in found.members:
            type_id, inner = self.btf.resolve(member.type_id)
            if isinstance(found, t.Struct):
                for name, ctype in self.padding(end, member, type_id):
                    yield f'{indent}("{name}", "{ctype}"),'
            if isinstance(inner, t.Struct | t.Union):
                word = "struct" if isinstance(inner, t.Struct) else "union"
                yield f'{indent}("{member.name}", ("{word}", ('
                yield from self.table(inner, indent + "    ")
                yield f"{indent}))),"
            else:
                bits = f":{member.bit_size}" if member.bit_size else ""
                yield f'{indent}("{member.name}", "{self.ctype(type_id)}{bits}"),'
            end = member.bit_offset + (member.bit_size or 8 * self.btf.size(type_id))

    def stub(self, found: t.Struct | t.Union, indent: str = "        ") -> Iterator[str]:
        """The fields as annotations, for type checkers; what has no name is flattened."""
        for member in found.members:
            type_id, inner = self.btf.resolve(member.type_id)
            if isinstance(inner, t.Struct | t.Union) and not member.name:
                yield from self.stub(inner, indent)
            elif isinstance(inner, t.Struct | t.Union):
                nested = "_" + "".join(part.title() for part in member.name.split("_"))
                base = "Structure" if isinstance(inner, t.Struct) else "Union"
                yield f"{indent}class {nested}({base}):"
                yield from self.stub(inner, indent + "    ")
                yield f"{indent}{member.name}: {nested}"
            else:
                yield f"{indent}{member.name}: {self.annotation(type_id)}"

    def annotation(self, type_id: int) -> str:
        """What a field of this type reads as in Python."""
        ctype = self.ctype(type_id)
        if ctype.startswith("char["):
            return "bytes"
        if "[" in ctype:
            return f"Array[{PYTHON[ctype.partition('[')[0]]}]"
        return "int"

    def padding(self, end: int, member: t.Member, type_id: int) -> list[tuple[str, str]]:
        """A bit field's unnamed rest, and holes that natural alignment does not make."""
        if member.bit_size:
            if member.bit_offset != end:
                raise SystemExit(f"{member.name}: a hole between bit fields")
            return []
        fill = []
        if end % 32 and end % 8:
            fill.append((f"_bits{end}", f"u32:{32 - end % 32}"))
            end += 32 - end % 32
        align = 8 * self.align(type_id)
        if (end + align - 1) // align * align != member.bit_offset:
            hole = (member.bit_offset - end) // 8
            if hole < 1:
                raise SystemExit(f"{member.name}: packed structs are not expected in the UAPI")
            fill.append((f"_hole{end // 8}", f"u8[{hole}]"))
        return fill

    def align(self, type_id: int) -> int:
        """The natural alignment of a type."""
        type_id, found = self.btf.resolve(type_id)
        if isinstance(found, t.Array):
            return self.align(found.type_id)
        if isinstance(found, t.Struct | t.Union):
            return max((self.align(m.type_id) for m in found.members), default=1)
        return self.btf.size(type_id)

    def ctype(self, type_id: int) -> str:
        """The table's word for a scalar or an array of them."""
        type_id, found = self.btf.resolve(type_id)
        if isinstance(found, t.Int):
            return INTS[found.size, found.signed]
        if isinstance(found, t.Enum):
            return INTS[found.size, found.signed]
        if isinstance(found, t.Array):
            element_id, element = self.btf.resolve(found.type_id)
            if isinstance(element, t.Int) and element.name == "char":
                return f"char[{found.length}]"
            return f"{self.ctype(element_id)}[{found.length}]"
        if isinstance(found, t.Ptr):
            # User space sees pointers of the UAPI's structs as __u64 (__bpf_md_ptr).
            return "u64"
        raise SystemExit(f"no ctypes type for {found}")


def names(values: Iterable[tuple[str, int]], prefix: str) -> dict[int, str]:
    """Display words by value.

    Where two names share a value the later is the kernel's current one, unless it is the one
    that was renamed to ``…_DEPRECATED``. BPF_COMMON_ATTRS is a flag among the commands.
    """
    table: dict[int, str] = {}
    for name, value in values:
        if name == "BPF_COMMON_ATTRS":
            continue
        if value not in table or not name.endswith("_DEPRECATED"):
            table[value] = name.removeprefix(prefix).lower()
    return table


def variant_name(member: str, found: t.Struct) -> str:
    """What the class for a variant of union bpf_attr is called."""
    if member:
        return NAMED.get(member) or "".join(part.title() for part in member.split("_")) + "Attr"
    inside = {m.name for m in found.members}
    for key, name in UNNAMED.items():
        if key in inside or (key == "next_key" and {"map_fd", "key"} <= inside):
            return name
    first = next(iter(m.name for m in found.members if m.name), "unnamed")
    return "".join(part.title() for part in first.split("_")) + "Attr"


HEAD = '''\
"""The UAPI of bpf(2): constants, display words and one struct per command variant.

Generated by tools/gen_uapi.py from the BTF of Linux {release}: change that, not this.

The ctypes classes are made when they are first asked for: all of them would cost every command
more than the rest of the package together. An attribute that a class does not have is refused.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctypes import Array, Structure, Union, c_uint8, c_uint32, c_uint64
    from typing import Any
'''

BUILDER = """

def _scalar(word: str) -> Any:
    import ctypes

    base, _, length = word.rstrip("]").partition("[")
    kinds: dict[str, Any] = {
        "char": ctypes.c_char,
        "u8": ctypes.c_uint8,
        "u16": ctypes.c_uint16,
        "u32": ctypes.c_uint32,
        "u64": ctypes.c_uint64,
        "s8": ctypes.c_int8,
        "s16": ctypes.c_int16,
        "s32": ctypes.c_int32,
        "s64": ctypes.c_int64,
    }
    return kinds[base] * int(length) if length else kinds[base]


def _build(name: str, base: str, table: tuple[Any, ...]) -> type:
    import ctypes

    fields: list[tuple[Any, ...]] = []
    anonymous = []
    for number, (field, kind) in enumerate(table):
        if not field:
            field = f"_u{number}"
            anonymous.append(field)
        if isinstance(kind, tuple):
            fields.append((field, _build(f"{name}.{field}", *kind)))
        else:
            word, _, bits = kind.partition(":")
            fields.append((field, _scalar(word), int(bits)) if bits else (field, _scalar(word)))
    return type(
        name,
        (ctypes.Structure if base == "struct" else ctypes.Union,),
        {
            "__module__": __name__,
            "__slots__": (),
            "_anonymous_": tuple(anonymous),
            "_fields_": fields,
        },
    )


def __getattr__(name: str) -> type:
    if name not in _TABLES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = _build(name, "struct", _TABLES[name])
    return found
"""


def generate(btf: Btf, release: str) -> str:
    """The whole module as text; the same BTF gives the same text."""
    generator = Generator(btf)
    lines = [HEAD.replace("{release}", release)]
    lines += generator.enums()
    lines += generator.flags()
    classes = list(generator.classes())
    lines.append("if TYPE_CHECKING:")
    for name, origin, found in classes:
        lines += [f"    class {name}(Structure):", f'        """{origin}"""']
        lines += [*generator.stub(found), ""]
    lines += ["", "_TABLES: dict[str, tuple[Any, ...]] = {"]
    for name, origin, found in classes:
        lines += [f"    # {origin}: {found.size} bytes", f'    "{name}": (']
        lines += [*generator.table(found), "    ),"]
    lines.append("}")
    return "\n".join(lines) + "\n" + BUILDER


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--btf", default="/sys/kernel/btf/vmlinux", type=Path)
    parser.add_argument("--release", help="of the kernel the BTF is from (default: this one's)")
    parser.add_argument("-o", "--output", default=ROOT / "netbpf/bpf/uapi.py", type=Path)
    args = parser.parse_args()
    # Only the upstream version: a distribution's suffix says nothing about the UAPI.
    release = args.release or platform.release()
    text = generate(Btf.parse(args.btf.read_bytes()), release.split("-")[0].split("+")[0])
    if str(args.output) == "-":
        sys.stdout.write(text)
    else:
        args.output.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
