"""CO-RE by hand-made types: a pair of the program's and the kernel's for each of libbpf's rules."""

from __future__ import annotations

import struct

import pytest

from netbpf.btf import core_spec as cs
from netbpf.btf import index
from netbpf.btf import types as t
from netbpf.btf.blob import Btf
from netbpf.btf.core import Candidate, CoreError, Resolution, apply, describe, essential, resolve
from netbpf.btf.core_match import are_compatible, matches
from netbpf.btf.core_patch import POISON
from netbpf.btf.ext import CoreRelo
from tests.unit.blobs import Blob


class Types(Blob):
    """A blob that begins with what most tests need."""

    def __init__(self, order: str = "<") -> None:
        super().__init__(order)
        self.u8 = self.int("unsigned char", 1)
        self.u16 = self.int("unsigned short", 2)
        self.i32 = self.int("int", 4, t.INT_SIGNED)
        self.u32 = self.int("unsigned int", 4)
        self.u64 = self.int("unsigned long", 8)

    def ptr(self, target: int = 0) -> int:
        return self.add(t.KIND_PTR, "", target)

    def typedef(self, name: str, target: int) -> int:
        return self.add(t.KIND_TYPEDEF, name, target)

    def const(self, target: int) -> int:
        return self.add(t.KIND_CONST, "", target)

    def array(self, target: int, length: int) -> int:
        return self.add(t.KIND_ARRAY, "", 0, target, self.u32, length)

    def union(self, name: str, size: int, *members: tuple[str, int, int]) -> int:
        words = [w for n, i, o in members for w in (self.string(n), i, o)]
        return self.add(t.KIND_UNION, name, size, *words, vlen=len(members))

    def bits(self, name: str, size: int, *members: tuple[str, int, int, int]) -> int:
        """A struct with bit fields: (name, type id, bit offset, bits)."""
        plain = [(n, i, o | bits << 24) for n, i, o, bits in members]
        return self.struct(name, size, *plain, flag=1)

    def enum(self, name: str, *values: tuple[str, int], signed: bool = False, size: int = 4) -> int:
        words = [w for n, v in values for w in (self.string(n), v)]
        return self.add(t.KIND_ENUM, name, size, *words, vlen=len(values), flag=int(signed))

    def enum64(self, name: str, *values: tuple[str, int]) -> int:
        words = [w for n, v in values for w in (self.string(n), v & 0xFFFFFFFF, v >> 32)]
        return self.add(t.KIND_ENUM64, name, 8, *words, vlen=len(values))

    def fwd(self, name: str, union: bool = False) -> int:
        return self.add(t.KIND_FWD, name, flag=int(union))

    def proto(self, result: int, *params: int) -> int:
        words = [w for p in params for w in (0, p)]
        return self.add(t.KIND_FUNC_PROTO, "", result, *words, vlen=len(params))

    def parse(self) -> Btf:
        return Btf.parse(bytes(self))


def answer(
    local: Types, kernel: Types, type_id: int, access: str, kind: int = cs.FIELD_BYTE_OFFSET
) -> Resolution:
    """What becomes of one relocation, all of the kernel's types looked through."""
    ours, theirs = local.parse(), kernel.parse()
    wanted = ours.type(type_id)
    ids = index.parse(bytes(kernel)).candidates(essential(wanted.name), wanted.kind)
    relo = CoreRelo(0, type_id, access, kind)
    return resolve(ours, relo, [Candidate(theirs, i) for i in ids])[0]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sock", "sock"),
        ("sock___old", "sock"),
        ("sock___", "sock___"),
        ("___old", "___old"),
        ("sock____old", "sock____old"),
        ("a___b___c", "a___b"),
        ("a___b____c", "a"),
        ("sock__old", "sock__old"),
        ("", ""),
    ],
)
def test_essential_names(name: str, expected: str) -> None:
    assert essential(name) == expected


