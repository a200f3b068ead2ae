"""The generated UAPI: its generator on a small BTF, and the classes at offsets known by heart."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Any

import pytest

from netbpf.bpf import uapi
from netbpf.btf import Btf
from netbpf.btf import types as t
from tests.unit.blobs import Blob

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import gen_uapi


def small() -> Blob:
    """A kernel of the future: a variant that we do not know, a hole, an alias, an odd flag."""
    blob = Blob()
    u32 = blob.int("unsigned int", 4)
    u64 = blob.int("long long unsigned int", 8)
    char = blob.int("char", 1, t.INT_SIGNED)
    s32 = blob.int("int", 4, t.INT_SIGNED)
    name = blob.add(t.KIND_ARRAY, "", 0, char, u32, 16)
    word = blob.add(t.KIND_TYPEDEF, "__u32", u32)

    def enum(title: str, *values: tuple[str, int]) -> int:
        words = [w for n, v in values for w in (blob.string(n), v)]
        return blob.add(t.KIND_ENUM, title, 4, *words, vlen=len(values), flag=1)

    enum("bpf_cmd", ("BPF_TEST_RUN", 1), ("BPF_RUN", 1), ("__MAX_BPF_CMD", 2))
    enum("bpf_map_type", ("BPF_MAP_TYPE_NEW", 7), ("BPF_MAP_TYPE_NEW_DEPRECATED", 7))
    enum("bpf_prog_type", ("BPF_PROG_TYPE_SCHED_CLS", 3))
    enum("bpf_attach_type", ("BPF_TCX_INGRESS", 46))
    enum("bpf_link_type", ("BPF_LINK_TYPE_TCX", 11))
    enum("", ("BPF_F_LATER", 1 << 20), ("BPF_F_MINUS", -1))
    enum("", ("UNRELATED", 3))
    inner = blob.struct("", 16, ("lo", word, 0), ("hi", u64, 64))
    either = blob.add(
        t.KIND_UNION, "", 16, *(blob.string("fd"), s32, 0, blob.string("pair"), inner, 0), vlen=2
    )
    variant = blob.struct("", 40, ("a", word, 0), ("", either, 64), ("label", name, 192))
    first = blob.struct("", 4, ("map_type", word, 0))
    blob.add(
        t.KIND_UNION,
        "bpf_attr",
        40,
        *(0, first, 0, blob.string("shiny_new"), variant, 0),
        vlen=2,
    )
    bits = (("flag", u32, 1 << 24 | 0), ("late", u64, 64), ("far", u32, 192))
    blob.struct("bpf_prog_info", 32, *bits, flag=1)
    return blob


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    text = gen_uapi.generate(Btf.parse(bytes(small())), "9.9")
    assert "from the BTF of Linux 9.9" in text
    namespace: dict[str, Any] = {"__name__": "made"}
    exec(compile(text, "made", "exec"), namespace)
    return namespace


def test_two_runs_give_the_same_text() -> None:
    texts = {gen_uapi.generate(Btf.parse(bytes(small())), "9.9") for _ in range(2)}
    assert len(texts) == 1


def test_constants_and_words(made: dict[str, Any]) -> None:
    assert made["BPF_F_LATER"] == 1 << 20
    assert made["BPF_F_MINUS"] == -1
    assert "UNRELATED" not in made
    assert "__MAX_BPF_CMD" not in made
    assert made["CMD_NAMES"] == {1: "run"}
    assert made["MAP_TYPE_NAMES"] == {7: "new"}
    assert made["ATTACH_TYPE_NAMES"] == {46: "tcx_ingress"}


def test_an_unknown_variant_gets_a_class(made: dict[str, Any]) -> None:
    kind = made["__getattr__"]("ShinyNewAttr")
    value = kind(a=1, label=b"name")
    value.pair.hi = 5
    value.fd = -1
    assert ctypes.sizeof(kind) == 40
    assert bytes(value)[16:24] == (5).to_bytes(8, sys.byteorder)
    assert value.pair.lo == 0xFFFFFFFF
    assert value.label == b"name"
    with pytest.raises(AttributeError):
        value.lable = b"typing error"
    with pytest.raises(AttributeError, match="has no attribute 'NoSuchAttr'"):
        made["__getattr__"]("NoSuchAttr")


def test_bit_fields_and_holes(made: dict[str, Any]) -> None:
    kind = made["__getattr__"]("ProgInfo")
    assert (kind.late.offset, kind.far.offset) == (8, 24)
    assert bytes(kind(flag=1))[0:1] == (b"\1" if sys.byteorder == "little" else b"\0")


@pytest.mark.parametrize(
    ("kind", "field", "offset"),
    [
        # include/uapi/linux/bpf.h, counted by hand.
        ("LinkCreateAttr", "target_ifindex", 4),
        ("LinkCreateAttr", "tcx", 16),
        ("ProgAttachAttr", "expected_revision", 24),
        ("ProgQueryAttr", "prog_ids", 16),
        ("ProgQueryAttr", "revision", 56),
        ("ProgLoadAttr", "log_buf", 32),
        ("MapElemAttr", "value", 16),
        ("ProgInfo", "name", 64),
        ("ProgInfo", "netns_dev", 88),
        ("LinkInfo", "tcx", 16),
    ],
)
def test_offsets_known_by_heart(kind: str, field: str, offset: int) -> None:
    assert getattr(getattr(uapi, kind), field).offset == offset


def test_display_words() -> None:
    assert uapi.PROG_TYPE_NAMES[3] == "sched_cls"
    assert uapi.ATTACH_TYPE_NAMES[46] == "tcx_ingress"
    assert uapi.LINK_TYPE_NAMES[11] == "tcx"
    assert uapi.MAP_TYPE_NAMES[19] == "cgroup_storage"
    assert uapi.CMD_NAMES[10] == "prog_run"
