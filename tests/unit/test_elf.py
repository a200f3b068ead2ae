"""Object files to specs, the good ones and those that lie."""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netbpf.bpf import uapi
from netbpf.elf import ObjectSpec, open_object, sections
from netbpf.elf.data import map_name
from netbpf.elf.show import document
from netbpf.errors import NotFoundError, ObjectFileError
from netbpf.loader import relocate
from tests.netns_fixtures.objects import build

SOURCES = Path(__file__).resolve().parents[1] / "bpf"
SEEDS = Path(__file__).resolve().parents[1] / "fuzz" / "seeds"


def source(name: str, *flags: str) -> Path:
    return build((SOURCES / f"{name}.c").read_text(), *flags, name=name, head="")


@pytest.fixture(scope="module")
def good() -> bytes:
    return source("obj_all").read_bytes()


@pytest.fixture(scope="module")
def spec(good: bytes) -> ObjectSpec:
    return open_object("obj_all.o", good)


def test_programs(spec: ObjectSpec) -> None:
    assert [p.name for p in spec.programs] == [
        "target",
        "first",
        "second",
        "looper",
        "jumper",
        "nested",
        "dropper",
    ]
    first = spec.program("first")
    assert (first.section, first.type_name, first.autoload) == ("tc", "sched_cls", True)
    assert spec.program("dropper").expected_attach_type == uapi.BPF_XDP
    assert (spec.license, spec.version, spec.byteorder) == ("GPL", 7, "little")
    assert {r.target for r in first.function.relocations if r.kind == "data"} == {
        ".data",
        ".bss",
        ".rodata",
    }
    assert all(len(f.lines) and f.info for f in spec.functions.values())


def test_sub_programs_in_the_order_of_libbpf(spec: ObjectSpec) -> None:
    order = [f.name for f in relocate.functions(spec, spec.program("second"))]
    assert order == ["second", "global_sum", "twice", "quiet", "bump"]
    assert [f.name for f in relocate.functions(spec, spec.program("looper"))] == ["looper", "walk"]


def test_maps(spec: ObjectSpec) -> None:
    pairs = spec.map("pairs")
    assert (pairs.type_name, pairs.key_size, pairs.value_size, pairs.max_entries, pairs.flags) == (
        "hash",
        4,
        16,
        128,
        uapi.BPF_F_NO_PREALLOC,
    )
    assert spec.btf is not None
    assert spec.btf.type(pairs.value_type_id).name == "pair"
    outer = spec.map("outer")
    assert outer.inner is not None
    assert (outer.inner.type_name, outer.inner.max_entries) == ("array", 2)
    assert outer.slots == ((1, "leaf"),)
    assert spec.map("jumps").slots == ((2, "target"),)
    rodata = spec.map(".rodata")
    assert (rodata.name, rodata.max_entries, rodata.read_only) == ("obj_all.rodata", 1, True)
    assert rodata.flags == uapi.BPF_F_RDONLY_PROG | uapi.BPF_F_MMAPABLE
    assert spec.map(".bss").contents == bytes(8)
    assert spec.map(".data").contents == struct.pack("<Qh", 5, -3)


def test_the_same_on_every_machine(good: bytes, spec: ObjectSpec) -> None:
    again = open_object("obj_all.o", good)
    assert again.programs == spec.programs
    assert again.maps == spec.maps
    big = open_object(str(source("obj_all", "-target", "bpfeb")))
    assert big.byteorder == "big"
    assert [(p.name, p.type) for p in big.programs] == [(p.name, p.type) for p in spec.programs]
    assert big.map("pairs").value_size == 16
    assert big.map(".data").contents == struct.pack(">Qh", 5, -3)
    order = [f.name for f in relocate.functions(big, big.program("second"))]
    assert order == ["second", "global_sum", "twice", "quiet", "bump"]


def test_hidden_functions_are_verified_with_their_callers(spec: ObjectSpec) -> None:
    assert spec.btf is not None
    linkage = {
        name: spec.btf.type(spec.btf.ids(name)[0]).linkage  # type: ignore[union-attr]
        for name in ("twice", "global_sum", "quiet")
    }
    assert linkage == {"twice": 0, "global_sum": 1, "quiet": 0}