def test_a_member_is_found_by_name_wherever_it_lies() -> None:
    local, kernel = Types(), Types()
    ours = local.struct("sock", 8, ("a", local.i32, 0), ("b", local.u32, 32))
    kernel.struct("sock", 24, ("x", kernel.u64, 0), ("b", kernel.u32, 128), ("a", kernel.i32, 160))
    found = answer(local, kernel, ours, "0:1")
    assert (found.old, found.new, found.poison, found.validate) == (4, 16, False, True)
    assert answer(local, kernel, ours, "0:0", cs.FIELD_EXISTS).new == 1
    assert answer(local, kernel, ours, "0:0", cs.FIELD_SIGNED).new == 1
    assert answer(local, kernel, ours, "0:1", cs.FIELD_SIGNED).new == 0
    # An array of structs behind the pointer: &sock[2].b
    assert answer(local, kernel, ours, "2:1").new == 2 * 24 + 16


def test_what_is_missing_poisons_or_says_no() -> None:
    local, kernel = Types(), Types()
    ours = local.struct("sock", 4, ("a", local.i32, 0))
    kernel.struct("sock", 4, ("b", kernel.i32, 0))
    found = answer(local, kernel, ours, "0:0")
    assert found.poison and found.old == 0
    for kind in (cs.FIELD_BYTE_SIZE, cs.FIELD_SIGNED, cs.FIELD_LSHIFT_U64, cs.FIELD_RSHIFT_U64):
        assert answer(local, kernel, ours, "0:0", kind).poison
    found = answer(local, kernel, ours, "0:0", cs.FIELD_EXISTS)
    assert (found.poison, found.old, found.new) == (False, 1, 0)


def test_anonymous_members_are_stepped_through() -> None:
    local, kernel = Types(), Types()
    ours = local.struct("s", 8, ("a", local.i32, 0), ("b", local.i32, 32))
    inner = kernel.struct("", 8, ("q", kernel.i32, 0), ("b", kernel.i32, 32))
    middle = kernel.union("", 8, ("z", kernel.u64, 0), ("", kernel.const(inner), 0))
    kernel.struct("s", 16, ("", middle, 64), ("a", kernel.i32, 0))
    assert answer(local, kernel, ours, "0:1").new == 12
    assert answer(local, kernel, ours, "0:0").new == 0
    # And the other way round: anonymous in the program, plain in the kernel.
    local, kernel = Types(), Types()
    inner = local.struct("", 8, ("q", local.i32, 0), ("b", local.i32, 32))
    ours = local.struct("s", 8, ("", inner, 0))
    kernel.struct("s", 4, ("b", kernel.i32, 0))
    assert (answer(local, kernel, ours, "0:0:1").old) == 4
    assert answer(local, kernel, ours, "0:0:1").new == 0
    assert describe(local.parse(), CoreRelo(0, ours, "0:0:1", 0)) == "struct s.b"


def test_flavours_on_both_sides_and_typedefs_and_qualifiers_between() -> None:
    local, kernel = Types(), Types()
    ours = local.struct("s___mine", 4, ("a", local.const(local.typedef("num", local.i32)), 0))
    kernel.struct("s___theirs", 8, ("pad", kernel.i32, 0), ("a", kernel.i32, 32))
    kernel.struct("s", 8, ("none", kernel.i32, 0))
    assert answer(local, kernel, ours, "0:0").new == 4


def test_a_struct_is_none_of_another_kind() -> None:
    local, kernel = Types(), Types()
    ours = local.struct("s", 4, ("a", local.i32, 0))
    kernel.union("s", 4, ("a", kernel.i32, 0))
    kernel.fwd("s")
    kernel.typedef("s", kernel.i32)
    assert answer(local, kernel, ours, "0:0").poison
    assert answer(local, kernel, ours, "0", cs.TYPE_EXISTS).new == 0


def test_candidates_have_to_agree() -> None:
    local, kernel = Types(), Types()
    ours = local.struct("s", 8, ("a", local.i32, 0), ("b", local.i32, 32))
    kernel.struct("s", 8, ("a", kernel.i32, 0), ("b", kernel.i32, 32))
    kernel.struct("s___2", 12, ("a", kernel.i32, 0), ("c", kernel.i32, 32), ("b", kernel.i32, 64))
    assert answer(local, kernel, ours, "0:0").new == 0
    with pytest.raises(CoreError, match=r"s\.b is ambiguous: it is at bit 32 .* at bit 64"):
        answer(local, kernel, ours, "0:1")
    with pytest.raises(CoreError, match=r"struct s is ambiguous: .*8 and 12"):
        answer(local, kernel, ours, "0", cs.TYPE_SIZE)
    assert answer(local, kernel, ours, "0", cs.TYPE_EXISTS).new == 1


