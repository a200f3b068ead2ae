"""One type with its offsets, and where types are read from."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from netbpf.btf import Btf, BtfFormatError
from netbpf.btf import types as t
from netbpf.btf.layout import Hole, describe, find, render
from netbpf.elf.types import read_types
from netbpf.errors import NotFoundError, ObjectFileError
from netbpf.loader import types
from tests.netns_fixtures.cli import netbpf, ok
from tests.unit.blobs import Blob
from tests.unit.test_btf_dump import bits


@pytest.fixture
def blob() -> Blob:
    """A struct with an anonymous union, a bit field, a struct by name, holes and a padding."""
    blob = Blob()
    number = blob.int("int", 4, t.INT_SIGNED)
    char = blob.int("char", 1, t.INT_SIGNED)
    inner = blob.struct("inner", 8, ("c", char, 0), ("n", number, 32))
    words = [w for n, i in (("x", number), ("y", char)) for w in (blob.string(n), i, 0)]
    union = blob.add(t.KIND_UNION, "", 4, *words, vlen=2)
    array = blob.add(t.KIND_ARRAY, "", 0, inner, number, 16)
    outer = blob.struct(
        "outer",
        152,
        ("first", char, bits(0, 0)),
        ("flag", number, bits(9, 3)),
        ("", union, bits(32, 0)),
        ("inner", inner, bits(128, 0)),
        ("array", array, bits(192, 0)),
        flag=1,
    )
    blob.add(t.KIND_TYPEDEF, "outer_t", outer)
    blob.add(t.KIND_ENUM, "verdict", 4, blob.string("NEXT"), -1, vlen=1, flag=1)
    blob.add(t.KIND_FWD, "inner")
    blob.add(t.KIND_FWD, "elsewhere", flag=1)
    proto = blob.add(t.KIND_FUNC_PROTO, "", number, blob.string("a"), char, vlen=1)
    blob.add(t.KIND_FUNC, "work", proto)
    return blob


def text(blob: Blob, name: str, depth: int = 0) -> str:
    btf = Btf.parse(bytes(blob))
    (type_id,) = find(btf, name)
    return "\n".join(render(describe(btf, type_id, depth)))


def test_a_struct(blob: Blob) -> None:
    lines = [line.split() for line in text(blob, "struct outer").splitlines() if line]
    assert lines == [
        ["struct", "outer", "{"],
        ["char", "first;", "/*", "0", "1", "*/"],
        ["/*", "1", "bits", "hole", "*/"],
        ["int", "flag:3;", "/*", "1:1", "4", "*/"],
        ["/*", "20", "bits", "hole", "*/"],
        ["union", "{"],
        ["int", "x;", "/*", "4", "4", "*/"],
        ["char", "y;", "/*", "4", "1", "*/"],
        ["};", "/*", "4", "4", "*/"],
        ["/*", "8", "bytes", "hole", "*/"],
        ["struct", "inner", "inner;", "/*", "16", "8", "*/"],
        ["struct", "inner", "array[16];", "/*", "24", "128", "*/"],
        ["/*", "size:", "152,", "cachelines:", "3,", "members:", "5", "*/"],
        ["/*", "holes:", "3,", "sum", "holes:", "85", "bits", "*/"],
        ["/*", "last", "cacheline:", "24", "bytes", "*/"],
        ["};"],
    ]


def test_members_are_opened_as_deep_as_asked(blob: Blob) -> None:
    deep = text(blob, "outer", 1)
    assert deep.count("int n;") == 2
    assert deep.count("/* 3 bytes hole */") == 2
    assert "\t} array[16];" in deep
    btf = Btf.parse(bytes(blob))
    shown = describe(btf, find(btf, "outer")[0], 1)
    assert shown.members is not None
    inner = shown.members[3]
    assert (inner.name, inner.type, inner.offset) == ("inner", "struct inner", 16)
    assert inner.holes == (Hole(136, 24),)
    assert inner.members is not None
    assert [(m.name, m.offset) for m in inner.members] == [("c", 16), ("n", 20)]


def test_other_kinds(blob: Blob) -> None:
    assert text(blob, "outer_t").startswith("typedef struct outer {")
    assert text(blob, "outer_t").endswith("} outer_t;")
    assert "\tNEXT = -1,\n" in text(blob, "enum verdict")
    assert text(blob, "func work") == "int work(char a);"
    assert text(blob, "int") == "int;  /* size: 4 */"
    assert text(blob, "union elsewhere") == "union elsewhere;"


def test_what_a_name_finds(blob: Blob) -> None:
    btf = Btf.parse(bytes(blob))
    # The declaration of it counts for nothing beside the struct itself.
    assert find(btf, "inner") == find(btf, "struct inner") == [3]
    with pytest.raises(NotFoundError, match="no type struct verdict: there is enum verdict"):
        find(btf, "struct verdict")
    with pytest.raises(NotFoundError):
        find(btf, "struct elsewhere")
    with pytest.raises(ValueError, match="is no type"):
        find(btf, "struct outer *")


def test_a_struct_in_itself() -> None:
    blob = Blob()
    blob.struct("", 4, ("again", 1, 0))
    blob.add(t.KIND_TYPEDEF, "name", 1)
    btf = Btf.parse(bytes(blob))
    with pytest.raises(BtfFormatError, match="contains itself"):
        describe(btf, 2)


def test_files(blob: Blob, tmp_path: Path) -> None:
    raw = tmp_path / "raw.btf"
    raw.write_bytes(bytes(blob))
    assert types.read(str(raw)).find("outer") is not None
    with pytest.raises(NotFoundError):
        types.read(str(tmp_path / "nothing.o"))
    with pytest.raises(NotFoundError, match="is the module loaded"):
        types.read("no_such_module")
    raw.write_bytes(bytes(blob)[:-3])
    with pytest.raises(ObjectFileError, match=r"raw\.btf"):
        types.read(str(raw))
    raw.write_bytes(b"#include <linux/bpf.h>\n")
    with pytest.raises(ObjectFileError, match="not an ELF file"):
        types.read(str(raw))


def test_a_split_file_goes_on_from_its_base(tmp_path: Path) -> None:
    base = Blob()
    number = base.int("int", 4, t.INT_SIGNED)
    split = Blob(strings=len(base._strings), types=base.count)
    split.struct("module", 4, ("x", number, 0))
    (tmp_path / "base").write_bytes(bytes(base))
    (tmp_path / "split").write_bytes(bytes(split))
    with pytest.raises(ObjectFileError) as caught:
        types.read(str(tmp_path / "split"))
    assert "as the base" in (caught.value.hint or "")
    btf = types.read(str(tmp_path / "split"), str(tmp_path / "base"))
    assert "int x;" in "\n".join(render(describe(btf, find(btf, "struct module")[0])))
    shown = ok("btf", "show", "module", tmp_path / "split", "--base", tmp_path / "base")
    assert shown["types"][0]["members"][0]["type"] == "int"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An object file for this machine, and one for BPF beside it."""
    folder = tmp_path_factory.mktemp("types")
    source = folder / "source.c"
    source.write_text("struct pair { char a; int b; } pair;\n")
    clang = shutil.which("clang")
    assert clang is not None, "the tests need clang"
    command = [clang, "-O2", "-g", "-target", "bpf", "-c", source, "-o"]
    subprocess.run([*command, folder / "bpf.o"], check=True)
    return folder


