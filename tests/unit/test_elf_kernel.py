"""What an object wants of a kernel: externs, structs of programs, arenas, types of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from netbpf.bpf import uapi
from netbpf.btf import types as t
from netbpf.elf import MapSpec, ObjectSpec, open_object, sections
from netbpf.elf.externs import KCONFIG
from netbpf.elf.show import document
from netbpf.errors import ObjectFileError
from tests.netns_fixtures.objects import build

SOURCES = Path(__file__).resolve().parents[1] / "bpf"
SEEDS = Path(__file__).resolve().parents[1] / "fuzz" / "seeds"


def source(name: str, *flags: str) -> Path:
    return build((SOURCES / f"{name}.c").read_text(), *flags, name=name, head="")


@pytest.fixture(scope="module", params=["v1", "v2", "v3"])
def spec(request: pytest.FixtureRequest) -> ObjectSpec:
    return open_object(source("open_kernel", f"-mcpu={request.param}"))


def test_values_of_the_configuration(spec: ObjectSpec) -> None:
    values = {e.name: e for e in spec.externs if e.section == KCONFIG}
    assert {name: (e.kconfig, e.size, e.weak, e.signed) for name, e in values.items()} == {
        "CONFIG_BPF": ("bool", 1, False, False),
        "CONFIG_DEFAULT_HOSTNAME": ("string", 32, True, False),
        "CONFIG_HZ": ("integer", 8, False, False),
        "CONFIG_IPV6": ("tristate", 4, True, False),
        "LINUX_KERNEL_VERSION": ("integer", 4, False, True),
    }
    # By falling alignment, then size, then name: libbpf's order, and what the verifier sees.
    assert sorted((e.offset, name) for name, e in values.items()) == [
        (0, "CONFIG_HZ"),
        (8, "CONFIG_IPV6"),
        (12, "LINUX_KERNEL_VERSION"),
        (16, "CONFIG_BPF"),
        (17, "CONFIG_DEFAULT_HOSTNAME"),
    ]
    found = spec.map(KCONFIG)
    assert (found.name, found.value_size, found.contents) == ("open_ke.kconfig", 49, bytes(49))
    assert found.flags == uapi.BPF_F_RDONLY_PROG | uapi.BPF_F_MMAPABLE
    assert spec.btf is not None
    layout = spec.btf.type(found.value_type_id)
    assert isinstance(layout, t.DataSec)
    assert layout.size == 49
    assert [v.offset for v in layout.variables] == [0, 8, 12, 16, 17]
    assert {spec.btf.type(v.type_id).linkage for v in layout.variables} == {1}  # type: ignore[union-attr]


def test_symbols_of_the_kernel(spec: ObjectSpec) -> None:
    symbols = {e.name: e for e in spec.externs if e.section == ".ksyms"}
    assert {name: (e.function, e.weak, bool(e.type_id)) for name, e in symbols.items()} == {
        "bpf_not_there": (True, True, True),
        "bpf_prog_active": (False, True, True),
        "bpf_prog_fops": (False, False, False),
        "bpf_rcu_read_lock": (True, False, True),
    }
    relocations = spec.program("fetches").function.relocations
    assert {r.target for r in relocations if r.kind == "extern"} == {e.name for e in spec.externs}


def test_structs_of_programs(spec: ObjectSpec) -> None:
    mine, other = spec.map("mine"), spec.map("other")
    for found in (mine, other):
        assert (found.type_name, found.key_size, found.max_entries) == ("struct_ops", 4, 1)
        assert found.struct_ops is not None
        assert found.struct_ops.type_name == "tcp_congestion_ops"
        assert found.value_size == len(found.struct_ops.data) == 48
        assert found.contents is None
        assert found.section == ""
    assert mine.struct_ops is not None
    assert other.struct_ops is not None
    assert (mine.flags, mine.autocreate, mine.struct_ops.link) == (uapi.BPF_F_LINK, True, True)
    assert (other.flags, other.autocreate, other.struct_ops.link) == (0, False, False)
    assert mine.struct_ops.programs == (("init", 0, "my_init"), ("ssthresh", 8, "my_ssthresh"))
    assert mine.struct_ops.data[24:29] == b"mine\0"
    assert other.struct_ops.section == ".struct_ops"
    assert other.struct_ops.programs == (("ssthresh", 8, "my_ssthresh"),)
    assert [m.name for m in spec.maps][-2:] == ["mine", "other"]


def test_what_programs_ask_of_the_kernels_types(spec: ObjectSpec) -> None:
    asked = {r["asks"] for r in document(spec)["core_relocations"]}
    assert {
        "byte_off struct sk_buff.len",
        "byte_off struct sk_buff.table[2]",
        "byte_sz struct sk_buff.table",
        "field_exists struct sk_buff.len",
        "type_exists struct sk_buff",
        "enumval_value enum color GREEN",
    } <= asked


def test_what_a_section_says_of_attaching() -> None:
    fetches = open_object(source("open_kernel")).program("fetches")
    assert (fetches.attach, fetches.needs_target, fetches.extra) == ("trace", True, "tcp_connect")
    known = {
        "kprobe/x": ("kprobe", False, False),
        "kretprobe.multi/x": ("kprobe_multi", False, False),
        "kprobe.session/x": ("kprobe_session", False, False),
        "uprobe.session.s/x": ("uprobe_multi", False, False),
        "usdt.s/a:b:c": ("usdt", False, False),
        "raw_tp.w/x": ("raw_tracepoint", False, False),
        "tp.s/a/b": ("tracepoint", False, False),
        "tp_btf.s/x": ("trace", True, False),
        "fentry.multi.s/x": ("tracing_multi", False, False),
        "freplace/x": ("trace", True, False),
        "lsm.s/x": ("lsm", True, False),
        "lsm_cgroup/x": ("", True, False),
        "iter/task": ("iter", True, False),
        "struct_ops/init": ("", False, False),
        "xdp": ("", False, True),
        "xdp/devmap": ("", False, False),
        "sk_skb/stream_verdict": ("", False, True),
        "cgroup/connect4": ("", False, False),
        "netfilter": ("", False, False),
    }
    for name, expected in known.items():
        found = sections.meaning(name)
        assert found.type, name
        assert (found.attach, found.needs_target, found.attach_type_optional) == expected, name
    assert not sections.meaning("kprobe+").type
    assert sections.meaning("kprobe/a+").extra == "a+"


def test_an_arena() -> None:
    # Compiled from tests/bpf/open_arena.c by clang 19; older ones know no address spaces here.
    spec = open_object(SEEDS / "arena.o")
    arena = spec.map("arena")
    assert (arena.type_name, arena.max_entries) == ("arena", 100)
    assert arena.map_extra == 1 << 44
    assert spec.arena is not None
    assert (spec.arena.map, spec.arena.section) == ("arena", ".addr_space.1")
    assert spec.arena.contents == bytes([7, *bytes(15), 3, *bytes(7)])
    inside = {g.name: g.offset for g in spec.globals() if g.section == ".addr_space.1"}
    assert inside == {"counter": 0, "first": 8}
    used = {(r.kind, r.target, r.value) for r in spec.program("walks").function.relocations}
    assert {("arena", "arena", 0), ("arena", "arena", 8), ("data", ".bss", 0)} <= used
    shown = document(spec)
    assert shown["arena"] == {"map": "arena", "section": ".addr_space.1", "size": 24}
    assert {r["variable"] for r in shown["relocations"]} == {"counter", "first", "head"}


def test_a_linked_object() -> None:
    # bpftool gen object, of obj_more, open_kernel and obj_optional.
    spec = open_object(SEEDS / "linked.o")
    assert len(spec.programs) == 10
    alone = open_object(source("open_kernel"))
    linked = [replace(m, name="", value_type_id=0) for m in spec.maps if m.section == KCONFIG]
    assert linked == [replace(alone.map(KCONFIG), name="", value_type_id=0)]
    assert [e.name for e in spec.externs] == [e.name for e in alone.externs]
    assert [f.name for f in spec.functions.values() if f.section == ".text"] == [
        "word",
        "middle",
        "last",
        "top",
    ]
    assert document(spec)["functions"][1]["binding"] == "weak"


def test_globals(spec: ObjectSpec) -> None:
    everything = open_object(source("obj_all"))
    found = {g["name"]: g for g in document(everything)["globals"]}
    assert found["packets"] == {
        "name": "packets",
        "section": ".data",
        "map": "obj_all.data",
        "type": "__u64",
        "offset": 0,
        "size": 8,
        "static": False,
        "value": 5,
    }
    assert found["device"]["value"] == "none"
    assert found["limits"]["value"]["inner"] == {"port": 80, "tag": "abc"}
    assert found["hidden"]["static"]
    assert {g.section for g in spec.globals()} == {KCONFIG}
    assert document(spec)["globals"] == []


TC = 'SEC("tc") int counts(struct __sk_buff *skb) '
HASH = "__uint(type, 1); __uint(max_entries, 1); __type(key, int);"
OPS = "struct ops { int (*run)(void); int number; };"

REFUSED = {
    "extern without a home": (
        "extern int nowhere;" + TC + "{ return nowhere; }",
        r"nowhere is defined elsewhere, and neither .*: put __ksym or __kconfig behind",
    ),
    "an undeclared function": (
        "int helper(int x);" + TC + "{ return helper(1); }",
        "helper is defined elsewhere",
    ),
    "kconfig of a type": (
        "struct pair { int a, b; }; extern struct pair CONFIG_X __kconfig;"
        + TC
        + "{ return CONFIG_X.a; }",
        r"section .kconfig: CONFIG_X is of a type that no value of the configuration has",
    ),
    "struct_ops of no struct": (
        'SEC(".struct_ops") int number = 1;' + TC + "{ return 0; }",
        r"section .struct_ops: number is of no struct with a name",
    ),
    "struct_ops of another program": (
        OPS + TC + '{ return 0; } SEC(".struct_ops") struct ops mine = { .run = (void *)counts };',
        r'section .struct_ops: mine: counts for member run is no program .*SEC\("struct_ops/run"\)',
    ),
    "a pointer in struct_ops that is no function": (
        "struct ops { int *number; }; int it;" + TC + "{ return it; }"
        'SEC(".struct_ops") struct ops mine = { .number = &it };',
        r"section .struct_ops: mine: member number is no pointer to a function",
    ),
    "values before the last": (
        "struct inner { " + HASH + " __type(value, int); };"
        "struct { __uint(type, 13); struct inner *values[0]; __uint(max_entries, 1); } "
        'wrong SEC(".maps");' + TC + "{ return (long)&wrong; }",
        "map wrong: its values are not its last attribute",
    ),
    "values in a hash": (
        "struct inner { " + HASH + " __type(value, int); };"
        "struct { " + HASH + " __array(values, struct inner); } "
        'wrong SEC(".maps");' + TC + "{ return (long)&wrong; }",
        "map wrong: only maps of maps and of programs have values",
    ),
    "maps of maps of maps": (
        "struct inner { " + HASH + " __type(value, int); };"
        "struct middle { __uint(type, 13); __array(values, struct inner); };"
        "struct { __uint(type, 13); __array(values, struct middle); } "
        'wrong SEC(".maps");' + TC + "{ return (long)&wrong; }",
        r"map wrong\.inner: maps of maps of maps",
    ),
    "a pinned inner map": (
        "struct inner { " + HASH + " __type(value, int); __uint(pinning, 1); };"
        "struct { __uint(type, 13); __array(values, struct inner); } "
        'wrong SEC(".maps");' + TC + "{ return (long)&wrong; }",
        r"map wrong\.inner: a map inside of another one cannot be pinned",
    ),
    "a key without a size": (
        "struct unknown;"
        "struct { __uint(type, 1); __type(key, struct unknown); } "
        'wrong SEC(".maps");' + TC + "{ return (long)&wrong; }",
        "map wrong: its key has no size",
    ),
    "a number in a number": (
        'struct { int type; } wrong SEC(".maps");' + TC + "{ return (long)&wrong; }",
        "map wrong: its type is not written with __uint",
    ),
    "a program that is no program": (
        "static __noinline int sub(void *ctx) { return 1; }"
        "struct { __uint(type, 3); __uint(max_entries, 1); __uint(key_size, 4);"
        ' __array(values, int (void *)); } wrong SEC(".maps") = { .values = { (void *)sub } };'
        + TC
        + "{ return (long)&wrong + sub(skb); }",
        "map wrong: its initial value .* is no program",
    ),
    "a hash of maps with wide keys": (
        "struct inner { " + HASH + ' __type(value, int); } one SEC(".maps");'
        "struct { __uint(type, 13); __uint(max_entries, 1); __uint(key_size, 8);"
        ' __array(values, struct inner); } wrong SEC(".maps") = { .values = { &one } };'
        + TC
        + "{ return (long)&wrong; }",
        "map wrong: a hash of maps with initial values has keys of 4 bytes",
    ),
    "two arenas": (
        "struct { __uint(type, 33); __uint(max_entries, 1); } "
        'one SEC(".maps"), two SEC(".maps");' + TC + "{ return (long)&one + (long)&two; }",
        "one and two are both arenas",
    ),
    "variables of no arena": (
        'int inside SEC(".addr_space.1") = 1;' + TC + "{ return inside; }",
        r"section .addr_space.1: variables of an arena, and no arena for them",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_at_open(name: str) -> None:
    text, reason = REFUSED[name]
    with pytest.raises(ObjectFileError, match=reason):
        open_object(build(text, "-Wno-everything"))


def test_a_stripped_file(tmp_path: Path) -> None:
    data = bytearray(source("obj_optional").read_bytes())
    for section in range(1, 64):
        # The table of sections lies at the end of what clang writes.
        start = int.from_bytes(data[40:48], "little") + 64 * section
        if start + 64 <= len(data) and data[start + 4] == 2:
            data[start + 4] = 0
    with pytest.raises(ObjectFileError, match="no symbol table: the file has been stripped"):
        open_object("stripped.o", bytes(data))


def test_the_shape_of_a_map_is_that_of_older_specs() -> None:
    assert MapSpec("a", 1, 4, 4, 1) == MapSpec("a", 1, 4, 4, 1, autocreate=True, struct_ops=None)


def test_jump_tables() -> None:
    # Only clang 22 and later make them of a switch; by hand they look the same.
    text = """
    __u64 table[3] SEC(".jumptables") = { 8, 16, 24 };
    SEC("tc") int jumps(struct __sk_buff *skb) { return (long)&table; }
    """
    spec = open_object(build(text))
    assert len(spec.jump_tables) == 24
    (relocation,) = spec.program("jumps").function.relocations
    assert (relocation.kind, relocation.value, relocation.size) == ("jump_table", 0, 24)
    assert document(spec)["jump_tables"] == [8, 16, 24]
    assert [m.name for m in spec.maps] == []


def test_an_exception_callback() -> None:
    text = """
    __noinline int rescue(__u64 cookie) { return cookie; }
    __attribute__((btf_decl_tag("exception_callback:rescue")))
    SEC("tc") int throws(struct __sk_buff *skb) { return 0; }
    SEC("tc") int other(struct __sk_buff *skb) { return 0; }
    """
    spec = open_object(build(text))
    assert {p.name: p.exception_callback for p in spec.programs} == {
        "throws": "rescue",
        "other": "",
    }


def test_two_names_of_one_function() -> None:
    text = """
    SEC("tc") int first(struct __sk_buff *skb) { return 1; }
    extern int second(struct __sk_buff *skb) __attribute__((alias("first")));
    """
    spec = open_object(build(text))
    assert [p.name for p in spec.programs] == ["first", "second"]
    assert spec.program("first").function.insns == spec.program("second").function.insns


def test_attach_types_as_they_are_shown() -> None:
    text = "".join(
        f'SEC("{section}") int p{number}(void *ctx) {{ return 0; }}\n'
        for number, section in enumerate(
            ("cgroup_skb/ingress", "cgroup/skb", "cgroup_skb/egress", "xdp.frags", "?lsm.s/bpf")
        )
    )
    shown = document(open_object(build(text)))["programs"]
    assert [(p["attach_type"], p["flags"], p["autoload"]) for p in shown] == [
        ("cgroup_inet_ingress", [], True),
        (None, [], True),
        ("cgroup_inet_egress", [], True),
        ("xdp", ["frags"], True),
        ("lsm_mac", ["sleepable"], False),
    ]


def test_a_hidden_program_is_verified_like_any_other() -> None:
    text = """
    #define __hid __attribute__((visibility("hidden")))
    __hid __noinline int sub(int number) { return number + 1; }
    SEC("tc") __hid int whole(struct __sk_buff *skb) { return sub(skb->len); }
    """
    spec = open_object(build(text))
    assert spec.btf is not None
    linkage = {
        name: spec.btf.type(spec.btf.ids(name)[0]).linkage  # type: ignore[union-attr]
        for name in ("sub", "whole")
    }
    assert linkage == {"sub": t.LINKAGE_STATIC, "whole": t.LINKAGE_GLOBAL}
    assert spec.program("whole").function.hidden
