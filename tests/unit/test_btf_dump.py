"""BTF as a C header: order, declarators, padding, clashing names, and what is no C at all."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netbpf.btf import Btf, BtfFormatError
from netbpf.btf import types as t
from netbpf.btf.dump_c import dump
from netbpf.btf.dump_json import documents
from netbpf.btf.layout import describe, render
from tests.unit.blobs import Blob
from tests.unit.test_btf import every_kind


def body(blob: Blob | Btf) -> str:
    """What stands between the header's head and its tail, without empty lines."""
    text = dump(blob if isinstance(blob, Btf) else Btf.parse(bytes(blob)))
    start = text.index("apply_to = record)\n#endif\n")
    inner = text[
        start + 26 : text.index("#ifndef BPF_NO_PRESERVE_ACCESS_INDEX\n#pragma clang", start)
    ]
    return re.sub(r"\n+", "\n", inner).strip()


def basic(order: str = "<") -> tuple[Blob, int, int]:
    """A blob with ``int`` and ``char``, and their ids."""
    blob = Blob(order)
    return blob, blob.int("int", 4, t.INT_SIGNED), blob.int("char", 1, t.INT_SIGNED)


def union(blob: Blob, name: str, size: int, *members: tuple[str, int, int]) -> int:
    words = [w for n, i, o in members for w in (blob.string(n), i, o)]
    return blob.add(t.KIND_UNION, name, size, *words, vlen=len(members))


def bits(offset: int, size: int) -> int:
    """Where a bit field is, as a struct with the kind flag has it."""
    return size << 24 | offset


def proto(blob: Blob, returns: int, *params: tuple[str, int]) -> int:
    words = [w for n, i in params for w in (blob.string(n), i)]
    return blob.add(t.KIND_FUNC_PROTO, "", returns, *words, vlen=len(params))


def test_the_header_guards_itself_and_asks_for_core() -> None:
    text = dump(Btf.parse(bytes(basic()[0])))
    assert text.startswith("#ifndef __VMLINUX_H__\n#define __VMLINUX_H__\n")
    assert text.endswith("#endif /* __VMLINUX_H__ */\n")
    assert text.count("#pragma clang attribute push") == text.count("attribute pop") == 1
    assert text.count("#if") == text.count("#endif")


def test_a_pointer_needs_a_declaration_and_a_member_a_definition() -> None:
    blob, number, _ = basic()
    outer = blob.count + 1
    blob.struct("outer", 16, ("inner", outer + 2, 0), ("next", outer + 1, 64))
    blob.add(t.KIND_PTR, "", outer + 3)
    blob.struct("inner", 4, ("x", number, 0))
    blob.struct("other", 8, ("back", outer + 4, 0))
    blob.add(t.KIND_PTR, "", outer)
    assert body(blob).split(";\n")[0] == "struct inner {\n\tint x"
    assert re.findall(r"^struct \w+(?: \{|;)", body(blob), re.MULTILINE) == [
        "struct inner {",
        "struct other;",
        "struct outer {",
        "struct other {",
    ]


def test_a_struct_that_points_to_a_typedef_of_itself() -> None:
    blob, _, _ = basic()
    first = blob.count + 1
    blob.struct("node", 8, ("next", first + 2, 0))
    blob.add(t.KIND_TYPEDEF, "node_t", first)
    blob.add(t.KIND_PTR, "", first + 1)
    assert body(blob) == (
        "struct node;\ntypedef struct node node_t;\nstruct node {\n\tnode_t *next;\n};"
    )