def test_any_elf_file(built: Path) -> None:
    data = bytearray((built / "bpf.o").read_bytes())
    assert read_types(built / "bpf.o").find("pair") is not None
    # As a kernel is: for x86, and linked.
    data[16:20] = bytes([2, 0, 62, 0])
    assert read_types("vmlinux", bytes(data)).find("pair") is not None
    with pytest.raises(ObjectFileError, match=r"no \.BTF section"):
        read_types(os.path.realpath("/bin/true"))


def test_the_command_line(built: Path) -> None:
    file = built / "bpf.o"
    header = netbpf("btf", "dump", file)
    assert "struct pair {\n\tchar a;\n\tint b;\n};" in header.out
    assert netbpf("btf", "dump", file, "--format", "c").out == header.out
    document = netbpf("btf", "dump", file, "--format", "json").json
    assert set(document) == {"schema_version", "types"}
    assert ok("btf", "dump", file) == document
    assert [each["id"] for each in document["types"]] == list(range(1, len(document["types"]) + 1))
    (shown,) = ok("btf", "show", "struct pair", file)["types"]
    assert set(shown) == {
        *("id", "kind", "name", "declaration", "size", "members", "holes", "padding_bits"),
        "values",
    }
    assert [(m["name"], m["offset"], m["size"]) for m in shown["members"]] == [
        ("a", 0, 1),
        ("b", 4, 4),
    ]
    assert set(shown["members"][0]) == {
        *("name", "type", "offset", "bit_offset", "size", "bit_size", "members", "holes"),
        "padding_bits",
    }
    assert shown["holes"] == [{"bit_offset": 8, "bits": 24}]
    assert ok("btf", "show", "struct", "pair", file)["types"] == [shown]
    words = netbpf("btf", "show", "pair", file).out
    assert "        int b;  " in words
    assert "\\t" not in words


def test_mistakes_on_the_command_line(blob: Blob, built: Path, tmp_path: Path) -> None:
    file = built / "bpf.o"
    assert netbpf("btf", "show", "struct", "pair", file, file).status == 2
    assert netbpf("btf", "show", "pair", file, file).status == 2
    missing = netbpf("--json", "btf", "show", "struct nothing", built / "bpf.o")
    assert (missing.status, missing.error["code"]) == (1, "not_found")
    assert netbpf("btf", "show", "a b c", built / "bpf.o").status == 2
    blob.struct("own", 4, ("again", blob.count + 1, 0))
    (tmp_path / "bad").write_bytes(bytes(blob))
    for command in (["dump"], ["show", "own", "--depth", "99"]):
        result = netbpf("btf", *command, tmp_path / "bad")
        assert (result.status, result.out) == (1, "")
        assert "section .BTF: type " in result.err
    # Without the sizes there is nothing wrong with it.
    assert ok("btf", "dump", tmp_path / "bad")["types"]
