"""The kernel's own words in a refusal: of programs, and of maps where it has any."""

from __future__ import annotations

import ctypes
import struct

import pytest

from netbpf import loader
from netbpf.bpf import btf_object, prog, syscall, uapi
from netbpf.bpf import map as bpf_map
from netbpf.bpf.map import Map
from netbpf.btf import types as t
from netbpf.btf.header import MAGIC
from netbpf.elf.object import open_object
from netbpf.errors import BpfError, VerifierError
from tests.netns_fixtures.cli import netbpf
from tests.netns_fixtures.objects import build

WRONG = """
int values[4];
SEC("tc") int wrong(struct __sk_buff *skb)
{
	values[skb->len & 3] = 1;
	return *(int *)(long)skb->data;
}
char _license[] SEC("license") = "GPL";
"""


@pytest.mark.needs("common-attrs")
def test_a_map_is_refused_in_the_kernels_words() -> None:
    before = set(Map.ids())
    with pytest.raises(BpfError, match=r"create map made: Invalid map_type\. \(EINVAL\)"):
        bpf_map.create(999, key_size=4, value_size=4, max_entries=1, name="made")
    with pytest.raises(BpfError, match=r"create map made: Invalid btf_fd\."):
        bpf_map.create(
            uapi.BPF_MAP_TYPE_ARRAY,
            key_size=4,
            value_size=4,
            max_entries=1,
            name="made",
            btf_value_type_id=1,
        )
    assert not set(Map.ids()) - before


def blob(*types: int, strings: bytes = b"\0x\0", magic: int = MAGIC) -> bytes:
    """BTF of these words of four bytes."""
    body = struct.pack(f"={len(types)}I", *types)
    head = struct.pack("=HBBIIIII", magic, 1, 0, 24, 0, len(body), len(body), len(strings))
    return head + body + strings


INT = (1, t.KIND_INT << 24, 4, t.INT_SIGNED << 24 | 32)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"load BTF: hdr_len not found \(EINVAL\)"),
        (blob(*INT, magic=1), r"load BTF: Invalid magic \(EINVAL\)"),
        (blob(*INT, strings=b""), r"load BTF: Invalid string section \(EINVAL\)"),
        (blob(1, t.KIND_INT << 24, 3, 32), r"\[1\] INT x size=3 .* nr_bits exceeds type_size"),
        (blob(0, 31 << 24, 0), r"\[1\] Invalid kind:31"),
        # The log tells of each type, in more than the first buffer: what is wrong comes last.
        (blob(*INT * 3000, 0, 31 << 24, 0), r"load BTF: \[3001\] Invalid kind:31 \(EINVAL\)"),
        (bytes(1 << 25), r"load BTF: Argument list too long \(E2BIG\)"),
    ],
    ids=["nothing", "magic", "strings", "int", "kind", "many", "large"],
)
def test_types_are_refused_in_the_kernels_words(data: bytes, message: str) -> None:
    with pytest.raises(BpfError, match=message):
        btf_object.load(data)
    btf_object.load(blob(*INT)).close()


@pytest.mark.needs("common-attrs")
def test_common_attributes_know_no_more_of_types() -> None:
    """A log of their own tells the same; should it be otherwise one day, both have to be asked."""
    data = blob(1, t.KIND_INT << 24, 3, 32)
    buffer = ctypes.create_string_buffer(data, len(data))
    attr = uapi.BtfLoadAttr(btf=ctypes.addressof(buffer), btf_size=len(data))
    said = syscall.refusal(uapi.BPF_BTF_LOAD, attr).splitlines()[-1]
    with pytest.raises(BpfError) as caught:
        btf_object.load(data)
    assert said and caught.value.reason == said.strip()


def test_an_object_that_is_nothing_without_its_types() -> None:
    text = """
    SEC("struct_ops/ssthresh") unsigned two(unsigned long long *ctx) { return 2; }
    struct tcp_congestion_ops { unsigned (*ssthresh)(void *sk); };
    SEC(".struct_ops") struct tcp_congestion_ops made = { .ssthresh = (void *)two };
    char _license[] SEC("license") = "GPL";
    """
    data = bytearray(build(text).read_bytes())
    # A function's name with a blank: it is read by nobody but the kernel.
    at = data.find(b"\0two\0", data.find(b"\x9f\xeb"))
    data[at + 2] = ord(" ")
    with (
        loader.Object(open_object("made.o", bytes(data))) as obj,
        pytest.raises(BpfError, match=r"load BTF: \[\d+\] FUNC .*Invalid name"),
    ):
        obj.load()


def test_without_words_the_reason_is_ours() -> None:
    for kind, key, value, entries, words in (
        ("ARRAY", 3, 4, 1, "keys of a map of type array have 4 bytes, not 3"),
        ("ARRAY", 4, 0, 1, "a map of type array cannot have key size 4, value size 0, 1 entries"),
        ("PROG_ARRAY", 4, 8, 1, "values of a map of type prog_array have 4 bytes, not 8"),
        ("RINGBUF", 0, 20, 4096, "has neither keys nor values, here they have 0 and 20 bytes"),
        ("LPM_TRIE", 8, 4, 1, "a map of type lpm_trie wants the flag BPF_F_NO_PREALLOC"),
        ("HASH", 4, 4, 0, r"hash cannot have 0 entries \(EINVAL\).*: --map-size made=N"),
        ("STACK_TRACE", 4, 8, 0, r"stack_trace cannot have 0 entries"),
    ):
        with pytest.raises(BpfError, match=f"create map made: .*{words}"):
            bpf_map.create(
                getattr(uapi, f"BPF_MAP_TYPE_{kind}"),
                key_size=key,
                value_size=value,
                max_entries=entries,
                name="made",
            )


def test_the_line_of_the_source_and_no_registers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prog, "_LOG_FIRST", 128)
    file = build(WRONG, name="wrong")
    with loader.open(file) as obj, pytest.raises(VerifierError) as caught:
        obj.load()
    assert len(caught.value.log) > 128, "longer than the first buffer"
    said = str(caught.value)
    assert "invalid access to packet" in said
    assert "return *(int *)(long)skb->data;" in said
    assert "wrong.c:8" in said
    assert "R1=" not in said
    short = netbpf("prog", "load", file)
    assert short.status == 1
    assert "R1=" not in short.err
    whole = netbpf("prog", "load", file, "-v")
    assert "R1=" in whole.err and "wrong.c:8" in whole.err