def test_declarators() -> None:
    blob, number, char = basic()
    const_char = blob.add(t.KIND_CONST, "", char)
    text = blob.add(t.KIND_PTR, "", const_char)
    const_text = blob.add(t.KIND_CONST, "", text)
    texts = blob.add(t.KIND_ARRAY, "", 0, const_text, number, 3)
    function = proto(blob, text, ("", number), ("", 0))
    callback = blob.add(t.KIND_PTR, "", function)
    callbacks = blob.add(t.KIND_ARRAY, "", 0, callback, number, 2)
    matrix = blob.add(t.KIND_ARRAY, "", 0, number, number, 4)
    matrices = blob.add(t.KIND_ARRAY, "", 0, matrix, number, 2)
    to_matrix = blob.add(t.KIND_PTR, "", matrix)
    volatile = blob.add(t.KIND_VOLATILE, "", number)
    restrict = blob.add(t.KIND_RESTRICT, "", blob.add(t.KIND_PTR, "", volatile))
    returns_pointer = blob.add(t.KIND_PTR, "", proto(blob, callback))
    const_matrix = blob.add(t.KIND_CONST, "", matrix)
    constant = blob.add(t.KIND_CONST, "", const_matrix)
    members = [
        ("texts", texts, 24),
        ("callbacks", callbacks, 16),
        ("matrices", matrices, 32),
        ("to_matrix", to_matrix, 8),
        ("pointer", restrict, 8),
        ("returns", returns_pointer, 8),
        ("constant", constant, 16),
        ("flexible", blob.add(t.KIND_ARRAY, "", 0, number, number, 0), 0),
    ]
    placed, offset = [], 0
    for name, type_id, size in members:
        placed.append((name, type_id, offset))
        offset += 8 * size
    blob.struct("all", offset // 8, *placed)
    assert body(blob).splitlines()[1:-1] == [
        "\tconst char *const texts[3];",
        "\tconst char *(*callbacks[2])(int, ...);",
        "\tint matrices[2][4];",
        "\tint (*to_matrix)[4];",
        "\tvolatile int *__restrict pointer;",
        "\tconst char *(*(*returns)(void))(int, ...);",
        "\tconst int constant[4];",
        "\tint flexible[0];",
    ]


def test_holes_that_the_compiler_would_not_leave_are_filled() -> None:
    blob, number, char = basic()
    wide = blob.int("long", 8, t.INT_SIGNED)
    blob.struct("natural", 16, ("c", char, 0), ("n", number, 32), ("w", wide, 64))
    blob.struct("aligned", 128, ("n", number, 0), ("w", wide, 512))
    lines = body(blob)
    natural, aligned = lines.split("struct aligned")
    assert natural.count(";") == 4
    assert aligned.count("\tlong: 64;") == 14
    assert "\tlong: 32;\n\tlong: 64;" in aligned
    assert "packed" not in lines


def test_a_large_hole_is_one_line() -> None:
    blob, number, _ = basic()
    blob.struct("page", 1 << 20, ("n", number, 0))
    assert f"\tunsigned char __padding_4[{(1 << 20) - 4}];\n" in body(blob)


def test_packed_structs() -> None:
    blob, number, char = basic()
    inner = blob.struct("inner", 5, ("c", char, 0), ("n", number, 8))
    blob.struct("outer", 9, ("i", inner, 0), ("c", char, 40), ("d", char, 64))
    blob.struct("size", 6, ("n", number, 0), ("c", char, 32))
    text = body(blob)
    assert text.count("__attribute__((packed))") == 2
    assert (
        "struct outer {\n\tstruct inner i;\n\tchar c;\n\tchar: 8;\n\tchar: 8;\n\tchar d;\n};"
        in text
    )
    assert "struct size {\n\tint n;\n\tchar c;\n\tchar: 8;\n} __attribute__((packed));" in text


def test_bit_fields() -> None:
    blob, number, char = basic()
    blob.struct(
        "fields",
        12,
        ("a", number, bits(0, 3)),
        ("b", number, bits(3, 5)),
        ("c", char, bits(8, 0)),
        ("d", number, bits(16, 4)),
        ("e", number, bits(32, 5)),
        ("f", number, bits(64, 30)),
        flag=1,
    )
    assert body(blob).splitlines() == [
        "struct fields {",
        "\tint a: 3;",
        "\tint b: 5;",
        "\tchar c;",
        "\tint d: 4;",
        # The next one would fit behind it, but is not there.
        "\tint: 12;",
        "\tint e: 5;",
        # This one would not.
        "\tint f: 30;",
        "};",
    ]


def test_bit_fields_of_old_compilers_have_their_own_integers() -> None:
    blob = Blob()
    three = blob.add(t.KIND_INT, "unsigned int", 4, 3)
    five = blob.add(t.KIND_INT, "unsigned int", 4, 3 << 16 | 5)
    blob.struct("old", 4, ("a", three, 0), ("b", five, 0))
    assert "\tunsigned int a: 3;\n\tunsigned int b: 5;\n" in body(blob)


def test_anonymous_members() -> None:
    blob, number, char = basic()
    inner = blob.struct("", 8, ("a", number, 0), ("b", char, 32))
    array = blob.add(t.KIND_ARRAY, "", 0, inner, number, 2)
    either = union(blob, "", 8, ("x", number, 0), ("", inner, 0))
    blob.struct("outer", 24, ("", either, 0), ("pairs", array, 64))
    assert body(blob).splitlines() == [
        "struct outer {",
        "\tunion {",
        "\t\tint x;",
        "\t\tstruct {",
        "\t\t\tint a;",
        "\t\t\tchar b;",
        "\t\t};",
        "\t};",
        "\tstruct {",
        "\t\tint a;",
        "\t\tchar b;",
        "\t} pairs[2];",
        "};",
    ]


def test_a_nameless_member_of_a_named_struct_is_written_out() -> None:
    blob, number, _ = basic()
    inner = blob.struct("inner", 4, ("x", number, 0))
    blob.struct("outer", 8, ("", inner, 0), ("y", number, 32))
    assert "struct outer {\n\tstruct {\n\t\tint x;\n\t};\n\tint y;\n};" in body(blob)


def test_two_of_one_name() -> None:
    blob, number, char = basic()
    first = blob.struct("twice", 4, ("a", number, 0))
    second = blob.struct("twice", 1, ("a", char, 0))
    blob.add(t.KIND_TYPEDEF, "name", first)
    blob.add(t.KIND_TYPEDEF, "name", second)
    # Tags and other names do not meet.
    blob.add(t.KIND_TYPEDEF, "twice", number)
    blob.add(t.KIND_ENUM, "", 4, blob.string("name"), 0, vlen=1)
    text = body(blob)
    assert "typedef struct twice name;" in text
    assert "typedef struct twice___2 name___2;" in text
    assert "typedef int twice;" in text
    assert "\tname___3 = 0," in text


def test_a_declaration_without_a_body_means_the_struct_of_that_name() -> None:
    blob, number, _ = basic()
    pointer = blob.add(t.KIND_PTR, "", blob.add(t.KIND_FWD, "known"))
    stranger = blob.add(t.KIND_PTR, "", blob.add(t.KIND_FWD, "known", flag=1))
    blob.struct("user", 16, ("known", pointer, 0), ("stranger", stranger, 64))
    blob.struct("known", 4, ("x", number, 0))
    text = body(blob)
    assert text.count("struct known;") == 1
    assert "\tstruct known *known;\n\tunion known___2 *stranger;" in text


def test_enums() -> None:
    blob = Blob()
    string = blob.string
    negative = [string("A"), -1, string("B"), 1]
    blob.add(t.KIND_ENUM, "negative", 4, *negative, vlen=2, flag=1)
    blob.add(t.KIND_ENUM, "small", 1, string("S"), 200, vlen=1)
    blob.add(t.KIND_ENUM64, "large", 8, string("L"), 0, 1 << 31, vlen=1)
    blob.add(t.KIND_ENUM64, "least", 8, string("M"), 0, 1 << 31, vlen=1, flag=1)
    blob.add(t.KIND_ENUM64, "fits", 8, string("F"), 1, 0, vlen=1)
    blob.add(t.KIND_ENUM, "", 4, string("false"), 0, string("true"), 1, vlen=2)
    text = body(blob)
    assert "\tA = -1,\n\tB = 1,\n};" in text
    assert "\tS = 200,\n} __attribute__((mode(QI)));" in text
    assert "\tL = 9223372036854775808ULL,\n};" in text
    assert "\tM = (-9223372036854775807LL - 1),\n};" in text
    assert "\tF = 1,\n} __attribute__((mode(DI)));" in text
    # Since C23 false and true are words of the language.
    assert re.search(r"#if .*202311L\nenum \{\n\tfalse = 0,\n\ttrue = 1,\n\};\n#endif", text)


def test_tags() -> None:
    blob, number, _ = basic()
    tagged = blob.add(t.KIND_PTR, "", blob.add(t.KIND_TYPE_TAG, "user", number))
    space = blob.add(t.KIND_PTR, "", blob.add(t.KIND_TYPE_TAG, "address_space(1)", 0, flag=1))
    odd = blob.add(t.KIND_PTR, "", blob.add(t.KIND_TYPE_TAG, 'x") evil(', 0, flag=1))
    struct = blob.struct("s", 24, ("p", tagged, 0), ("a", space, 64), ("o", odd, 128))
    blob.add(t.KIND_DECL_TAG, "whole", struct, -1)
    blob.add(t.KIND_DECL_TAG, "member", struct, 1)
    text = body(blob)
    assert '\tint __btf_type_tag("user") *p;' in text
    assert '\tvoid __attribute__((address_space(1))) *a __btf_decl_tag("member");' in text
    assert '\tvoid __btf_type_tag("x_) evil(") *o;' in text
    assert '} __btf_decl_tag("whole");' in text
    assert "#define __btf_type_tag(name) __attribute__((btf_type_tag(name)))" in text


def test_kfuncs() -> None:
    blob, number, char = basic()
    later = blob.add(t.KIND_PTR, "", blob.add(t.KIND_FWD, "sock"))
    for name, fast in (("zulu", False), ("alfa", True)):
        function = blob.add(
            t.KIND_FUNC, name, proto(blob, number, ("sk", later), ("number_t", char)), vlen=0
        )
        blob.add(t.KIND_DECL_TAG, "bpf_kfunc", function, -1)
        if fast:
            blob.add(t.KIND_DECL_TAG, "bpf_fastcall", function, -1)
    blob.add(t.KIND_TYPEDEF, "number_t", number)
    blob.add(t.KIND_FUNC, "not_for_programs", proto(blob, number), vlen=0)
    lines = body(blob).splitlines()
    start = lines.index("#ifndef BPF_NO_KFUNC_PROTOTYPES")
    # A parameter's name would hide the typedef from the parameters behind it.
    assert lines[start + 1 : start + 4] == [
        "extern __bpf_fastcall int alfa(struct sock *sk, char number_t_) __weak __ksym;",
        "extern int zulu(struct sock *sk, char number_t_) __weak __ksym;",
        "#endif",
    ]
    assert "struct sock;" in lines[:start]
    assert "not_for_programs" not in "\n".join(lines)


def test_names_that_are_no_c() -> None:
    blob, number, _ = basic()
    blob.struct("core::fmt<'a>\n#error", 8, ("type name", number, 0), ("for", number, 32))
    text = body(blob)
    assert text == "struct core__fmt__a___error {\n\tint type_name;\n\tint for_;\n};"


def test_types_without_a_word_in_c() -> None:
    blob = Blob()
    size = blob.int("ssizetype", 8, t.INT_SIGNED)
    poly = blob.int("__Poly8_t", 1)
    half = blob.add(t.KIND_FLOAT, "_Float16", 2)
    real = blob.add(t.KIND_FLOAT, "double", 8)
    members = [("s", size, 0), ("p", poly, 64), ("h", half, 80), ("d", real, 128)]
    blob.struct("odd", 24, *members)
    assert [line.split()[0] for line in body(blob).splitlines()[1:-1]] == [
        "long",
        "unsigned",
        "short",
        "double",
    ]


def test_the_compilers_own_typedef_is_left_to_it() -> None:
    blob, number, _ = basic()
    array = blob.add(t.KIND_ARRAY, "", 0, number, number, 6)
    blob.add(t.KIND_TYPEDEF, "va_list", blob.add(t.KIND_TYPEDEF, "__builtin_va_list", array))
    assert body(blob) == (
        "typedef int __builtin_va_list___2[6];\ntypedef __builtin_va_list___2 va_list;"
    )


def test_split() -> None:
    base, number, _ = basic()
    shared = base.struct("shared", 4, ("x", number, 0))
    base.struct("unused", 4, ("x", number, 0))
    kernel = Btf.parse(bytes(base))
    split = Blob(strings=len(base._strings), types=base.count)
    split.struct("module", 8, ("s", shared, 0), ("y", number, 32))
    text = body(Btf.parse(bytes(split), kernel))
    assert text.startswith("struct shared {")
    assert "struct module {\n\tstruct shared s;\n\tint y;\n};" in text
    assert "unused" not in text
    assert [d["name"] for d in documents(Btf.parse(bytes(split), kernel))] == ["module"]


def test_some_types_only() -> None:
    blob, number, _ = basic()
    inner = blob.struct("inner", 4, ("x", number, 0))
    outer = blob.struct("outer", 4, ("i", inner, 0))
    blob.struct("other", 4, ("x", number, 0))
    text = dump(Btf.parse(bytes(blob)), [outer])
    assert "struct inner {" in text
    assert "struct outer {" in text
    assert "other" not in text


def contains_itself(blob: Blob, number: int) -> None:
    blob.struct("own", 4, ("again", blob.count + 1, 0))


def contains_itself_anonymously(blob: Blob, number: int) -> None:
    first = blob.count + 1
    blob.struct("", 8, ("a", first, 0), ("b", first, 32))
    blob.add(t.KIND_TYPEDEF, "name", first)


def pointer_to_itself(blob: Blob, number: int) -> None:
    blob.struct("s", 8, ("p", blob.count + 2, 0))
    blob.add(t.KIND_PTR, "", blob.count + 1)


def typedef_of_itself(blob: Blob, number: int) -> None:
    blob.add(t.KIND_TYPEDEF, "name", blob.count + 1)


def chain_without_end(blob: Blob, number: int) -> None:
    for _ in range(5000):
        number = blob.add(t.KIND_PTR, "", number)
    blob.add(t.KIND_TYPEDEF, "name", number)


def deeper_step_by_step(blob: Blob, number: int) -> None:
    # Each typedef is only some levels above the one before, and the text holds all of them.
    for _ in range(100):
        for _ in range(20):
            number = blob.add(t.KIND_PTR, "", number)
        number = blob.struct("", 8, ("x", number, 0))
        blob.add(t.KIND_TYPEDEF, f"t{blob.count}", number)


def array_of_itself(blob: Blob, number: int) -> None:
    blob.struct("s", 8, ("a", blob.count + 2, 0))
    blob.add(t.KIND_ARRAY, "", 0, blob.count + 1, number, 1)


def overlapping(blob: Blob, number: int) -> None:
    blob.struct("s", 8, ("a", number, 0), ("b", number, 16))


def too_small(blob: Blob, number: int) -> None:
    blob.struct("s", 2, ("a", number, 0))


def without_a_size(blob: Blob, number: int) -> None:
    blob.struct("s", 8, ("a", blob.add(t.KIND_FWD, "nowhere"), 0))


def no_such_type(blob: Blob, number: int) -> None:
    blob.struct("s", 8, ("a", 4711, 0))


def name_outside(blob: Blob, number: int) -> None:
    blob.add(t.KIND_STRUCT, "s", 4, 1 << 20, number, 0, vlen=1)


def name_too_long(blob: Blob, number: int) -> None:
    blob.struct("s" * 5000, 4, ("x", number, 0))


def member_that_is_no_type(blob: Blob, number: int) -> None:
    variable = blob.add(t.KIND_VAR, "v", number, 0)
    blob.struct("s", 4, ("x", variable, 0))


def doubling(blob: Blob, number: int) -> None:
    # Few bytes that are endless as text: each level holds the one below twice.
    inner = blob.struct("", 0)
    for _ in range(28):
        inner = blob.struct("", 0, ("a", inner, 0), ("b", inner, 0))
    blob.struct("s", 0, ("x", inner, 0))


def doubling_prototypes(blob: Blob, number: int) -> None:
    inner = blob.add(t.KIND_PTR, "", proto(blob, number))
    for _ in range(25):
        inner = blob.add(t.KIND_PTR, "", proto(blob, inner, ("", inner), ("", inner)))
    blob.add(t.KIND_TYPEDEF, "name", inner)


@pytest.mark.parametrize(
    "make",
    [
        contains_itself,
        contains_itself_anonymously,
        pointer_to_itself,
        typedef_of_itself,
        chain_without_end,
        deeper_step_by_step,
        array_of_itself,
        overlapping,
        too_small,
        without_a_size,
        no_such_type,
        name_outside,
        name_too_long,
        member_that_is_no_type,
        doubling,
        doubling_prototypes,
    ],
    ids=lambda make: make.__name__,
)
def test_what_is_no_c_is_refused(make: object) -> None:
    blob, number, _ = basic()
    assert callable(make)
    make(blob, number)
    with pytest.raises(BtfFormatError):
        dump(Btf.parse(bytes(blob)))


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_damaged_blobs_never_hang_or_crash(data: st.DataObject) -> None:
    raw = bytearray(bytes(every_kind("<")))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(24, len(raw) - 1))
        raw[at] = data.draw(st.integers(0, 255))
    try:
        btf = Btf.parse(bytes(raw))
    except BtfFormatError:
        return
    for work in (
        lambda: dump(btf),
        lambda: json.dumps(documents(btf)),
        lambda: [list(render(describe(btf, i, 3))) for i in range(len(btf))],
    ):
        try:
            work()
        except BtfFormatError:
            pass


