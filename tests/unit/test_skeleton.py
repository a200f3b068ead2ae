"""Skeletons without a kernel: values and bytes, names, and files that would say more than those."""

from __future__ import annotations

import ast
import json
import keyword
import os
import struct
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netbpf import skeleton
from netbpf.bpf import uapi
from netbpf.btf import types as t
from netbpf.btf.blob import Btf
from netbpf.cli import main as entry
from netbpf.elf.object import open_object
from netbpf.elf.spec import Function, MapSpec, ObjectSpec, ProgramSpec
from netbpf.errors import ConflictError, NetbpfError, ObjectFileError
from netbpf.skeleton import codecs
from netbpf.skeleton.generate import module
from netbpf.skeleton.names import Names, attribute, class_name
from tests.netns_fixtures.cli import own_signals
from tests.netns_fixtures.objects import build
from tests.unit.blobs import Blob

ORDER = "<" if sys.byteorder == "little" else ">"
FUNCTION = Function("f", "tc", 1, 0, b"")


def test_numbers_of_every_size() -> None:
    for bits, unsigned, signed in (
        (8, skeleton.u8, skeleton.s8),
        (16, skeleton.u16, skeleton.s16),
        (32, skeleton.u32, skeleton.s32),
        (64, skeleton.u64, skeleton.s64),
    ):
        for codec, low in ((unsigned, 0), (signed, -(2 ** (bits - 1)))):
            for number in (low, low + 2**bits - 1):
                assert codec.read(codec.pack(number, "n"), 0) == number
            for number in (low - 1, low + 2**bits):
                with pytest.raises(ValueError, match=f"n has {bits} bits.*{number} does not fit"):
                    codec.pack(number, "n")
    assert skeleton.u32.pack(1, "n") == struct.pack("=I", 1)


@given(st.data())
def test_bit_fields_change_no_bit_beside_them(data: st.DataObject) -> None:
    width = data.draw(st.integers(1, 64))
    start = data.draw(st.integers(0, 80))
    signed = data.draw(st.booleans())
    low = -(1 << (width - 1)) if signed else 0
    number = data.draw(st.integers(low, low + (1 << width) - 1))
    before = data.draw(st.binary(min_size=20, max_size=20))
    codec = codecs.Bits(start, width, signed)
    buffer = bytearray(before)
    codec.write(buffer, 1, number, "n")
    assert codec.read(bytes(buffer), 1) == number
    mask = ((1 << width) - 1) << start
    if sys.byteorder == "big":
        mask = ((1 << width) - 1) << (8 * 19 - start - width)
    was, now = (int.from_bytes(each[1:], sys.byteorder) for each in (before, buffer))
    assert was & ~mask == now & ~mask
    assert buffer[0] == before[0]
    for wrong in (low - 1, low + (1 << width)):
        with pytest.raises(ValueError, match=f"{width} bits"):
            codec.write(buffer, 1, wrong, "n")


def test_text_bytes_and_arrays() -> None:
    chars = codecs.Chars(4)
    assert [chars.pack(text, "t") for text in ("", "ab", "abcd")] == [
        bytes(4),
        b"ab\0\0",
        b"abcd",
    ]
    assert chars.read(b"a\0bc", 0) == "a"
    odd = chars.read(b"\xff\xfe\0\0", 0)
    assert chars.pack(odd, "t") == b"\xff\xfe\0\0"
    for wrong, kind in (("abcde", ValueError), ("a\0", ValueError), (b"a", TypeError)):
        with pytest.raises(kind):
            chars.pack(wrong, "t")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="4 bytes, not 3"):
        codecs.Raw(4).pack(b"abc", "r")
    grid = codecs.Array(codecs.Array(codecs.u16, 2), 2)
    assert grid.read(grid.pack(((1, 2), (3, 4)), "g"), 0) == ((1, 2), (3, 4))
    with pytest.raises(ValueError, match=r"g\[1\] has 2 elements, not 1"):
        grid.pack(((1, 2), (3,)), "g")
    with pytest.raises(TypeError, match=r"g\[1\]\[0\] is a number, not 'x'"):
        grid.pack(((1, 2), ("x", 2)), "g")  # type: ignore[arg-type]


def test_an_enumeration_holds_any_number() -> None:
    class Verdict(skeleton.Enum):
        PASS = 0
        DROP = 2

    codec = codecs.Enumerated(Verdict, 4)
    known, other = (codec.read(struct.pack("=I", n), 0) for n in (2, 99))
    assert known is Verdict.DROP
    assert (other, other.name, isinstance(other, Verdict)) == (99, "99", True)
    assert codec.pack(other, "v") == struct.pack("=I", 99)
    assert {other: 1}[codec.read(struct.pack("=I", 99), 0)] == 1
    assert repr(other)


