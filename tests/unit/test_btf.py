"""BTF blobs of every kind, in both byte orders, and broken in every way."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netbpf.btf import Btf, BtfFormatError
from netbpf.btf import types as t
from netbpf.btf.ext import BtfExt
from netbpf.btf.patch import patched
from tests.unit.blobs import Blob


def every_kind(order: str) -> Blob:
    blob = Blob(order)
    number = blob.int("int", 4, t.INT_SIGNED)
    char = blob.int("char", 1, t.INT_SIGNED | t.INT_CHAR)
    pointer = blob.add(t.KIND_PTR, "", number)
    array = blob.add(t.KIND_ARRAY, "", 0, char, number, 16)
    blob.struct("plain", 24, ("a", number, 0), ("b", array, 32))
    blob.struct("fields", 4, ("x", number, 3 << 24 | 0), ("y", number, 5 << 24 | 3), flag=1)
    blob.add(t.KIND_UNION, "either", 8, blob.string("p"), pointer, 0, vlen=1)
    blob.add(
        t.KIND_ENUM, "verdict", 4, blob.string("PASS"), 0, blob.string("NEXT"), -1, vlen=2, flag=1
    )
    blob.add(t.KIND_ENUM64, "large", 8, blob.string("TOP"), 0, 1 << 31, vlen=1)
    blob.add(t.KIND_FWD, "later", 0, flag=1)
    const = blob.add(t.KIND_CONST, "", number)
    volatile = blob.add(t.KIND_VOLATILE, "", const)
    restrict = blob.add(t.KIND_RESTRICT, "", volatile)
    tag = blob.add(t.KIND_TYPE_TAG, "user", restrict)
    blob.add(t.KIND_TYPEDEF, "alias", tag)
    proto = blob.add(t.KIND_FUNC_PROTO, "", number, blob.string("arg"), pointer, vlen=1)
    blob.add(t.KIND_FUNC, "function", proto, vlen=t.LINKAGE_GLOBAL)
    variable = blob.add(t.KIND_VAR, "variable", number, t.LINKAGE_GLOBAL)
    other = blob.add(t.KIND_VAR, "other", number, t.LINKAGE_STATIC)
    blob.add(t.KIND_DATASEC, ".data", 0, variable, 0, 4, other, 4, 4, vlen=2)
    blob.add(t.KIND_FLOAT, "double", 8)
    blob.add(t.KIND_DECL_TAG, "mark", number, -1)
    return blob


@pytest.mark.parametrize("order", "<>")
def test_every_kind(order: str) -> None:
    btf = Btf.parse(bytes(every_kind(order)))
    assert btf.byteorder == ("little" if order == "<" else "big")
    found = dict(btf)
    assert len(found) == len(btf) - 1 == 22
    assert found[1] == t.Int("int", 4, t.INT_SIGNED, 0, 32)
    assert found[3] == t.Ptr(1)
    assert found[4] == t.Array(2, 1, 16)
    assert found[5] == t.Struct("plain", 24, (t.Member("a", 1, 0, 0), t.Member("b", 4, 32, 0)))
    assert found[6] == t.Struct("fields", 4, (t.Member("x", 1, 0, 3), t.Member("y", 1, 3, 5)))
    assert found[7] == t.Union("either", 8, (t.Member("p", 3, 0, 0),))
    assert found[8] == t.Enum("verdict", 4, True, (("PASS", 0), ("NEXT", -1)))
    assert found[9] == t.Enum("large", 8, False, (("TOP", 1 << 63),), t.KIND_ENUM64)
    assert found[10] == t.Fwd("later", True)
    assert [found[i].kind for i in (11, 12, 13)] == [
        t.KIND_CONST,
        t.KIND_VOLATILE,
        t.KIND_RESTRICT,
    ]
    assert found[14] == t.TypeTag("user", 13, False)
    assert found[15] == t.Typedef("alias", 14)
    assert found[16] == t.FuncProto(1, (("arg", 3),))
    assert found[17] == t.Func("function", 16, t.LINKAGE_GLOBAL)
    assert found[18] == t.Var("variable", 1, t.LINKAGE_GLOBAL)
    assert found[20] == t.DataSec(".data", 0, (t.SecVar(18, 0, 4), t.SecVar(19, 4, 4)))
    assert found[21] == t.Float("double", 8)
    assert found[22] == t.DeclTag("mark", 1, -1, False)
    assert btf.resolve(15) == (1, found[1])
    assert [btf.size(i) for i in (1, 3, 4, 5, 7, 15, 16, 18)] == [4, 8, 16, 24, 8, 4, 0, 4]
    assert btf.type(0) == t.Void()


def test_names() -> None:
    btf = Btf.parse(bytes(every_kind("<")))
    assert btf.ids("plain") == [5]
    assert btf.find("plain", t.KIND_UNION) is None
    assert btf.ids("no such") == btf.ids("") == []
    # "id" is the tail of no name, "int" is the whole of one.
    assert btf.ids("nt") == []
    assert btf.ids_of_kind(t.KIND_VAR) == [18, 19]


def test_a_string_that_is_the_tail_of_another() -> None:
    blob = Blob()
    blob.int("unsigned", 4)
    data = bytearray(bytes(blob))
    # Let the name begin at "signed".
    data[24:28] = struct.pack("<I", 3)
    assert Btf.parse(bytes(data)).ids("signed") == [1]


def test_a_split_blob_goes_on_where_its_base_ends() -> None:
    base_blob = every_kind("<")
    base = Btf.parse(bytes(base_blob))
    split_blob = Blob(strings=len(base._strings), types=len(base) - 1)
    mine = split_blob.add(t.KIND_TYPEDEF, "module_int", 1)
    split = Btf.parse(bytes(split_blob), base)
    assert mine == 23
    assert split.type(23) == t.Typedef("module_int", 1)
    assert split.resolve(23)[0] == 1
    assert split.ids("module_int") == [23]
    assert split.find("plain", t.KIND_STRUCT) == 5
    assert split.kind(5) == t.KIND_STRUCT
    assert [i for i, _ in split] == [23]
    with pytest.raises(BtfFormatError, match="there is no type 24"):
        split.type(24)


def test_a_kind_of_the_future_is_stepped_over_where_the_layout_explains_it() -> None:
    blob = Blob()
    blob.int("int", 4)
    blob.add(20, "novelty", 4, 7, 8, 9, vlen=2)
    blob.int("after", 8)
    with pytest.raises(BtfFormatError, match="unknown kind 20"):
        Btf.parse(bytes(blob))
    blob.layout = bytes(4 * 20) + struct.pack("<BBH", 4, 4, 0)
    btf = Btf.parse(bytes(blob))
    assert btf.type(2) == t.Unknown("novelty", 20)
    assert btf.type(3) == t.Int("after", 8, 0, 0, 64)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda b: b[:10], "too few"),
        (lambda b: b"\0\0" + b[2:], "magic number"),
        (lambda b: b[:2] + b"\x09" + b[3:], "version 9"),
        (lambda b: b[:4] + b"\xff\0\0\0" * 2 + b[12:], "impossible|outside"),
        (lambda b: b[:-8], "outside of the blob"),
        (lambda b: b[:-1] + b"x", "does not end with NUL"),
        (lambda b: b[:12] + struct.pack("<I", 12) + b[16:], "cut off"),
        (lambda b: b[:12] + struct.pack("<I", 13) + b[16:], "aligned"),
    ],
)
def test_malformed(change: object, reason: str) -> None:
    with pytest.raises(BtfFormatError, match=reason):
        Btf.parse(change(bytes(every_kind("<"))))  # type: ignore[operator]


def test_types_that_go_round_in_a_circle() -> None:
    blob = Blob()
    blob.add(t.KIND_TYPEDEF, "loop", 1)
    blob.add(t.KIND_ARRAY, "", 0, 2, 2, 3)
    btf = Btf.parse(bytes(blob))
    for type_id in (1, 2):
        with pytest.raises(BtfFormatError, match="refers to itself"):
            btf.size(type_id)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.data())
def test_whatever_bytes_are_changed(data: st.DataObject) -> None:
    blob = bytearray(bytes(every_kind("<")))
    for _ in range(data.draw(st.integers(1, 4))):
        blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.sampled_from([len(blob), len(blob) - 1, len(blob) // 2]))
    try:
        btf = Btf.parse(bytes(blob[:end]))
        for type_id, _ in btf:
            btf.resolve(type_id)
            btf.size(type_id)
    except BtfFormatError:
        pass


@pytest.mark.parametrize("order", "<>")
def test_patching(order: str) -> None:
    before = Btf.parse(bytes(every_kind(order)))
    data = patched(
        before,
        datasecs={20: (12, {18: 8})},
        linkages={17: t.LINKAGE_STATIC, 18: t.LINKAGE_STATIC},
    )
    after = Btf.parse(data)
    assert after.type(20) == t.DataSec(".data", 12, (t.SecVar(19, 4, 4), t.SecVar(18, 8, 4)))
    assert after.type(17) == t.Func("function", 16, t.LINKAGE_STATIC)
    assert after.type(18) == t.Var("variable", 1, t.LINKAGE_STATIC)
    unchanged = set(range(1, 23)) - {17, 18, 20}
    assert all(before.type(i) == after.type(i) for i in unchanged)
    with pytest.raises(ValueError, match="is no DATASEC"):
        patched(before, datasecs={1: (1, {})})
    with pytest.raises(ValueError, match="has no linkage"):
        patched(before, linkages={1: 1})


def ext(order: str, name: int, *, size: int = 8, count: int = 1) -> bytes:
    records = struct.pack(f"{order}I", size) + struct.pack(f"{order}II", name, count)
    records += struct.pack(f"{order}II", 16, 17).ljust(size, b"\0")
    parts = [0, len(records), len(records), 0, len(records), 0]
    return struct.pack(f"{order}HBBI6I", 0xEB9F, 1, 0, 32, *parts) + records


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("size", [8, 12])
def test_ext_records_also_longer_ones(order: str, size: int) -> None:
    blob = every_kind(order)
    name = blob.string("tc")
    found = BtfExt.parse(ext(order, name, size=size), Btf.parse(bytes(blob)))
    assert [(r.offset, r.type_id) for r in found.funcs["tc"]] == [(16, 17)]
    assert not found.lines
    assert not found.core


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "too few"),
        (bytes(32), "magic number"),
        (ext("<", 0, size=4), "records of 4 bytes"),
        (ext("<", 0, count=9), "9 records do not fit"),
        (ext("<", 0, count=0), "0 records do not fit"),
        (ext("<", 1 << 30), "outside of the string section"),
        (ext("<", 0)[:-1], "outside of it"),
    ],
)
def test_malformed_ext(data: bytes, reason: str) -> None:
    with pytest.raises(BtfFormatError, match=reason):
        BtfExt.parse(data, Btf.parse(bytes(every_kind("<"))))