def test_a_candidate_that_did_not_fit_is_not_asked_again() -> None:
    local, kernel = Types(), Types()
    ours = local.struct("s", 8, ("a", local.i32, 0), ("b", local.i32, 32))
    first = kernel.struct("s", 8, ("a", kernel.i32, 0))
    second = kernel.struct("s___2", 8, ("b", kernel.i32, 0))
    btf, theirs = local.parse(), kernel.parse()
    known = [Candidate(theirs, first), Candidate(theirs, second)]
    assert not resolve(btf, CoreRelo(0, ours, "0:1", cs.FIELD_EXISTS), known)[0].poison
    _, left = resolve(btf, CoreRelo(0, ours, "0:0", cs.FIELD_EXISTS), known)
    assert [c.type_id for c in left] == [first]
    found, left = resolve(btf, CoreRelo(0, ours, "0:1", cs.FIELD_EXISTS), left)
    assert found.new == 0
    # When none fits, none is struck off.
    assert [c.type_id for c in left] == [first]


def test_arrays_keep_within_their_bounds() -> None:
    local, kernel = Types(), Types()
    ours = local.struct("s", 40, ("v", local.array(local.i32, 10), 0))
    kernel.struct("s", 24, ("x", kernel.u64, 0), ("v", kernel.array(kernel.i32, 4), 64))
    assert answer(local, kernel, ours, "0:0:3").new == 8 + 12
    assert answer(local, kernel, ours, "0:0:4").poison
    assert answer(local, kernel, ours, "0:0:4", cs.FIELD_EXISTS).new == 0
    assert answer(local, kernel, ours, "0:0:3", cs.FIELD_BYTE_SIZE).new == 4
    assert answer(local, kernel, ours, "0:0", cs.FIELD_BYTE_SIZE).new == 16
    with pytest.raises(CoreError, match="element 10 of an array of 10"):
        answer(local, kernel, ours, "0:0:10")
    with pytest.raises(CoreError, match="cannot be asked of an array's element"):
        answer(local, kernel, ours, "0:0:3", cs.FIELD_SIGNED)


def test_an_array_at_the_end_of_no_length_has_no_bounds() -> None:
    for ours_length, theirs_length, place, fits in ((0, 0, 9, 1), (0, 3, 2, 1), (4, 0, 3, 1)):
        local, kernel = Types(), Types()
        ours = local.struct(
            "s", 4, ("n", local.i32, 0), ("v", local.array(local.i32, ours_length), 32)
        )
        kernel.struct(
            "s", 8, ("n", kernel.u64, 0), ("v", kernel.array(kernel.i32, theirs_length), 64)
        )
        assert answer(local, kernel, ours, f"0:1:{place}", cs.FIELD_EXISTS).new == fits
        assert answer(local, kernel, ours, f"0:1:{place}").new == 8 + 4 * place
    # In the middle of a struct it is an array of length 0 like any other.
    local, kernel = Types(), Types()
    ours = local.struct("s", 4, ("v", local.array(local.i32, 0), 0))
    kernel.struct("s", 4, ("v", kernel.array(kernel.i32, 0), 0), ("n", kernel.i32, 0))
    assert answer(local, kernel, ours, "0:0:1").poison


def test_two_dimensions() -> None:
    local, kernel = Types(), Types()
    ours = local.struct("s", 24, ("v", local.array(local.array(local.i32, 3), 2), 0))
    kernel.struct("s", 80, ("v", kernel.array(kernel.array(kernel.u64, 5), 2), 0))
    found = answer(local, kernel, ours, "0:0:1:2")
    assert (found.old, found.new) == (20, 56)
    assert (found.old_size, found.new_size, found.misfit) == (4, 8, True)