@given(st.text(max_size=40) | st.sampled_from([*keyword.kwlist, "self", "__init__", "", "_", "9"]))
def test_every_name_becomes_a_name(name: str) -> None:
    for made in (attribute(name), class_name(name)):
        assert made.isidentifier() and made.isascii() and not keyword.iskeyword(made)
        assert not made.startswith("_"), "what begins with an underscore is the runtime's"
    assert "_" not in class_name(name)


def test_equal_names_get_numbers() -> None:
    names = Names(["taken"])
    assert [names.new(n) for n in ("a", "a", "a_2", "a", "taken")] == [
        *("a", "a_2", "a_2_2", "a_3", "taken_2"),
    ]


@cache
def example() -> Path:
    """An object with a little of everything."""
    return build(
        (Path(__file__).parents[1] / "bpf/skeleton.c").read_text(), name="skeleton", head=""
    )


def test_the_same_object_gives_the_same_bytes(tmp_path: Path) -> None:
    text = skeleton.of_file(example())
    (tmp_path / "deeper").mkdir()
    other = tmp_path / "deeper" / "skeleton.o"
    other.write_bytes(example().read_bytes())
    os.utime(other, (0, 0))
    assert skeleton.of_file(other) == text
    assert text.isascii() and str(tmp_path) not in text
    assert max(map(len, text.splitlines())) <= 100
    assert text.startswith("# netbpf skeleton, format 1, of skeleton.o: ")
    assert not [line for line in text.splitlines() if line != line.rstrip()]


def test_what_is_embedded_is_the_object() -> None:
    found: dict[str, Any] = {}
    sys.modules.setdefault("embedded", type(sys)("embedded"))
    found["__name__"] = "embedded"
    exec(compile(skeleton.of_file(example()), "m", "exec", dont_inherit=True), found)
    with found["open"]() as skel:
        ours, theirs = skel.object.spec, open_object(example())
        assert (ours.programs, ours.maps) == (theirs.programs, theirs.maps)
        assert ours.path == "skeleton.o"
        assert skel.rodata.settings.small == 5
        assert skel.rodata.settings.negative == -3
        assert (skel.rodata.settings.low, skel.rodata.device, skel.data.packets) == (-5, "none", 5)


def test_a_format_of_later_is_refused() -> None:
    with pytest.raises(NetbpfError, match=r"format 2, this netbpf reads 1.*make it anew"):
        skeleton.Skeleton("", "x.o", format=2)


