"""Objects in the kernel: what they do there, and that libbpf (bpftool) loads them alike."""

from __future__ import annotations

import ctypes
import json
import logging
import struct
import subprocess
from pathlib import Path

import pytest

from netbpf import loader
from netbpf.bpf import uapi
from netbpf.bpf.map import Map
from netbpf.bpf.prog import Program
from netbpf.elf import sections
from netbpf.errors import BpfError, ConflictError, ObjectFileError, VerifierError
from tests.netns_fixtures import programs
from tests.netns_fixtures.objects import build

PACKET = bytes(64)


def bpftool(*args: object) -> object:
    done = subprocess.run(
        ["bpftool", "-j", *map(str, args)], check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout) if done.stdout.strip() else None


def source(name: str, *flags: str) -> Path:
    """The object file of a source in tests/bpf."""
    return build((programs.SOURCES / f"{name}.c").read_text(), *flags, name=name, head="")


@pytest.mark.parametrize("name", ["obj_all", "obj_more"])
@pytest.mark.parametrize("cpu", ["v1", "v2", "v3"])
def test_tags_and_maps_are_those_of_libbpf(name: str, cpu: str, bpffs: Path) -> None:
    file = source(name, f"-mcpu={cpu}")
    bpftool("prog", "loadall", file, bpffs / "peer")
    with loader.open(file) as obj:
        obj.load()
        assert sorted(obj.programs) == sorted(p.name for p in (bpffs / "peer").iterdir())
        for name, program in obj.programs.items():
            with Program.from_pin(str(bpffs / "peer" / name)) as peer:
                ours, theirs = program.info(), peer.info()
                assert ours.tag == theirs.tag, name
                assert (ours.type, ours.name) == (theirs.type, theirs.name)
                assert shapes(ours.map_ids) == shapes(theirs.map_ids), name
        program = obj.spec.programs[0].name
        shown = bpftool("prog", "show", "pinned", bpffs / "peer" / program)
        assert isinstance(shown, dict)
        assert obj.programs[program].info().tag == shown["tag"]


def shapes(ids: tuple[int, ...]) -> dict[str, tuple[object, ...]]:
    found = {}
    for number in ids:
        with Map.from_id(number) as opened:
            info = opened.info()
            flags = info.flags
            if "." in info.name:
                # Older libbpf makes all data sections mappable, later ones those that hold
                # something visible outside of its C file (tests/unit/test_elf.py).
                flags &= ~uapi.BPF_F_MMAPABLE
            size = (info.key_size, info.value_size, info.max_entries)
            types = (info.btf_key_type_id, info.btf_value_type_id)
            found[info.name] = (info.type, size, flags, types)
    return found


def test_programs_do_what_their_source_says() -> None:
    with loader.open(source("obj_all")) as obj:
        obj.set("verdict", 2)
        obj.load()
        assert obj.programs["first"].test_run(PACKET).retval == 2
        # packets starts at 5 in the source; the program and bpftool see the same memory.
        assert obj.get("packets") == 6
        assert obj.get("seen") == len(PACKET)
        # (2 * 64 - 3) + (2 * 3 - 3) + (2 * 4 - 3 - 1) + 0: static, global and hidden functions.
        assert obj.programs["second"].test_run(PACKET).retval == 132
        assert obj.programs["looper"].test_run(PACKET).retval == 0 + 1 + 2 + 3 + 4
        assert obj.programs["jumper"].test_run(PACKET).retval == 42, "through the map of programs"
        assert obj.programs["nested"].test_run(PACKET).retval == 0, "through the map of maps"
        assert obj.maps["counters"].lookup(struct.pack("=I", 1)) == struct.pack("=Q", 1)
        assert obj.maps["counters"].lookup(struct.pack("=I", 2)) == struct.pack("=Q", 1)
        assert obj.maps["pairs"].lookup(bytes(4)) == struct.pack("=IxxxxQ", 9, 10)