def field(local_type: str, kernel_type: str) -> Resolution:
    """One member, of another type in the kernel than in the program."""
    local, kernel = Types(), Types()
    made = []
    for types, name in ((local, local_type), (kernel, kernel_type)):
        known = {
            "u8": types.u8,
            "u32": types.u32,
            "u64": types.u64,
            "i32": types.i32,
            "i64": types.int("long", 8, t.INT_SIGNED),
            "ptr": types.ptr(),
            "float": types.add(t.KIND_FLOAT, "float", 4),
            "double": types.add(t.KIND_FLOAT, "double", 8),
            "struct": types.struct("x", 4, ("q", types.i32, 0)),
            "union": types.union("y", 8, ("q", types.u64, 0)),
            "enum a": types.enum("a", ("A", 1)),
            "enum a___2": types.enum("a___2", ("A", 1)),
            "enum b": types.enum("b", ("A", 1)),
            "enum": types.enum("", ("A", 1)),
            "enum64 a": types.enum64("a", ("A", 1)),
            "u32[2]": types.array(types.u32, 2),
            "u64[3]": types.array(types.u64, 3),
            "ptr[3]": types.array(types.ptr(), 3),
            "old bits": types.add(t.KIND_INT, "old", 4, 3 << 16 | 5),
            "func": types.proto(0),
        }
        made.append(types.struct("s", 64, ("pad", types.u64, 0), ("m", known[name], 64)))
    return answer(local, kernel, made[0], "0:1")


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("u32", "u64"),
        ("i32", "u64"),
        ("ptr", "ptr"),
        ("float", "double"),
        ("struct", "union"),
        ("enum a", "enum a___2"),
        ("enum a", "enum"),
        ("enum a", "enum64 a"),
        ("u32[2]", "u64[3]"),
    ],
)
def test_members_of_these_types_fit_each_other(ours: str, theirs: str) -> None:
    for one, other in ((ours, theirs), (theirs, ours)):
        assert not field(one, other).poison


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("u32", "ptr"),
        ("u64", "double"),
        ("enum a", "enum b"),
        ("enum a", "u32"),
        ("u32", "u32[2]"),
        ("u32[2]", "ptr[3]"),
        ("struct", "ptr"),
        ("old bits", "u32"),
        ("func", "func"),
    ],
)
def test_members_of_these_types_do_not(ours: str, theirs: str) -> None:
    if ours == "func":
        with pytest.raises(CoreError, match="has no size"):
            field(ours, theirs)
        return
    for one, other in ((ours, theirs), (theirs, ours)):
        assert field(one, other).poison


def test_the_size_of_a_load_follows_pointers_and_unsigned_integers_only() -> None:
    found = field("u32", "u64")
    assert (found.old_size, found.new_size, found.misfit) == (4, 8, False)
    assert not field("u64", "u8").misfit
    assert field("i32", "i64").misfit
    assert field("i64", "u32").misfit
    assert field("float", "double").misfit
    assert not field("i32", "i32").misfit
    # Of a kernel of 32 bits the pointers are shorter.
    local, kernel = Types(), Types()
    ours = local.struct("s", 8, ("p", local.ptr(), 0))
    theirs = kernel.struct("s", 8, ("x", kernel.u32, 0), ("p", kernel.ptr(), 32))
    btf = kernel.parse()
    btf.pointer = 4
    found, _ = resolve(local.parse(), CoreRelo(0, ours, "0:0", 0), [Candidate(btf, theirs)])
    assert (found.new, found.old_size, found.new_size, found.misfit) == (4, 8, 4, False)