def test_only_skeletons_are_written_over(tmp_path: Path) -> None:
    file = tmp_path / "m.py"
    text = skeleton.of_file(example())
    assert skeleton.write(text, file)
    file.chmod(0o640)
    before = file.stat()
    assert not skeleton.write(text, file)
    assert file.stat().st_mtime_ns == before.st_mtime_ns
    assert skeleton.write(text + "# more\n", file)
    assert file.stat().st_mode == before.st_mode
    file.write_text("mine\n")
    with pytest.raises(ConflictError, match=r"no skeleton that netbpf has made.*--force"):
        skeleton.write(text, file)
    assert file.read_text() == "mine\n"
    assert skeleton.write(text, file, force=True)
    link = tmp_path / "link.py"
    link.symlink_to(file)
    assert skeleton.write(text + "# again\n", link)
    assert link.is_symlink() and file.read_text().endswith("# again\n")
    for wrong in (tmp_path, tmp_path / "none" / "m.py", file / "m.py"):
        with pytest.raises(NetbpfError, match=r"cannot be written|is not a file"):
            skeleton.write(text, wrong)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(NetbpfError, match="is not a file"):
        skeleton.write(text, tmp_path / "fifo", force=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fifo", "link.py", "m.py"]


def crafted(names: list[str]) -> ObjectSpec:
    """An object in which every name is one of ``names``."""

    def at(index: int) -> str:
        return names[index % len(names)]

    blob = Blob(ORDER)
    u32 = blob.int(at(0), 4)
    char = blob.int("char", 1, t.INT_SIGNED)
    chars = blob.add(t.KIND_ARRAY, "", 0, char, u32, 4)
    enum = blob.add(
        t.KIND_ENUM, at(1), 4, *(w for i in range(4) for w in (blob.string(at(i)), i)), vlen=4
    )
    inner = blob.struct(at(2), 8, (at(0), u32, 0), (at(1), chars, 32))
    nameless = blob.struct("", 4, (at(2), u32, 0))
    union = blob.add(
        *(t.KIND_UNION, at(3), 8),
        *(
            w
            for i, kind in enumerate((u32, inner, nameless))
            for w in (blob.string(at(i)), kind, 0)
        ),
        vlen=3,
    )
    array = blob.add(t.KIND_ARRAY, "", 0, inner, u32, 3)
    outer = blob.struct(
        at(0),
        56,
        (at(0), inner, 0),
        (at(1), union, 64),
        ("", nameless, 128),
        (at(2), enum, 160),
        (at(3), array, 192),
    )
    variables = [blob.add(t.KIND_VAR, at(i), outer, 1) for i in range(4)]
    places = [w for i, v in enumerate(variables) for w in (v, 56 * i, 56)]
    section = blob.add(t.KIND_DATASEC, ".data", 224, *places, vlen=4)
    maps = [
        MapSpec(
            name=at(i),
            type=kind,
            key_size=8,
            value_size=56,
            max_entries=1,
            key_type_id=inner,
            value_type_id=outer,
        )
        for i, kind in enumerate((1, 5, 27, 9999))
    ]
    data = MapSpec(
        *("x.data", uapi.BPF_MAP_TYPE_ARRAY, 4, 224, 1),
        value_type_id=section,
        section=".data",
        contents=bytes(224),
    )
    custom = replace(data, name=at(1), section=f".data.{at(1)}", value_type_id=section)
    return ObjectSpec(
        path="/some/where/x.o",
        name=at(0),
        byteorder=sys.byteorder,
        license="GPL",
        version=0,
        programs=tuple(
            ProgramSpec(at(i), at(i), 3, 0, 0, "", True, replace(FUNCTION, name=at(i)))
            for i in range(4)
        ),
        functions={},
        maps=(*maps, data, custom),
        externs=(),
        btf=Btf.parse(bytes(blob)),
    )


def harmless(text: str) -> None:
    """Whether a module does nothing but define what a skeleton has."""
    tree = ast.parse(text)
    assert text.isascii()
    assert [type(node) for node in tree.body[:2]] == [ast.Expr, ast.ImportFrom]
    classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    for node in tree.body[1:]:
        match node:
            case ast.ImportFrom(module="__future__" | "dataclasses" | "netbpf"):
                pass
            case ast.Import(names=[ast.alias(name="builtins", asname="_builtins")]):
                pass
            case ast.Assign(targets=[ast.Name(id="_OBJECT")], value=ast.Constant()):
                pass
            case ast.FunctionDef(name="open", body=[ast.Expr(), ast.Return()]):
                pass
            case ast.ClassDef(bases=[ast.Attribute(value=ast.Name(id="_s"))]):
                pass
            case _:
                raise AssertionError(ast.unparse(node))
    for inner in ast.walk(tree):
        if isinstance(inner, ast.Call):
            called = ast.unparse(inner.func)
            assert (
                called.startswith("_s.")
                or called in classes
                or called in ("dataclass", "bytes", "_builtins.bytes", "super")
                or called == "super().__init__"
            ), called
        elif isinstance(inner, ast.Attribute) and isinstance(inner.value, ast.Name):
            assert inner.value.id in {"_s", "_builtins", "self", *classes}, ast.unparse(inner)


HOSTILE = [
    '"""\nimport os; os.abort()\n"""',
    "x = 1\nimport os\nos.abort()",
    "class", "None", "self", "import", "bytes", "int", "str", "tuple", "bool", "list", "float",
    "__init__", "__slots__", "_layout", "_size", "raw", "holding", "mro", "name", "value",
    "_value_", "__class__", "_s", "_builtins", "_OBJECT", "dataclass", "Maps", "Progs", "Skeleton",
    "open", "Data", "load", "close", "attach", "object", "maps", "progs", "links", "data",
    "a b", "a\\", "'", '"', "'''", "\\N{DIGIT ONE}", "\r", "\x00", "é", "\u2028", "𝒞", "0", "9a",
    "#", "}", "{0}", "%s", "$int", "$(x)", "a\tb", "a" * 1000, "struct", "union", "anon",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_no_code(name: str) -> None:
    check([name])
    check([name, "fine"])
    check([name.upper(), name, f"{name}_2", f"_{name}"])


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text(max_size=30) | st.sampled_from(HOSTILE), min_size=1, max_size=5))
def test_hostile_names_together(names: list[str]) -> None:
    check(names)