def test_less_usual_places_of_data() -> None:
    with loader.open(source("obj_more")) as obj:
        obj.set("custom", 30)
        obj.load()
        assert obj.programs["strings"].test_run(PACKET).retval == ord("s") + 30 + 7
        assert obj.programs["counts"].test_run(PACKET).retval == 1
        assert obj.programs["deep"].test_run(PACKET).retval == 64 + 3 + 64 + 2 + 1


def test_variables_of_every_kind() -> None:
    with loader.open(source("obj_all")) as obj:
        obj.set("enabled", "true")
        obj.set("chosen", "LATER")
        obj.set("limits.inner.port", "0x1bb")
        obj.set("limits", {"low": 1, "table": [7, 8]})
        obj.set("device", "eth0")
        obj.load()
        assert obj.programs["first"].test_run(PACKET).retval == -1 + 1
        assert obj.programs["dropper"].test_run(PACKET).retval == 1
        assert obj.get("target.____fmt") == "at %d"
        assert obj.get("limits") == {
            "low": 1,
            "inner": {"port": 443, "tag": "abc"},
            "table": [7, 8, 0],
        }
        name = obj.maps["obj_all.rodata"].info().name
        dump = bpftool("map", "dump", "id", obj.maps["obj_all.rodata"].id)
        assert name == "obj_all.rodata"
        assert isinstance(dump, list)
        seen = {
            key: value
            for item in dump[0]["formatted"]["value"][".rodata"]
            for key, value in item.items()
        }
        assert seen["limits"]["inner"]["port"] == 443
        assert seen["limits"]["table"] == [7, 8, 0]
        assert seen["enabled"] in (True, 1)


def test_live_variables() -> None:
    with loader.open(source("obj_all")) as obj:
        obj.load()
        obj.set("packets", 100)
        obj.programs["first"].test_run(PACKET, repeat=5)
        assert obj.get("packets") == 105
        dump = bpftool("map", "dump", "id", obj.maps["obj_all.data"].id)
        assert isinstance(dump, list)
        assert {"packets": 105} in dump[0]["formatted"]["value"][".data"]
        with pytest.raises(ValueError, match="constant once the object is loaded"):
            obj.set("verdict", 1)
        with pytest.raises(BpfError, match="EPERM"):
            # Frozen: the kernel itself refuses.
            rodata = obj.maps["obj_all.rodata"]
            value = rodata.lookup(bytes(4))
            assert value is not None
            rodata.update(bytes(4), value)


def test_only_what_is_asked_for_and_what_it_jumps_to() -> None:
    with loader.open(source("obj_all")) as obj:
        obj.load(only=["jumper"])
        assert sorted(obj.programs) == ["jumper", "target"]
        assert obj.programs["jumper"].test_run(PACKET).retval == 42


def test_optional_programs_wait_to_be_asked() -> None:
    with loader.open(source("obj_optional")) as obj:
        with pytest.raises(ObjectFileError, match="program unclear"):
            obj.load()
        obj.load(only=["inward", "optional"])
        assert obj.programs["optional"].test_run(PACKET).retval == 2
        assert obj.programs["inward"].test_run(PACKET).retval == 1
    with loader.open(source("obj_optional")) as obj:
        with pytest.raises(ObjectFileError, match=r"section nonsense: program unclear: its sec"):
            obj.load(only=["unclear"])
        assert not obj.programs
        assert not obj.maps


def test_maps_resized_reused_and_refused() -> None:
    with loader.open(source("obj_all")) as first, loader.open(source("obj_all")) as second:
        first.resize("pairs", 7)
        first.load()
        assert first.maps["pairs"].info().max_entries == 7
        second.reuse_map("counters", first.maps["counters"])
        with pytest.raises(ConflictError, match="max_entries is 128, not 7"):
            second.reuse_map("pairs", first.maps["pairs"])
        second.load()
        second.programs["first"].test_run(PACKET)
        assert second.maps["counters"].id == first.maps["counters"].id
        assert first.maps["counters"].lookup(struct.pack("=I", 1)) == struct.pack("=Q", 1)