def test_bit_fields() -> None:
    local, kernel = Types(), Types()
    ours = local.bits("s", 4, ("a", local.u32, 0, 3), ("b", local.i32, 3, 5))
    kernel.bits(
        "s",
        16,
        ("x", kernel.u64, 0, 0),
        ("a", kernel.u32, 64 + 30, 4),
        ("b", kernel.u8, 64 + 8, 5),
    )
    # Bits 94 to 97 lie in no aligned 4 bytes: 8 have to be read.
    for kind, new in (
        (cs.FIELD_BYTE_OFFSET, 8),
        (cs.FIELD_BYTE_SIZE, 8),
        (cs.FIELD_LSHIFT_U64, 64 - (94 + 4 - 64)),
        (cs.FIELD_RSHIFT_U64, 60),
        (cs.FIELD_SIGNED, 0),
        (cs.FIELD_EXISTS, 1),
    ):
        assert answer(local, kernel, ours, "0:0", kind).new == new, kind
    for kind, new in (
        (cs.FIELD_BYTE_OFFSET, 9),
        (cs.FIELD_BYTE_SIZE, 1),
        (cs.FIELD_LSHIFT_U64, 64 - 5),
        (cs.FIELD_RSHIFT_U64, 59),
    ):
        assert answer(local, kernel, ours, "0:1", kind).new == new, kind
    # How the compiler loads it is its own affair, the sign and the width are not.
    assert not answer(local, kernel, ours, "0:1").validate
    assert answer(local, kernel, ours, "0:1", cs.FIELD_SIGNED).validate
    assert answer(local, kernel, ours, "0:1", cs.FIELD_SIGNED).old == 1
    assert answer(local, kernel, ours, "0:1", cs.FIELD_RSHIFT_U64).validate


def test_bit_fields_on_big_endian() -> None:
    local, kernel = Types(">"), Types(">")
    ours = local.bits("s", 4, ("a", local.u32, 0, 3))
    kernel.bits("s", 8, ("x", kernel.u32, 0, 0), ("a", kernel.u32, 37, 6))
    assert answer(local, kernel, ours, "0:0", cs.FIELD_LSHIFT_U64).new == 32 + 5
    assert answer(local, kernel, ours, "0:0", cs.FIELD_RSHIFT_U64).new == 58


def test_a_bit_field_across_nine_bytes_cannot_be_read() -> None:
    local, kernel = Types(), Types()
    ours = local.bits("s", 8, ("a", local.u64, 0, 40))
    kernel.bits("s", 16, ("a", kernel.u64, 60, 40))
    with pytest.raises(CoreError, match="64 bits do not hold"):
        answer(local, kernel, ours, "0:0")


def test_types_by_id_size_and_existence() -> None:
    local, kernel = Types(), Types()
    ours = local.struct("s", 4, ("a", local.i32, 0))
    theirs = kernel.struct("s", 24, ("b", kernel.u64, 0))
    assert answer(local, kernel, ours, "0", cs.TYPE_SIZE).new == 24
    assert answer(local, kernel, ours, "0", cs.TYPE_EXISTS).new == 1
    found = answer(local, kernel, ours, "0", cs.TYPE_ID_TARGET)
    assert (found.old, found.new, found.validate) == (ours, theirs, False)
    found = answer(local, kernel, ours, "0", cs.TYPE_ID_LOCAL)
    assert (found.old, found.new, found.validate) == (ours, ours, False)
    gone = local.struct("gone", 4)
    for kind in (cs.TYPE_SIZE, cs.TYPE_EXISTS, cs.TYPE_MATCHES, cs.TYPE_ID_TARGET):
        found = answer(local, kernel, gone, "0", kind)
        assert (found.new, found.poison) == (0, False)


def test_an_anonymous_type_is_known_by_its_own_id_alone() -> None:
    local, kernel = Types(), Types()
    ours = local.struct("", 4, ("a", local.i32, 0))
    assert answer(local, kernel, ours, "0", cs.TYPE_ID_LOCAL).new == ours
    with pytest.raises(CoreError, match="struct without a name cannot be looked for"):
        answer(local, kernel, ours, "0:0")


def test_enum_values_by_name_of_either_width() -> None:
    local, kernel = Types(), Types()
    ours = local.enum("color___mine", ("RED___x", 1), ("BLUE", 2), ("GONE", 3), signed=True)
    kernel.enum64("color", ("BLUE", 7 << 32 | 5), ("RED", 9))
    for access, old, new in (("0", 1, 9), ("1", 2, 7 << 32 | 5)):
        found = answer(local, kernel, ours, access, cs.ENUMVAL_VALUE)
        assert (found.old, found.new) == (old, new)
        assert answer(local, kernel, ours, access, cs.ENUMVAL_EXISTS).new == 1
    assert answer(local, kernel, ours, "2", cs.ENUMVAL_EXISTS).new == 0
    assert answer(local, kernel, ours, "2", cs.ENUMVAL_VALUE).poison
    with pytest.raises(CoreError, match="no value"):
        answer(local, kernel, ours, "3", cs.ENUMVAL_VALUE)
    assert describe(local.parse(), CoreRelo(0, ours, "2", cs.ENUMVAL_VALUE)) == "enum color GONE"


