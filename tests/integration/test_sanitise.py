"""BTF for kernels that know less: this one has to take it too, and bpftool has to see it so."""

from __future__ import annotations

import ctypes
import errno
import json
import struct
import subprocess
from pathlib import Path

import pytest

from netbpf import features, loader
from netbpf.bpf import btf_object, syscall, uapi
from netbpf.bpf.fd import FD
from netbpf.btf import types as t
from netbpf.btf.blob import Btf
from netbpf.btf.header import MAGIC
from netbpf.elf.object import open_object
from netbpf.errors import BpfError
from netbpf.loader import sanitise
from tests.netns_fixtures.objects import build

TEXT = """
#define marked __attribute__((btf_decl_tag("marked")))
#define tagged __attribute__((btf_type_tag("tagged")))
struct all { double d; float f; int tagged *p; long long l; };
struct all one marked;
enum signs { MINUS = -1, PLUS = 1 } sign = PLUS;
int odd SEC(".data.odd");
extern void bpf_rcu_read_lock(void) __ksym;
extern void bpf_rcu_read_unlock(void) __ksym;
extern const void vfs_read __ksym;
__attribute__((noinline)) int inner(int x) { return x + odd; }
static __attribute__((noinline)) int hidden(int x) { return x * 3 + odd; }
SEC("tc") int outer(struct __sk_buff *skb)
{
	bpf_rcu_read_lock();
	bpf_rcu_read_unlock();
	return inner(skb->len) + hidden(skb->len) + (&vfs_read != 0) + (sign == MINUS);
}
char _license[] SEC("license") = "GPL";
"""
BTF_FEATURES = [name for name in features.names() if name.startswith("btf_")]


def types() -> Btf:
    found = open_object(build(TEXT, name="tags")).btf
    assert found is not None
    return sanitise.placed(found)


def wide() -> Btf:
    """An enum of 64 bits, which this compiler may be too old for, in a struct."""
    strings = b"\0big\0FIRST\0SECOND\0holder\0member\0"
    words = [
        *(1, 1 << 31 | t.KIND_ENUM64 << 24 | 2, 8, 5, 0xFFFFFFFF, 0xFFFFFFFF, 11, 0, 1),
        *(18, t.KIND_STRUCT << 24 | 1, 8, 25, 1, 0),
    ]
    size = 4 * len(words)
    head = struct.pack("=HBBIIIII", MAGIC, 1, 0, 24, 0, size, size, len(strings))
    return Btf.parse(head + struct.pack(f"={len(words)}I", *words) + strings)


def kinds(btf: Btf) -> set[str]:
    """The kinds of types that bpftool sees, once the kernel has taken them."""
    buffer = ctypes.create_string_buffer(bytes(btf.data), len(btf.data))
    attr = uapi.BtfLoadAttr(btf=ctypes.addressof(buffer), btf_size=len(btf.data))
    with FD(syscall.btf_load(attr)) as fd:
        number = syscall.obj_get_info(fd.fileno(), uapi.BtfInfo()).id
        shown = subprocess.run(
            ["bpftool", "-j", "btf", "dump", "id", str(number)], check=True, capture_output=True
        )
    return {each["kind"] for each in json.loads(shown.stdout)["types"]}


def test_this_kernel_knows_all() -> None:
    release = tuple(
        int(part) for part in Path("/proc/sys/kernel/osrelease").read_text().split(".")[:2]
    )
    assert release >= (6, 11), "the tests run on kernels that have all of it"
    assert {name: features.probe(name) for name in features.names()} == dict.fromkeys(
        features.names(), True
    )
    with pytest.raises(ValueError, match="no probe for nonsense; there are btf, "):
        features.probe("nonsense")


def test_what_is_there_to_be_lost() -> None:
    assert {"FLOAT", "DECL_TAG", "TYPE_TAG", "DATASEC", "VAR", "FUNC"} <= kinds(types())
    assert "ENUM64" in kinds(wide())


@pytest.mark.parametrize(
    ("lacking", "gone"),
    [
        (["btf_float"], {"FLOAT"}),
        (["btf_decl_tag"], {"DECL_TAG"}),
        (["btf_type_tag"], {"TYPE_TAG"}),
        (["btf_datasec", "btf_decl_tag"], {"DATASEC", "VAR", "DECL_TAG"}),
        (["btf_section_names"], set()),
        (["btf_func_global"], set()),
        (["btf_func", "btf_decl_tag"], {"FUNC", "FUNC_PROTO", "DECL_TAG"}),
        (BTF_FEATURES, {"FLOAT", "DECL_TAG", "TYPE_TAG", "DATASEC", "VAR", "FUNC", "FUNC_PROTO"}),
    ],
)
def test_what_is_left(lacking: list[str], gone: set[str]) -> None:
    before = types()
    after = sanitise.sanitised(before, lacking)
    assert not kinds(after) & gone
    assert len(after) == len(before)
    if "btf_func_global" in lacking:
        assert not [f for _, f in after if isinstance(f, t.Func) and f.linkage != t.LINKAGE_STATIC]
    for type_id, found in after:
        if isinstance(found, t.Struct) and found.name == "all":
            assert found == before.type(type_id), "sizes and offsets stay"


def test_wide_enums() -> None:
    after = sanitise.sanitised(wide(), ["btf_enum64"])
    assert "ENUM64" not in kinds(after)
    assert after.size(1) == 8


def test_an_older_kernel_loads_it_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel without globals, floats and tags is told what it knows, and runs the program."""
    lacking = {"btf_float", "btf_decl_tag", "btf_type_tag", "btf_section_names", "btf_enum64"}
    real = btf_object.load

    def older(data: bytes) -> FD:
        if any(isinstance(f, t.Float | t.DeclTag | t.TypeTag) for _, f in Btf.parse(data)):
            raise BpfError("load BTF", errno.EINVAL)
        return real(data)

    monkeypatch.setattr(btf_object, "load", older)
    monkeypatch.setattr(features, "probe", lambda name: name not in lacking)
    with loader.open(build(TEXT, name="tags")) as obj:
        obj.load()
        assert obj.programs["outer"].test_run(bytes(64)).retval == 64 + 192 + 1
        assert obj.programs["outer"].info().btf_id, "it has its lines and functions all the same"