def test_a_variable_beside_a_lock() -> None:
    """The kernel maps no such value into memory, so it is written by the map's own call."""
    text = """
    struct { struct bpf_spin_lock lock; int counter; } held SEC(".data.held");
    SEC("tc") int uses(void *c)
    {
        bpf_spin_lock(&held.lock);
        int now = ++held.counter;
        bpf_spin_unlock(&held.lock);
        return now;
    }
    """
    with loader.open(build(text)) as obj:
        obj.set("held.counter", 3)
        obj.load()
        assert obj.programs["uses"].test_run(PACKET).retval == 4
        obj.set("held.counter", 10)
        assert obj.programs["uses"].test_run(PACKET).retval == 11
        assert obj.get("held.counter") == 11


def test_a_map_without_a_size_takes_that_of_the_map_it_is() -> None:
    text = """
    struct { __uint(type, BPF_MAP_TYPE_HASH); __type(key, __u32); __type(value, __u64); } open
        SEC(".maps");
    int counter = 1;
    SEC("tc") int uses(void *c) { return counter + !bpf_map_lookup_elem(&open, &counter); }
    """
    with loader.open(build(text)) as first, loader.open(build(text)) as second:
        with pytest.raises(BpfError, match=r"hash cannot have 0 entries .*--map-size open=N"):
            first.load()
        with pytest.raises(ValueError, match=r"resize map made.data: what it holds is one entry"):
            first.resize(".data", 2)
        first.resize("open", 5)
        first.load()
        second.reuse_map("open", first.maps["open"])
        second.load()
        assert second.maps["open"].id == first.maps["open"].id
        with pytest.raises(ConflictError, match="its type is hash, not array"):
            loader.open(build(text)).reuse_map("open", first.maps["made.data"])