def check(names: list[str]) -> None:
    # BTF has no way to write a NUL in a name, and this helper none for lone surrogates.
    names = [n.replace("\0", "").encode("utf-8", "replace").decode() for n in names]
    if not all(names):
        names = [n or "_" for n in names]
    text = module(crafted(names), b"no object")
    harmless(text)
    space: dict[str, Any] = {"__name__": "crafted"}
    sys.modules["crafted"] = type(sys)("crafted")
    try:
        exec(compile(text, "crafted", "exec", dont_inherit=True), space)
    finally:
        del sys.modules["crafted"]
    variables = [v for v in vars(space["Data"]).values() if isinstance(v, skeleton.Variable)]
    assert len(variables) == 4
    for variable in variables:
        codec = variable._codec
        value = codec.read(bytes(range(codec.size)), 0)
        assert codec.read(codec.pack(value, "v"), 0) == value


def test_types_that_contradict_themselves_are_refused() -> None:
    def spec(blob: Blob, type_id: int, size: int) -> ObjectSpec:
        var = blob.add(t.KIND_VAR, "v", type_id, 1)
        section = blob.add(t.KIND_DATASEC, ".data", size, var, 0, size, vlen=1)
        data = MapSpec(
            *("x.data", uapi.BPF_MAP_TYPE_ARRAY, 4, size, 1),
            value_type_id=section,
            section=".data",
            contents=bytes(size),
        )
        return replace(crafted(["x"]), maps=(data,), btf=Btf.parse(bytes(blob)))

    loop = Blob(ORDER)
    loop.int("int", 4)
    with pytest.raises(ObjectFileError, match=r"\.BTF"):
        module(spec(loop, loop.struct("s", 8, ("again", 2, 0)), 8), b"")
    overlap = Blob(ORDER)
    u32 = overlap.int("int", 4)
    with pytest.raises(ObjectFileError, match="overlap"):
        module(spec(overlap, overlap.struct("s", 8, ("a", u32, 0), ("b", u32, 8)), 8), b"")
    outside = Blob(ORDER)
    u32 = outside.int("int", 4)
    with pytest.raises(ObjectFileError):
        module(spec(outside, outside.struct("s", 4, ("a", u32, 64)), 4), b"")
    small = Blob(ORDER)
    u64 = small.int("long", 8)
    with pytest.raises(ObjectFileError, match="variable v lies outside"):
        module(spec(small, u64, 4), b"")


def test_huge_arrays_are_only_bytes() -> None:
    blob = Blob(ORDER)
    u32 = blob.int("int", 4)
    empty = blob.struct("nothing", 0)
    huge = blob.add(t.KIND_ARRAY, "", 0, u32, u32, 2**20)
    many = blob.add(t.KIND_ARRAY, "", 0, empty, u32, 2**32 - 1)
    made = []
    for key, value, size in ((u32, huge, 2**22), (u32, many, 0)):
        spec = MapSpec(
            *("m", uapi.BPF_MAP_TYPE_ARRAY, 4, size, 1), key_type_id=key, value_type_id=value
        )
        text = module(replace(crafted(["x"]), maps=(spec,), btf=Btf.parse(bytes(blob))), b"")
        harmless(text)
        made.append(f'_s.MapOf[int, bytes] = _s.map_of("m", _s.u32, _s.Raw({size}))' in text)
    assert made == [True, True]


def test_types_that_would_grow_without_end_are_refused() -> None:
    """Each level holds the one below twice, without a name and without a size of its own."""

    def nested(bottom: int, blob: Blob) -> ObjectSpec:
        inner = bottom
        for _ in range(25):
            inner = blob.struct("", 0, ("", inner, 0), ("", inner, 0))
        spec = MapSpec("m", uapi.BPF_MAP_TYPE_HASH, 4, 0, 1, value_type_id=inner)
        return replace(crafted(["x"]), maps=(spec,), btf=Btf.parse(bytes(blob)))

    empty = Blob(ORDER)
    with pytest.raises(ObjectFileError, match="over 100000 members are too many"):
        module(nested(empty.struct("", 0), empty), b"")
    wide = Blob(ORDER)
    wide.int("int", 4)
    enum = wide.add(
        *(t.KIND_ENUM, "e", 4),
        *(w for i in range(100_001) for w in (wide.string(f"e{i}"), i)),
        vlen=100_001,
    )
    spec = MapSpec("m", uapi.BPF_MAP_TYPE_HASH, 4, 4, 1, value_type_id=enum)
    with pytest.raises(ObjectFileError, match="over 100000 members are too many"):
        module(replace(crafted(["x"]), maps=(spec,), btf=Btf.parse(bytes(wide))), b"")