def test_choosing_a_program(spec: ObjectSpec) -> None:
    with pytest.raises(
        ObjectFileError, match=r"no program nothing: it holds target \(section tc\)"
    ):
        spec.program("nothing")
    with pytest.raises(ObjectFileError, match=r"7 programs could be meant: .*say which one"):
        spec.only_program()
    assert spec.only_program([uapi.BPF_PROG_TYPE_XDP]).name == "dropper"
    with pytest.raises(ObjectFileError, match="no program of type sk_lookup: it holds target"):
        spec.only_program([uapi.BPF_PROG_TYPE_SK_LOOKUP])
    with pytest.raises(ObjectFileError, match="no map nothing: its maps: leaf, outer, jumps"):
        spec.map("nothing")
    none = open_object(str(build("int number;", name="none")))
    with pytest.raises(ObjectFileError, match="no programs in it"):
        none.only_program()


@pytest.mark.parametrize(
    ("section", "kind", "attach", "extra", "autoload"),
    [
        ("tc", "sched_cls", 0, "", True),
        ("classifier", "sched_cls", 0, "", True),
        ("action", "sched_act", 0, "", True),
        ("tcx/ingress", "sched_cls", uapi.BPF_TCX_INGRESS, "", True),
        ("?tcx/egress", "sched_cls", uapi.BPF_TCX_EGRESS, "", False),
        ("netkit/primary", "sched_cls", uapi.BPF_NETKIT_PRIMARY, "", True),
        ("netkit/peer", "sched_cls", uapi.BPF_NETKIT_PEER, "", True),
        ("fentry/tcp_connect", "tracing", uapi.BPF_TRACE_FENTRY, "tcp_connect", True),
        ("fentry", "tracing", uapi.BPF_TRACE_FENTRY, "", True),
        ("xdp.frags/devmap", "xdp", uapi.BPF_XDP_DEVMAP, "", True),
        ("sk_lookup", "sk_lookup", uapi.BPF_SK_LOOKUP, "", True),
        ("flow_dissector", "flow_dissector", uapi.BPF_FLOW_DISSECTOR, "", True),
        ("tcx", "unspec", 0, "", True),
        ("tc/other", "unspec", 0, "", True),
        ("fentrysome", "unspec", 0, "", True),
    ],
)
def test_section_names(section: str, kind: str, attach: int, extra: str, autoload: bool) -> None:
    found = sections.meaning(section)
    assert uapi.PROG_TYPE_NAMES[found.type] == kind
    assert (found.expected_attach_type, found.extra, found.autoload) == (attach, extra, autoload)


def test_every_section_name_has_its_constants() -> None:
    for name, _, attach, _ in sections._TABLE:
        found = sections.meaning(name.removesuffix("+"))
        assert found.type, name
        assert attach is None or hasattr(uapi, f"BPF_{attach}"), name


@pytest.mark.parametrize(
    ("object_name", "section", "expected"),
    [
        ("filter", ".rodata", "filter.rodata"),
        ("a_very_long_name", ".bss", "a_very_l.bss"),
        ("a_very_long_name", ".rodata", "a_very_l.rodata"),
        ("filter", ".rodata.str1.1", ".rodata.str1.1"),
        ("filter", ".data.some_long_name", ".data.some_long_name"),
    ],
)
def test_names_of_data_sections(object_name: str, section: str, expected: str) -> None:
    assert map_name(object_name, section) == expected


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not an ELF file: the file is empty"),
        (b"#include <linux/bpf.h>\n", "it looks like C source: compile it"),
        (b"\x7fELF", "truncated"),
        (b"\x7fELF\x01\x01" + bytes(64), "a 32-bit ELF file"),
        (b"\x7fELF\x02\x05" + bytes(64), "byte order 5"),
        (b"BC\xc0\xde" + bytes(64), "LLVM bitcode"),
        (b"hello", "not an ELF file"),
    ],
)
def test_not_an_object(data: bytes, reason: str) -> None:
    with pytest.raises(ObjectFileError, match=reason) as caught:
        open_object("some.o", data)
    assert str(caught.value).startswith("some.o: ")


def test_files_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(ObjectFileError, match=r"an ELF file for .*, not for BPF: compile it with"):
        open_object("/proc/self/exe")
    with pytest.raises(NotFoundError, match="no object file"):
        open_object(tmp_path / "nothing.o")
    with pytest.raises(NotFoundError, match="no object file"):
        open_object("/dev/null/x.o")
    with pytest.raises(ObjectFileError, match="not a regular file"):
        open_object("/dev/zero")
    with pytest.raises(ObjectFileError, match="not a regular file"):
        open_object(tmp_path)
    with pytest.raises(ObjectFileError, match="no possible file name"):
        open_object("a\0b")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ObjectFileError, match="not a regular file"):
        open_object(tmp_path / "fifo")