def test_a_map_pinned_by_name_is_shared(bpffs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = """
    struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32);
             __type(value, __u64); __uint(pinning, LIBBPF_PIN_BY_NAME); } shared SEC(".maps");
    SEC("tc") int count(struct __sk_buff *skb)
    {
        __u32 key = 0;
        __u64 *value = bpf_map_lookup_elem(&shared, &key);

        if (value)
            *value += 1;
        return 0;
    }
    char _license[] SEC("license") = "GPL";
    """
    monkeypatch.setattr("netbpf.loader.maps.PIN_ROOT", str(bpffs))
    file = build(text)
    for _ in range(2):
        with loader.open(file) as obj:
            obj.load()
            obj.programs["count"].test_run(PACKET)
    with Map.from_pin(str(bpffs / "shared")) as shared:
        assert shared.lookup(bytes(4)) == struct.pack("=Q", 2)


def test_a_map_pinned_by_name_that_is_another(bpffs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """libbpf compares flags too (map_is_reuse_compat), of device maps but what the kernel adds."""
    text = """
    struct { __uint(type, BPF_MAP_TYPE_%s); __uint(max_entries, 1); __type(key, __u32);
             __type(value, __u32); __uint(map_flags, %s); __uint(pinning, LIBBPF_PIN_BY_NAME); }
        shared SEC(".maps");
    SEC("xdp") int uses(void *c) { return 1; }
    """
    monkeypatch.setattr("netbpf.loader.maps.PIN_ROOT", str(bpffs))
    first, other = (build(text % ("HASH", flags)) for flags in ("0", "BPF_F_NO_PREALLOC"))
    with loader.open(first) as obj:
        obj.load()
    for file, words in (
        (other, r"flags 0x0 there, 0x1 here: remove that pin, .*--map shared=PIN"),
        (build(text % ("ARRAY", "0")), "type hash there, array here"),
    ):
        with loader.open(file) as obj, pytest.raises(ConflictError, match=words):
            obj.load()
    (bpffs / "shared").unlink()
    for _ in range(2):
        with loader.open(build(text % ("DEVMAP", "0"))) as obj:
            obj.load()
            assert obj.maps["shared"].info().flags == uapi.BPF_F_RDONLY_PROG


def test_a_refused_program_leaves_nothing() -> None:
    text = """
    int counter;
    SEC("tc") int fine(struct __sk_buff *skb) { counter++; return 0; }
    SEC("tc") int wrong(struct __sk_buff *skb)
    {
        char *data = (char *)(long)skb->data;

        return data[3];
    }
    char _license[] SEC("license") = "GPL";
    """
    file = build(text)
    before = list(Program.ids()), list(Map.ids())
    with loader.open(file) as obj, pytest.raises(VerifierError) as caught:
        obj.load()
    assert "load program wrong" in str(caught.value)
    assert "invalid access to packet" in str(caught.value)
    # The line of the C source, out of the line info that we moved along.
    assert "return data[3]" in str(caught.value)
    assert "invalid access to packet" in caught.value.log
    assert not obj.programs
    gone = set(Program.ids()) - set(before[0])
    assert not gone, "programs are freed at once when their last descriptor closes"


def test_a_weak_address_of_nothing_is_zero() -> None:
    text = """
    extern const int netbpf_no_such_variable __ksym __weak;
    SEC("tc") int asks(struct __sk_buff *skb) { return &netbpf_no_such_variable ? 1 : 5; }
    char _license[] SEC("license") = "GPL";
    """
    with loader.open(build(text)) as obj:
        obj.load()
        assert obj.programs["asks"].test_run(PACKET).retval == 5


def test_without_debug_information() -> None:
    text = """
    int verdict = 3;
    static __attribute__((noinline)) int get(int x) { return x + verdict; }
    SEC("tc") int plain(struct __sk_buff *skb) { return get(skb->len); }
    char _license[] SEC("license") = "GPL";
    """
    with loader.open(build(text, "-g0")) as obj:
        obj.load()
        assert obj.programs["plain"].test_run(PACKET).retval == 67
        assert obj.programs["plain"].info().btf_id == 0


def test_btf_that_the_kernel_refuses_is_done_without(caplog: pytest.LogCaptureFixture) -> None:
    text = """
    int unused_function(int x) __attribute__((weak));
    int verdict = 3;
    SEC("tc") int plain(struct __sk_buff *skb) { return verdict; }
    char _license[] SEC("license") = "GPL";
    """
    file = build(text)
    data = bytearray(file.read_bytes())
    # A name with a blank: the strings are read by nobody but the kernel.
    at = data.find(b"\0plain\0", data.find(b"\x9f\xeb"))
    data[at + 2] = ord(" ")
    from netbpf.elf import open_object

    spec = open_object(str(file), bytes(data))
    with caplog.at_level(logging.INFO, "netbpf.loader"), loader.Object(spec) as obj:
        obj.load()
        (program,) = obj.programs.values()
        assert program.test_run(PACKET).retval == 3
        assert program.info().btf_id == 0
    assert "goes without its BTF: load BTF: [" in caplog.text
    assert "Invalid name (EINVAL)" in caplog.text


def test_the_section_table_is_that_of_libbpf() -> None:
    libbpf = ctypes.CDLL("libbpf.so.1")
    libbpf.libbpf_set_print(None)
    program, attach = ctypes.c_int(), ctypes.c_int()
    compared = 0
    for pattern in sections.names():
        for name in (pattern.removesuffix("+"), pattern.replace("+", "/some/thing")):
            if libbpf.libbpf_prog_type_by_name(
                name.encode(), ctypes.byref(program), ctypes.byref(attach)
            ):
                continue  # younger than this libbpf
            found = sections.meaning(name)
            assert (found.type, found.expected_attach_type) == (program.value, attach.value), name
            compared += 1
    assert compared > 120


def test_another_byte_order_is_refused_by_name() -> None:
    text = 'SEC("tc") int other(struct __sk_buff *skb) { return 0; }'
    with (
        loader.open(build(text, "-target", "bpfeb")) as obj,
        pytest.raises(ObjectFileError, match="a big-endian object"),
    ):
        obj.load()


def test_functions_in_other_sections() -> None:
    text = """
    __attribute__((section("helpers"), noinline)) int outside(int x) { return x * 3; }
    SEC("tc") int caller(struct __sk_buff *skb) { return outside(skb->len); }
    char _license[] SEC("license") = "GPL";
    """
    with loader.open(build(text)) as obj:
        obj.load(only=["caller"])
        assert obj.programs["caller"].test_run(PACKET).retval == 192