def test_enum_values_of_32_bits_have_a_sign_whatever_they_say() -> None:
    local, kernel = Types(), Types()
    ours = local.enum("e", ("A", -2), signed=True)
    kernel.enum("e", ("A", 0xFFFFFFFB))
    found = answer(local, kernel, ours, "0", cs.ENUMVAL_VALUE)
    assert (found.old, found.new) == ((1 << 64) - 2, (1 << 64) - 5)


def pair(ours: str, theirs: str) -> tuple[Btf, int, Btf, int]:
    """Two types out of a small language, in two blobs."""
    made: list[tuple[Btf, int]] = []
    for text in (ours, theirs):
        types = Types()
        known = {
            "void": 0,
            "u32": types.u32,
            "i32": types.i32,
            "u64": types.u64,
            "struct": types.struct("s", 8, ("a", types.u32, 0), ("b", types.ptr(types.u8), 32)),
            "struct+": types.struct(
                "s", 8, ("c", types.u8, 0), ("b", types.ptr(types.u8), 0), ("a", types.u32, 0)
            ),
            "struct other": types.struct("s", 8, ("a", types.u64, 0), ("b", types.u32, 32)),
            "struct z": types.struct("z", 4, ("a", types.u32, 0)),
            "union": types.union("s", 8, ("a", types.u32, 0)),
            "fwd": types.fwd("s"),
            "fwd union": types.fwd("s", union=True),
            "enum": types.enum("e", ("A", 1), ("B", 2)),
            "enum+": types.enum("e", ("B", 7), ("C", 1), ("A___x", 5)),
            "enum-": types.enum("e", ("A", 1)),
            "enum64": types.enum64("e", ("A", 1), ("B", 1)),
            "func": types.add(t.KIND_FUNC, "f", types.proto(0)),
        }
        type_id = 0
        for word in reversed(text.split(" of ")):
            if word == "ptr":
                type_id = types.ptr(type_id)
            elif word == "const":
                type_id = types.const(type_id)
            elif word == "typedef":
                type_id = types.typedef("td", type_id)
            elif word.startswith("array"):
                type_id = types.array(type_id, int(word[5:]))
            elif word.startswith("proto"):
                names = word[5:].split("+")
                type_id = types.proto(type_id, *(known[n] for n in names if n))
            else:
                type_id = known[word]
        made.append((types.parse(), type_id))
    return (*made[0], *made[1])


@pytest.mark.parametrize(
    ("ours", "theirs", "compatible", "same"),
    [
        ("u32", "u32", True, True),
        ("u32", "i32", True, False),
        ("u32", "u64", True, False),
        ("struct", "struct", True, True),
        ("struct", "struct+", True, True),
        ("struct+", "struct", True, False),
        ("struct", "struct other", True, False),
        ("struct", "union", False, False),
        ("struct", "struct z", True, False),
        ("struct", "fwd", False, False),
        ("fwd", "fwd", True, True),
        ("fwd", "fwd union", True, False),
        ("ptr of struct", "ptr of fwd", False, True),
        ("ptr of fwd", "ptr of struct", False, True),
        ("ptr of fwd union", "ptr of struct", False, False),
        ("ptr of fwd union", "ptr of union", False, True),
        ("ptr of struct", "ptr of fwd union", False, False),
        ("ptr of struct", "ptr of struct other", True, True),
        ("ptr of struct", "ptr of union", False, False),
        ("ptr of u32", "ptr of u64", True, False),
        ("ptr of void", "ptr of void", True, True),
        ("ptr of void", "ptr of u32", False, False),
        ("const of u32", "const of u32", True, True),
        ("const of u32", "u32", False, True),
        ("typedef of const of u32", "typedef of u32", True, True),
        ("typedef of u32", "u32", False, True),
        ("array3 of u32", "array3 of u32", True, True),
        ("array3 of u32", "array4 of u32", True, False),
        ("array3 of u32", "array3 of ptr of u32", False, False),
        ("enum", "enum+", True, True),
        ("enum", "enum-", True, False),
        ("enum", "enum64", True, False),
        ("proto of u32", "proto of u32", True, True),
        ("proto of u32", "proto of void", False, False),
        ("protou32+u32 of u32", "protou32 of u32", False, False),
        ("protou32+struct of u32", "protou32+struct of u32", True, True),
        ("protou32 of u32", "protou64 of u32", True, False),
        ("protostruct of u32", "protou32 of u32", False, False),
        ("ptr of protou32 of void", "ptr of protoi32 of void", True, False),
        ("func", "func", False, False),
        ("void", "void", True, True),
    ],
)
def test_types_compatible_and_the_same(
    ours: str, theirs: str, compatible: bool, same: bool
) -> None:
    local, local_id, kernel, type_id = pair(ours, theirs)
    assert are_compatible(local, local_id, kernel, type_id) is compatible
    assert matches(local, local_id, kernel, type_id) is same


