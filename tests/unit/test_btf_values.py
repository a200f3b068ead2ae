"""Variables by name and path: values of C types in bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from netbpf import loader
from netbpf.btf import types as t
from netbpf.btf.blob import Btf
from netbpf.btf.values import Values, split
from netbpf.elf import open_object
from netbpf.errors import NotFoundError
from tests.netns_fixtures.objects import build
from tests.unit.blobs import Blob

SOURCES = Path(__file__).resolve().parents[1] / "bpf"
PLAIN = """
union both { __u32 whole; __u8 parts[4]; };
struct bits { __u32 low : 3; __u32 high : 5; };
enum count { ONE = 1, TWO };
volatile struct {
    __u8 first;
    struct { int minus : 3; _Bool on : 1; enum count chosen : 3; };
    __u64 wide : 40;
} deep[2];
volatile __u8 byte;
volatile __s64 wide = -2;
volatile union both both;
volatile struct bits bits;
volatile double ratio;
volatile __u16 grid[2][3];
void *pointer;
SEC("tc") int uses(struct __sk_buff *skb)
{ return byte + wide + both.whole + bits.low + deep[0].first + grid[1][2] + (pointer != 0); }
"""


@pytest.fixture(scope="module")
def specs() -> dict[str, Any]:
    everything = build((SOURCES / "obj_all.c").read_text(), name="obj_all", head="")
    return {"all": open_object(everything), "plain": open_object(build(PLAIN, name="plain"))}


@pytest.fixture
def obj(specs: dict[str, Any]) -> loader.Object:
    return loader.Object(specs["all"])


@pytest.fixture
def plain(specs: dict[str, Any]) -> loader.Object:
    return loader.Object(specs["plain"])


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("verdict", 2, 2),
        ("verdict", "-5", -5),
        ("verdict", "0x10", 16),
        ("chosen", "DROP", 2),
        ("chosen", 2, 2),
        ("chosen", "2", 2),
        ("enabled", True, True),
        ("enabled", "yes", True),
        ("enabled", "0", False),
        ("device", "eth0", "eth0"),
        ("device", b"eth1", "eth1"),
        ("device[1]", ord("x"), ord("x")),
        ("limits.low", 9, 9),
        ("limits.inner.tag", "xyz", "xyz"),
        ("limits.table", [4, 5, 6], [4, 5, 6]),
        ("limits.table[2]", "7", 7),
        ("limits.inner", {"port": 8}, {"port": 8, "tag": "abc"}),
        ("hidden", -7, -7),
        ("target.____fmt", "other", "other"),
        ("target.____fmt[0]", 65, 65),
    ],
)
def test_set_and_get(obj: loader.Object, name: str, value: Any, expected: Any) -> None:
    obj.set(name, value)
    assert obj.get(name) == expected


@pytest.mark.parametrize(
    ("name", "value", "kind", "reason"),
    [
        ("nothing", 1, NotFoundError, "no variable nothing in .*its variables: chosen, device"),
        ("verdict", 1 << 31, ValueError, "of type int, 2147483648 does not fit"),
        ("verdict", "many", ValueError, "'many' is none"),
        ("verdict", 1.5, TypeError, "verdict is a number, not 1.5"),
        ("verdict", True, TypeError, "verdict is a number, not True"),
        ("verdict", None, TypeError, "verdict is a number"),
        ("verdict.x", 1, ValueError, "verdict has no members"),
        ("verdict[0]", 1, ValueError, "verdict is no array"),
        ("chosen", "SOME", ValueError, "chosen is one of PASS, DROP, LATER, not 'SOME'"),
        ("enabled", 2, ValueError, "true or false"),
        ("enabled", "maybe", ValueError, "true or false"),
        ("device", "a" * 16, ValueError, "device has room for 15 bytes, not 16"),
        ("device", b"a" * 17, ValueError, "device has 16 bytes, not 17"),
        ("device", 3, TypeError, "device is an array"),
        ("limits", 3, TypeError, "limits is a struct"),
        ("limits.colour", 3, ValueError, "limits has no member colour, only low, inner, table"),
        ("limits.table", [1] * 4, ValueError, "limits.table has 3 elements, not 4"),
        ("limits.table", "12", TypeError, "limits.table is an array"),
        ("limits.table[3]", 1, ValueError, r"limits.table has 3 elements, \[3\] is none"),
        ("limits..low", 1, ValueError, "write a.b"),
        ("limits[x]", 1, ValueError, "write a.b"),
        ("", 1, ValueError, "write a.b"),
    ],
)
def test_what_does_not_fit(
    obj: loader.Object, name: str, value: Any, kind: type[Exception], reason: str
) -> None:
    before = {name: obj.get(name) for name in obj.variables()}
    with pytest.raises(kind, match=reason):
        obj.set(name, value)
    assert {name: obj.get(name) for name in obj.variables()} == before


def test_other_types(plain: loader.Object) -> None:
    assert plain.get("wide") == -2
    plain.set("both.parts", b"\x01\x02")
    assert plain.get("both") == {"whole": 0x0201, "parts": [1, 2, 0, 0]}
    plain.set("grid[1]", [1, 2, 3])
    plain.set("grid[0][2]", 9)
    assert plain.get("grid") == [[0, 0, 9], [1, 2, 3]]
    plain.set("ratio", 0.5)
    assert plain.get("ratio") == 0.5
    for text, number in (("0.25", 0.25), ("1e3", 1000.0), ("-2", -2.0), (3, 3.0)):
        plain.set("ratio", text)
        assert plain.get("ratio") == number
    for wrong in ("much", "", None, True):
        with pytest.raises((ValueError, TypeError), match="ratio is a number"):
            plain.set("ratio", wrong)
    plain.set("grid[1]", "7,0x8")
    assert plain.get("grid") == [[0, 0, 9], [7, 8, 3]]
    with pytest.raises(ValueError, match=r"grid\[1\] has 3 elements, not 4"):
        plain.set("grid[1]", "1,2,3,4")
    with pytest.raises(ValueError, match=r"grid\[1\]\[1\] is a number, '' is none"):
        plain.set("grid[1]", "1,")
    with pytest.raises(TypeError, match="pointer is a pointer that cannot be set"):
        plain.set("pointer", 1)
    with pytest.raises(ValueError, match="256 does not fit"):
        plain.set("byte", 256)
    assert plain.variables()["byte"] == ".bss"


def test_bit_fields(plain: loader.Object) -> None:
    plain.set("bits.low", 7)
    plain.set("bits.high", "0x11")
    assert (plain.get("bits.low"), plain.get("bits.high")) == (7, 17)
    plain.set("bits", {"low": 2})
    assert plain.get("bits") == {"low": 2, "high": 17}
    plain.set("deep[1].minus", -4)
    plain.set("deep[1].chosen", "TWO")
    plain.set("deep[1].on", "true")
    assert plain.get("deep")[0] == dict.fromkeys(("first", "minus", "on", "chosen", "wide"), 0)
    assert plain.get("deep[1]") == {"first": 0, "minus": -4, "on": 1, "chosen": 2, "wide": 0}
    plain.set("deep[1].wide", (1 << 40) - 1)
    assert plain.get("deep[1].wide") == (1 << 40) - 1
    assert plain.get("deep[1].minus") == -4, "and nothing beside it"
    for name, wrong, words in (
        ("bits.low", 8, "bits.low has 3 bits, 8 does not fit"),
        ("deep[1].minus", 4, r"deep\[1\].minus has 3 bits, 4 does not fit"),
        ("deep[1].on", 2, "true or false"),
        ("deep[1].chosen", "THREE", "one of ONE, TWO"),
        ("bits.none", 1, "bits has no member none, only low, high"),
        ("bits.low.x", 1, "low is a bit field"),
    ):
        with pytest.raises(ValueError, match=words):
            plain.set(name, wrong)


def test_split() -> None:
    assert split("a.b[3].c[0][1]") == ("a", ["b", 3, "c", 0, 1])
    for wrong in ("", ".a", "a.", "a[", "a[-1]", "[1]", "a b", "a[1]b"):
        with pytest.raises(ValueError, match="write a"):
            split(wrong)


def test_bits_are_counted_from_the_other_end_in_big_endian() -> None:
    blob = Blob(">")
    number = blob.add(t.KIND_INT, "unsigned int", 4, 32)
    members = (blob.string("high"), number, 8 << 24 | 0, blob.string("low"), number, 24 << 24 | 8)
    bits = blob.add(t.KIND_STRUCT, "bits", 4, *members, vlen=2, flag=1)
    values = Values(Btf.parse(bytes(blob)))
    buffer = bytearray(4)
    values.write(buffer, 0, bits, {"high": 0xAB, "low": 0x010203}, "bits")
    assert buffer.hex() == "ab010203"
    assert values.read(buffer, 0, bits) == {"high": 0xAB, "low": 0x010203}