@pytest.mark.parametrize("order", "<>")
def test_every_kind_compiles(order: str, tmp_path: Path) -> None:
    clang = shutil.which("clang")
    assert clang is not None, "the tests need clang"
    source = tmp_path / "all.c"
    source.write_text(dump(Btf.parse(bytes(every_kind(order)))))
    target = "bpfel" if order == "<" else "bpfeb"
    flags = ["-target", target, "-Wall", "-Werror", "-fsyntax-only"]
    subprocess.run([clang, *flags, source], check=True)


def test_json() -> None:
    found = {each["kind"]: each for each in documents(Btf.parse(bytes(every_kind("<"))))}
    assert found["INT"]["encoding"] == "SIGNED CHAR" or found["INT"]["name"] == "char"
    assert found["STRUCT"] == {
        "id": 6,
        "kind": "STRUCT",
        "name": "fields",
        "size": 4,
        "vlen": 2,
        "members": [
            {"name": "x", "type_id": 1, "bits_offset": 0, "bitfield_size": 3},
            {"name": "y", "type_id": 1, "bits_offset": 3, "bitfield_size": 5},
        ],
    }
    assert found["ENUM64"]["values"] == [{"name": "TOP", "val": 1 << 63}]
    assert found["FWD"]["fwd_kind"] == "union"
    assert found["PTR"] == {"id": 3, "kind": "PTR", "name": None, "type_id": 1}
    assert found["DECL_TAG"]["component_idx"] == -1
    assert set(found) == {
        *("INT", "PTR", "ARRAY", "STRUCT", "UNION", "ENUM", "ENUM64", "FWD", "CONST", "VOLATILE"),
        *("RESTRICT", "TYPE_TAG", "TYPEDEF", "FUNC_PROTO", "FUNC", "VAR", "DATASEC", "FLOAT"),
        "DECL_TAG",
    }