def test_types_without_end_are_errors() -> None:
    chain = "ptr of " * 40 + "void"
    local, local_id, kernel, type_id = pair(chain, chain)
    for function in (are_compatible, matches):
        with pytest.raises(CoreError, match="without end"):
            function(local, local_id, kernel, type_id)
    # A struct of itself can only be hostile: it has no size in C.
    types = Types()
    types.struct("s", 4, ("s", types.count + 1, 0))
    btf = types.parse()
    with pytest.raises(CoreError, match="without end"):
        matches(btf, types.count, btf, types.count)


@pytest.mark.parametrize(
    ("access", "kind", "message"),
    [
        ("", 0, "no way into a type"),
        (":0", 0, "no way into a type"),
        ("0:-1", 0, "no way into a type"),
        ("0:x", 0, "no way into a type"),
        ("0:1", cs.TYPE_EXISTS, "relocation of a whole type"),
        ("0:9", 0, "has no member 9"),
        ("0:0:0", 0, "has no members"),
        ("0:" * 70 + "0", 0, "too deep"),
        ("0", 13, "kind 13 is"),
        ("0", cs.ENUMVAL_VALUE, "no value of type"),
        ("99999999999", 0, "too deep"),
    ],
)
def test_senseless_relocations(access: str, kind: int, message: str) -> None:
    local = Types()
    ours = local.struct("s", 4, ("a", local.i32, 0))
    message = message.replace("kind 13 is", "of kind 13 are not known")
    with pytest.raises(CoreError, match=message):
        answer(local, local, ours, access, kind)


def insn(code: int, registers: int = 0x21, offset: int = 0, imm: int = 0) -> bytes:
    return struct.pack("<BBhi", code, registers, offset, imm)


def test_constants_and_offsets_are_written() -> None:
    code = bytearray(insn(0xB7, imm=4) + insn(0x07, imm=4) + insn(0x79, offset=4, imm=3))
    for at in (0, 8, 16):
        assert apply(code, at, Resolution(4, 300), "little")
    assert code == insn(0xB7, imm=300) + insn(0x07, imm=300) + insn(0x79, offset=300, imm=3)
    code = bytearray(insn(0xB7, imm=-2))
    assert apply(code, 0, Resolution((1 << 64) - 2, (1 << 64) - 9), "little")
    assert code == insn(0xB7, imm=-9)


def test_wide_constants_are_written_in_two_halves() -> None:
    code = bytearray(insn(0x18, 0x01, imm=-2) + insn(0, 0, imm=-1))
    assert apply(code, 0, Resolution((1 << 64) - 2, 5 << 32 | 7), "little")
    assert code == insn(0x18, 0x01, imm=7) + insn(0, 0, imm=5)
    with pytest.raises(CoreError, match="in a form that"):
        apply(bytearray(insn(0x18, 0x11) + insn(0, 0)), 0, Resolution(0, 1), "little")
    with pytest.raises(CoreError, match="cut off"):
        apply(bytearray(insn(0x18, 0x01)), 0, Resolution(0, 1), "little")