def test_what_pointers_into_an_arena_lead_to() -> None:
    blob = Blob(ORDER)
    u32 = blob.int("__u32", 4)
    node = blob.struct("node", 16, ("next", blob.count + 2, 0), ("number", u32, 64))
    pointer = blob.add(t.KIND_PTR, "", node)
    nameless = blob.struct("", 4, ("held", u32, 0))
    named = blob.add(t.KIND_TYPEDEF, "box_t", nameless)
    boxes = blob.add(t.KIND_PTR, "", named)
    plain = blob.add(t.KIND_PTR, "", nameless)
    theirs = blob.struct("task_struct", 4, ("pid", u32, 0))
    tagged = blob.add(t.KIND_PTR, "", blob.add(t.KIND_TYPE_TAG, "kptr", theirs))
    elsewhere = blob.add(t.KIND_PTR, "", blob.add(t.KIND_FWD, "nothing"))
    value = blob.struct(
        "value",
        40,
        *((f"m{i}", p, 64 * i) for i, p in enumerate((plain, boxes, pointer, tagged, elsewhere))),
    )
    maps = [
        MapSpec("m", uapi.BPF_MAP_TYPE_HASH, 4, 40, 1, key_type_id=u32, value_type_id=value),
        MapSpec("arena", uapi.BPF_MAP_TYPE_ARENA, 0, 0, 1),
    ]
    btf = Btf.parse(bytes(blob))
    classes = [
        [n.name for n in ast.parse(module(spec, b"")).body if isinstance(n, ast.ClassDef)]
        for spec in (replace(crafted(["x"]), maps=tuple(maps[:n]), btf=btf) for n in (1, 2))
    ]
    assert classes[0] == ["Value", "Maps", "Progs", "Skeleton"], "without an arena there are none"
    assert classes[1] == ["Value", "Node", "BoxT", "Maps", "Progs", "Skeleton"]


def test_the_configuration_is_only_read() -> None:
    source = """
    extern int CONFIG_HZ __kconfig;
    SEC("tc") int hz(struct __sk_buff *skb) { return CONFIG_HZ; }
    char _license[] SEC("license") = "GPL";
    """
    found: dict[str, Any] = {"__name__": "embedded"}
    text = skeleton.of_file(build(source, name="hz"))
    assert "CONFIG_HZ: _s.Constant[int] = _s.constant(0, _s.s32)" in text
    exec(compile(text, "m", "exec", dont_inherit=True), found)
    with found["open"]() as skel:
        assert skel.kconfig.CONFIG_HZ == 0
        with pytest.raises(AttributeError):
            skel.kconfig.CONFIG_HZ = 5


def test_an_object_without_types_has_bytes() -> None:
    spec = replace(crafted(["x"]), btf=None, maps=(MapSpec("m", uapi.BPF_MAP_TYPE_HASH, 4, 8, 1),))
    assert 'm: _s.MapOf[bytes, bytes] = _s.map_of("m", _s.Raw(4), _s.Raw(8))' in module(spec, b"")


def run(*arguments: object) -> tuple[int, str, str]:
    out, err = StringIO(), StringIO()
    with own_signals(), redirect_stdout(out), redirect_stderr(err):
        status = entry.main(["object", "skeleton", *map(str, arguments)])
    return status, out.getvalue(), err.getvalue()


def test_the_command_prints_or_writes(tmp_path: Path) -> None:
    text = skeleton.of_file(example())
    assert run(example()) == run(example(), "-o", "-") == (0, text, "")
    file = tmp_path / "made.py"
    assert run(example(), "-o", file) == (0, f"{file}: written\n", "")
    assert file.read_text() == text
    assert run(example(), "-o", file) == (0, f"{file}: unchanged\n", "")
    file.write_text("mine\n")
    status, out, err = run(example(), "-o", file)
    assert (status, out) == (5, "")
    assert "--force writes over it" in err
    status, out, err = run(example(), "-o", file, "--force", "--json")
    document = json.loads(out)
    assert document == {
        "schema_version": 1,
        "skeleton": {"file": str(example()), "module": str(file), "changed": True, "text": None},
    }
    document = json.loads(run(example(), "-j")[1])["skeleton"]
    assert document == {"file": str(example()), "module": None, "changed": False, "text": text}


def test_the_command_refuses_what_is_no_object(tmp_path: Path) -> None:
    file = tmp_path / "made.py"
    for wrong in (tmp_path / "none.o", Path(__file__), tmp_path):
        status, out, err = run(wrong, "-o", file)
        assert (status, out) == (1, "")
        assert str(wrong) in err
    assert not file.exists()