OLD_MAP = """
struct { __u32 type, key_size, value_size, max_entries; } old SEC("maps") = { 1, 4, 4, 1 };
SEC("tc") int uses(struct __sk_buff *skb) { return bpf_map_lookup_elem(&old, skb) != 0; }
"""
TWICE = """
SEC("tc") int counts(struct __sk_buff *skb)
{ return *(int *)bpf_map_lookup_elem(&wrong, skb); }
"""


@pytest.mark.parametrize(
    ("text", "flags", "reason"),
    [
        (OLD_MAP, (), r"section maps: map definitions of the old kind.*SEC\(\"\.maps\"\)"),
        (
            'struct { __uint(type, 1); } wrong SEC(".maps");' + TWICE,
            ("-g0",),
            "section .maps: maps need BTF, and the file has none: compile it with -g",
        ),
        (
            'struct { __uint(type, 1); __uint(colour, 3); } wrong SEC(".maps");' + TWICE,
            (),
            "section .maps: map wrong: attribute colour is not known",
        ),
        (
            'struct { __uint(max_entries, 1); } wrong SEC(".maps");' + TWICE,
            (),
            "map wrong: it has no type",
        ),
        (
            "struct { __uint(type, 1); __uint(key_size, 8); __type(key, int); } "
            'wrong SEC(".maps");' + TWICE,
            (),
            "map wrong: key_size is both 8 and 4",
        ),
        (
            'struct { __uint(type, 1); __uint(pinning, 7); } wrong SEC(".maps");' + TWICE,
            (),
            "pinning 7 is not known",
        ),
        (
            'static struct { __uint(type, 1); __uint(max_entries, 1); } wrong SEC(".maps");'
            + TWICE,
            (),
            "map wrong is static: define it as a global variable",
        ),
        ("int wrong;" + TWICE.replace("&wrong", "(void *)&wrong"), ("-fno-common",), ""),
    ],
)
def test_wrong_maps(text: str, flags: tuple[str, ...], reason: str) -> None:
    file = build(text, *flags)
    if not reason:
        # A variable used as a map is for the verifier to refuse.
        assert open_object(str(file)).program("counts").function.relocations[0].kind == "data"
        return
    with pytest.raises(ObjectFileError, match=reason):
        open_object(str(file))


def test_map_attributes_written_with_enums() -> None:
    text = """
    #define __ulong(name, val) enum { ___##name = val } name
    struct { __uint(type, BPF_MAP_TYPE_ARENA_); __ulong(map_extra, 0x100000000ull);
             __uint(max_entries, 10); __uint(numa_node, 1); } wide SEC(".maps");
    SEC("tc") int uses(struct __sk_buff *skb) { return bpf_map_lookup_elem(&wide, skb) != 0; }
    """.replace("BPF_MAP_TYPE_ARENA_", "33")
    try:
        found = open_object(str(build(text))).map("wide")
    except ObjectFileError:
        # LLVM before 15 has no 64-bit enums in BTF and says the type is void.
        return
    assert (found.type, found.max_entries, found.numa_node) == (33, 10, 1)


def test_every_truncation(good: bytes) -> None:
    step = len(good) // 60
    for end in range(0, len(good) - 1, step):
        with pytest.raises(ObjectFileError, match=r"obj\.o"):
            open_object("obj.o", good[:end])


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(st.sampled_from(sorted(SEEDS.glob("*.o"))), st.data())
def test_whatever_bytes_are_changed(seed: Path, data: st.DataObject) -> None:
    whole = seed.read_bytes()
    order = "<" if whole[5] == 1 else ">"
    (headers,) = struct.unpack_from(order + "Q", whole, 40)
    (count,) = struct.unpack_from(order + "H", whole, 60)
    places = [st.integers(0, 63), st.integers(headers, headers + 64 * count - 1)]
    for header in range(headers + 64, headers + 64 * count, 64):
        kind, _, _, offset, size = struct.unpack_from(order + "IQQQQ", whole, header + 4)
        if kind != 8 and size:
            # Types, symbols, relocations and code alike: each section as often as another.
            places.append(st.integers(offset, offset + size - 1))
    changed = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.one_of(places))] = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]))
    start = time.process_time()
    try:
        found = open_object("obj.o", bytes(changed))
        document(found)
        for program in found.programs:
            relocate.functions(found, program)
    except ObjectFileError as error:
        assert str(error).startswith("obj.o: ")
        # Somebody has thought of it: it is not Python's words that the user reads.
        assert "malformed (" not in str(error)
    assert time.process_time() - start < 2