def test_loads_and_stores_change_their_size() -> None:
    for code, size, new, expected in (
        (0x61, 4, 8, 0x79),
        (0x79, 8, 1, 0x71),
        (0x7B, 8, 2, 0x6B),
        (0x62, 4, 1, 0x72),
        (0x81, 4, 2, 0x89),
    ):
        insns = bytearray(insn(code, offset=8))
        assert apply(insns, 0, Resolution(8, 16, old_size=size, new_size=new), "little")
        assert insns == insn(expected, offset=16)
    with pytest.raises(CoreError, match="touches 4 bytes, not 8"):
        apply(bytearray(insn(0x61)), 0, Resolution(0, 0, old_size=8, new_size=4), "little")
    with pytest.raises(CoreError, match="touches 3 bytes"):
        apply(bytearray(insn(0x61)), 0, Resolution(0, 0, old_size=4, new_size=3), "little")


def test_what_cannot_be_is_poisoned() -> None:
    poison = insn(0x85, 0, 0, POISON)
    code = bytearray(insn(0x61, offset=4) + insn(0x18, 1, imm=5) + insn(0, 0) + insn(0xB7, imm=1))
    assert not apply(code, 0, Resolution(4, 4, misfit=True, old_size=4, new_size=2), "little")
    assert not apply(code, 8, Resolution(0, 0, poison=True), "little")
    # A constant has no size that could be wrong.
    assert apply(code, 24, Resolution(1, 2, misfit=True), "little")
    assert code == poison * 3 + insn(0xB7, imm=2)
    big = bytearray(struct.pack(">BBhi", 0x61, 0x12, 4, 0))
    assert not apply(big, 0, Resolution(4, 0, poison=True), "big")
    assert big == struct.pack(">BBhi", 0x85, 0, 0, POISON)


@pytest.mark.parametrize(
    ("code", "resolution", "message"),
    [
        (insn(0xB7, imm=4), Resolution(5, 6), "holds 4, .* say 5"),
        (insn(0x61, offset=4), Resolution(5, 6), "holds 4, .* say 5"),
        (insn(0x18, 1, imm=4) + insn(0, 0), Resolution(5, 6), "holds 4, .* say 5"),
        (insn(0x61, offset=4), Resolution(4, 40000), "too large"),
        (insn(0xBF), Resolution(0, 0), "without a constant"),
        (insn(0x85, imm=1), Resolution(1, 2), "code 0x85 cannot be"),
        (insn(0x20, imm=1), Resolution(1, 2), "code 0x20 cannot be"),
    ],
)
def test_instructions_that_are_refused(code: bytes, resolution: Resolution, message: str) -> None:
    with pytest.raises(CoreError, match=message):
        apply(bytearray(code), 0, resolution, "little")
    with pytest.raises(CoreError, match="no instruction"):
        apply(bytearray(code), len(code), resolution, "little")


def test_what_need_not_agree_is_not_compared() -> None:
    code = bytearray(insn(0xB7, imm=4))
    assert apply(code, 0, Resolution(5, 6, validate=False), "little")
    assert code == insn(0xB7, imm=6)


def test_types_made_to_keep_one_busy_do_not() -> None:
    # Each struct holds the next one twice: two to the thirtieth ways lead through them.
    local, kernel = Types(), Types()
    for types in (local, kernel):
        inner = types.struct("s0", 0, ("last" if types is local else "other", types.i32, 0))
        for number in range(1, 30):
            inner = types.struct(f"s{number}", 0, ("a", inner, 0), ("b", inner, 0))
    found = answer(local, kernel, local.count, "0", cs.TYPE_MATCHES)
    assert found.new == 0
    local, kernel = Types(), Types()
    inner = kernel.struct("", 0, ("other", kernel.i32, 0))
    for number in range(1, 40):
        inner = kernel.struct("" if number < 39 else "s", 0, ("", inner, 0), ("", inner, 0))
    ours = local.struct("s", 4, ("a", local.i32, 0))
    assert answer(local, kernel, ours, "0:0").poison
    chain = Types()
    function = chain.proto(0)
    for _ in range(30):
        function = chain.proto(0, chain.ptr(function), chain.ptr(function))
    btf = chain.parse()
    assert are_compatible(btf, function, btf, function)
    assert matches(btf, function, btf, function)
