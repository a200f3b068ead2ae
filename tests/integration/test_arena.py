"""Arenas: what programs put there Python reads, and the other way; no access kills the process."""

from __future__ import annotations

import errno
import mmap
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netbpf import loader
from netbpf.bpf import map as bpf_map
from netbpf.bpf import syscall, uapi
from netbpf.bpf.prog import Program
from netbpf.elf.object import open_object
from netbpf.errors import (
    BpfError,
    ConflictError,
    KernelError,
    NotFoundError,
    ObjectFileError,
    VerifierError,
)
from netbpf.loader.arena import Arena, Place
from netbpf.loader.arena_image import Image, far_offsets
from netbpf.loader.arena_memory import Memory
from netbpf.loader.object import Object
from netbpf.netns.named import list_names
from tests.netns_fixtures import programs
from tests.netns_fixtures.scripts import BIN, run_script

PACKET = bytes(64)
PAGE = mmap.PAGESIZE
SHARED = programs.SOURCES / "arena_shared.o"
SEEDS = programs.SOURCES.parent / "fuzz" / "seeds"


@pytest.fixture
def shared() -> Iterator[Object]:
    with loader.open(SHARED) as obj:
        obj.load()
        yield obj


@pytest.fixture
def heap() -> Iterator[Object]:
    with loader.open(programs.SOURCES / "arena_heap.o") as obj:
        obj.load()
        yield obj


def run(program: Program) -> int:
    """Run a program of type syscall, which takes no packet."""
    attr = uapi.TestRunAttr(prog_fd=program.fileno())
    syscall.prog_test_run(attr)
    return int(attr.retval)


def mapped(address: int) -> str | None:
    """What /proc says is mapped from ``address`` on."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.startswith(f"{address:x}-"):
            return line.split(maxsplit=5)[-1]
    return None


def fresh(flags: int = 0, pages: int = 4, map_extra: int = 0) -> bpf_map.Map:
    return bpf_map.create(
        uapi.BPF_MAP_TYPE_ARENA,
        key_size=0,
        value_size=0,
        max_entries=pages,
        flags=uapi.BPF_F_MMAPABLE | flags,
        name="fresh",
        map_extra=map_extra,
    )


# A program builds, Python reads.


def test_a_list_that_a_program_built(shared: Object) -> None:
    shared.programs["builds"].test_run(PACKET)
    head = shared.get("head")
    assert head in shared.arena
    nodes = list(shared.arena.at(head, "struct node").walk("next"))
    assert [n["number"] for n in nodes] == [16, 9, 4, 1, 0]
    assert [n["name"] for n in nodes] == ["e", "d", "c", "b", "a"]
    assert nodes[0].type == "struct node"
    assert nodes[0]["inner.port"] == 1004
    assert nodes[1].value == {
        "next": nodes[2].address,
        "number": 9,
        "name": "d",
        "link": {"next": nodes[2].at("link").address},
        "inner": {"port": 1003, "flags": [0, 0, 3]},
    }
    last = nodes[-1].follow("next")
    assert last is None


def test_the_same_bytes_in_the_buffer(shared: Object) -> None:
    shared.programs["builds"].test_run(PACKET)
    node = shared.arena.at(shared.get("head"), "struct node")
    view = shared.arena.buffer()
    at = node.at("number").address - shared.arena.address
    assert int.from_bytes(view[at : at + 4], sys.byteorder) == 16
    view[at : at + 4] = (99).to_bytes(4, sys.byteorder)
    assert node["number"] == 99
    assert len(view) == len(shared.arena) == 16 * PAGE
    view.release()


def test_a_table_and_embedded_links(shared: Object) -> None:
    shared.set("length", 10)
    shared.programs["builds"].test_run(PACKET)
    buckets = shared.arena.variable("buckets")
    found = {}
    for number in range(8):
        node = buckets.follow(number)
        assert node is not None
        found[number] = node["number"]
    assert found == {0: 64, 1: 81, 2: 4, 3: 9, 4: 16, 5: 25, 6: 36, 7: 49}
    first = shared.arena.variable("links").follow()
    assert first is not None
    holders = [link.container("struct node", "link") for link in first.walk("next")]
    assert [h["number"] for h in holders] == [n * n for n in range(9, -1, -1)]


def test_variables_are_where_programs_look_for_them() -> None:
    with loader.open(SHARED) as obj:
        obj.set("counter", 41)
        obj.load()
        assert isinstance(obj.arena, Image)
        assert obj.arena.start == (len(obj.arena) - PAGE if far_offsets() else 0)
        obj.programs["builds"].test_run(PACKET)
        assert obj.get("counter") == obj.arena.variable("counter").value == 42
        # An address that the program itself wrote.
        assert obj.get("head") == obj.arena.variable("pool").at(4).address
        obj.set("counter", 100)
        obj.programs["builds"].test_run(PACKET)
        assert obj.get("counter") == 101
        assert obj.get("word") == "hello"
        with pytest.raises(NotFoundError, match="its variables: buckets, counter, head"):
            obj.arena.variable("nothing")


# User space builds, a program reads.


def test_a_program_reads_what_python_built(shared: Object) -> None:
    sums = shared.programs["sums"]
    assert sums.test_run(PACKET).retval == 0
    pool = shared.arena.variable("pool")
    last: Place | None = None
    for number in (1, 20, 300):
        node = pool.at(number % 64)
        node.value = {"number": number, "next": last, "name": "made", "inner": {"port": 7}}
        last = node
    shared.arena.variable("head").value = last
    assert sums.test_run(PACKET).retval == 321
    pool["[20].number"] = 2000
    assert sums.test_run(PACKET).retval == 2301
    assert pool["[20]"]["name"] == "made"
    # Behind the variables, where no program has made a page.
    arena = shared.arena
    spare = arena.address + (0 if arena.address not in _data(shared) else 8 * PAGE)
    far = arena.at(spare, "struct node")
    far.value = {"number": 5, "next": last}
    arena.variable("head").value = far.address
    assert sums.test_run(PACKET).retval == 2306
    arena.variable("head").value = None
    assert sums.test_run(PACKET).retval == 0


def _data(obj: Object) -> range:
    assert isinstance(obj.arena, Image)
    start = obj.arena.address + obj.arena.start
    return range(start, start + obj.arena.length)


def test_values_that_do_not_fit(shared: Object) -> None:
    node = shared.arena.variable("pool").at(0)
    with pytest.raises(ValueError, match="does not fit"):
        node["inner.port"] = 1 << 16
    with pytest.raises(TypeError, match="is a pointer"):
        node["next"] = "text"
    with pytest.raises(ValueError, match="no member nothing"):
        node["nothing"]
    with pytest.raises(ValueError, match="64 elements"):
        shared.arena.variable("pool").at(64)
    with pytest.raises(ValueError, match="is no pointer"):
        node.follow("number")
    with pytest.raises(NotFoundError, match="type struct nothing"):
        shared.arena.at(shared.arena.address, "struct nothing")
    with pytest.raises(NotFoundError, match="type struct "):
        shared.arena.at(shared.arena.address, "struct ")
    assert shared.arena.at(node.address, "__u32").size == 4


def test_lists_that_come_back(shared: Object) -> None:
    pool = shared.arena.variable("pool")
    for number in range(3):
        pool[f"[{number}].next"] = pool.at((number + 1) % 3)
    assert len(list(pool.at(0).walk("next"))) == 3, "a ring ends where it began"
    pool["[2].next"] = pool.at(1)
    with pytest.raises(ValueError, match="comes back to"):
        list(pool.at(0).walk("next"))
    pool["[2].next"] = 0xDEAD0000
    with pytest.raises(ValueError, match="0xdead0000 lie outside of arena"):
        list(pool.at(0).walk("next"))


# Bounds, and pages that are not there.


def test_pointers_out_of_the_arena(shared: Object) -> None:
    arena = shared.arena
    end = arena.address + len(arena)
    for address in (arena.address - 1, end, end - 7, 1, 1 << 63, (1 << 64) - 1, -8, id(arena)):
        with pytest.raises(ValueError, match="outside of arena"):
            arena.read(address, 8)
        with pytest.raises(ValueError, match="outside of arena"):
            arena.write(address, bytes(8))
        with pytest.raises(ValueError, match="outside of arena"):
            arena.at(address, "__u64")
    with pytest.raises(ValueError, match="NULL"):
        arena.at(0, "struct node")
    with pytest.raises(ValueError, match="outside"):
        arena.read(arena.address, -1)
    with pytest.raises(ValueError, match="outside"):
        arena.read(arena.address, 1 << 70)
    assert arena.read(end - 8, 8) == bytes(8)
    assert arena.read(end - 8, 0) == b""
    assert end - 1 in arena
    assert end not in arena


@pytest.mark.parametrize("flags", [0, uapi.BPF_F_SEGV_ON_FAULT])
def test_no_pointer_does_harm(flags: int) -> None:
    with fresh(flags) as found, Memory(found) as memory:
        start, end = memory.address, memory.address + len(memory)

        @given(
            base=st.sampled_from([0, start, end, 1 << 64]),
            offset=st.integers(-3 * PAGE, 3 * PAGE),
            size=st.integers(0, 2 * PAGE),
        )
        @settings(max_examples=200, deadline=None)
        def attempt(base: int, offset: int, size: int) -> None:
            pointer = base + offset
            inside = start <= pointer < end and pointer + size <= end
            try:
                memory.read(pointer, size)
                memory.write(pointer, b"x" * size)
                assert memory.read(pointer, size) == b"x" * size
                assert inside
            except ValueError:
                assert not inside
            except KernelError as error:
                assert inside and size and memory.segv_on_fault
                assert error.errno == errno.EFAULT

        attempt()


def test_pages_that_no_program_made(heap: Object) -> None:
    arena = heap.arena
    assert arena.segv_on_fault
    for access in (
        lambda: arena.read(arena.address, 8),
        lambda: arena.write(arena.address, b"x"),
        lambda: arena.at(arena.address, "struct item").value,
    ):
        with pytest.raises(KernelError, match="only programs make pages") as caught:
            access()
        assert caught.value.errno == errno.EFAULT
        assert caught.value.code == "fault"
    with pytest.raises(ValueError, match="has no buffer"):
        arena.buffer()


def test_a_heap_of_a_program(heap: Object) -> None:
    arena = heap.arena
    assert run(heap.programs["takes"]) == 0
    page = heap.get("page")
    items = arena.at(heap.get("head"), "struct item").walk("next")
    assert [i["number"] for i in items] == [14, 13, 12, 11, 10]
    # The page after it is not there: how far it went is told.
    behind = page + PAGE
    if behind in arena:
        with pytest.raises(KernelError, match=f"8 bytes at {behind:#x}"):
            arena.read(behind - 8, 16)
        with pytest.raises(KernelError, match=f"8 bytes at {behind:#x}"):
            arena.write(behind - 8, b"A" * 16)
        assert arena.read(behind - 8, 8) == b"A" * 8
    assert run(heap.programs["gives"]) == 0
    with pytest.raises(KernelError, match="EFAULT"):
        list(arena.at(heap.get("head"), "struct item").walk("next"))


def test_a_heap_of_a_tc_program() -> None:
    with loader.open(programs.SOURCES / "arena_private.o") as obj:
        if tuple(int(n) for n in os.uname().release.split("-")[0].split(".")[:2]) < (7, 0):
            with pytest.raises(VerifierError, match="must be sleepable to call"):
                obj.load()
            assert obj.maps == {}
            with pytest.raises(ValueError, match="is not loaded"):
                _ = obj.arena
            return
        obj.load()
        keeps = obj.programs["keeps"]
        assert [keeps.test_run(bytes(n)).retval for n in (64, 64, 100, 64)] == [1, 2, 1, 3]
        seen = obj.arena.at(obj.get("first"), "struct seen").walk("next")
        assert [(s["length"], s["times"]) for s in seen] == [(100, 1), (64, 3)]


def test_the_page_is_really_not_there() -> None:
    """What the tests above come back from kills a process that follows the pointer itself."""
    code = (
        "import ctypes\n"
        "from netbpf import Map\n"
        "from netbpf.loader.arena_memory import Memory\n"
        "with Map.from_id({}) as found, Memory(found) as memory:\n"
        "    print(ctypes.string_at(memory.address, 8))\n"
    )
    with fresh(uapi.BPF_F_SEGV_ON_FAULT) as found:
        command = [sys.executable, "-c", code.format(found.id)]
        done = subprocess.run(command, capture_output=True, timeout=60)
    assert done.returncode == -signal.SIGSEGV, done.stderr
    assert done.stdout == b""


def test_pointers_without_their_upper_half(shared: Object) -> None:
    with loader.open(programs.SOURCES / "arena_low.o") as obj:
        obj.load()
        assert obj.arena.no_user_conv
        assert run(obj.programs["takes"]) == 0
        head = obj.get("head")
        for pointer in (head, head & 0xFFFFFFFF):
            items = list(obj.arena.at(pointer, "struct item").walk("next"))
            assert [i["number"] for i in items] == [14, 13, 12, 11, 10]
            assert items[0].address == obj.arena.locate(head)
        items[0]["next"] = items[4].address & 0xFFFFFFFF
        assert [i["number"] for i in items[0].walk("next")] == [14, 10]
    # Without the flag such a pointer leads somewhere else.
    low = shared.arena.address & 0xFFFFFFFF
    assert low not in shared.arena


# Where it is mapped, and for how long.


def test_the_address_that_the_object_says() -> None:
    wanted = 1 << 44
    assert mapped(wanted) is None
    with loader.open(SEEDS / "arena.o") as obj, loader.open(SEEDS / "arena.o") as other:
        obj.load()
        assert obj.arena.address == wanted
        assert mapped(wanted) == "anon_inode:bpf-map"
        assert obj.programs["walks"].test_run(PACKET).retval == len(PACKET)
        assert obj.get("counter") == 8
        with pytest.raises(ConflictError, match="something else is mapped there"):
            other.load()
        assert other.maps == {}
        # The first one has lost nothing by it.
        assert obj.get("counter") == 8
        obj.close()
        assert mapped(wanted) is None
        other.load()
        assert other.arena.address == wanted
    assert mapped(wanted) is None


def test_a_view_keeps_the_memory(shared: Object) -> None:
    address = shared.arena.address
    shared.set("word", "still")
    offset = shared.arena.variable("word").address - address
    piece = shared.arena.buffer()[offset : offset + 5]
    arena = shared.arena
    shared.close()
    assert bytes(piece) == b"still"
    with pytest.raises(ValueError, match="is closed"):
        arena.read(address, 1)
    with pytest.raises(ValueError, match="is closed"):
        arena.buffer()
    with pytest.raises(ValueError, match="has no arena, or is not loaded"):
        _ = shared.arena
    assert mapped(address) is not None
    piece.release()
    del piece
    assert mapped(address) is None


def test_maps_of_others(shared: Object, bpffs: Path) -> None:
    with (
        fresh() as found,
        Memory(found) as first,
    ):
        first.write(first.address + 8, b"hello")
        with pytest.raises(BpfError, match="at the address where it was mapped first"):
            Memory(found)
        with pytest.raises(ConflictError, match="mapped there in this process"):
            Memory(found, first.address)
        found.pin(str(bpffs / "fresh"))
        # Another process has to be told the address, and then reads the same memory.
        code = (
            "from netbpf import Map\n"
            "from netbpf.loader.arena import Arena\n"
            f"with Map.from_pin({str(bpffs / 'fresh')!r}) as found:\n"
            f"    with Arena(found, address={first.address}) as arena:\n"
            f"        print(arena.read({first.address + 8}, 5).decode())\n"
            f"        arena.write({first.address + 8}, b'HELLO')\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
        assert done.stdout == b"hello\n", done.stderr
        assert first.read(first.address + 8, 5) == b"HELLO"
    with (
        bpf_map.create(uapi.BPF_MAP_TYPE_ARRAY, key_size=4, value_size=4, max_entries=1) as array,
        pytest.raises(ValueError, match="is no arena"),
    ):
        Arena(array)


def test_an_arena_without_types() -> None:
    with fresh() as found, Arena(found) as arena:
        arena.write(arena.address, b"raw")
        assert arena.read(arena.address, 4) == b"raw\0"
        with pytest.raises(NotFoundError, match="has no BTF"):
            arena.at(arena.address, "struct node")


def test_a_map_that_exists_keeps_its_contents() -> None:
    with loader.open(SEEDS / "arena.o") as obj, loader.open(SEEDS / "arena.o") as again:
        obj.load()
        obj.set("counter", 1000)
        found = bpf_map.Map.from_id(obj.maps["arena"].id)
        obj.close()
        with found:
            again.reuse_map("arena", found)
        again.load()
        assert again.get("counter") == 1000
        again.programs["walks"].test_run(PACKET)
        assert again.get("counter") == 1001


def test_two_objects_with_one_arena(shared: Object) -> None:
    """Programs of the second work, as with libbpf; the memory is there once in a process."""
    with loader.open(SHARED) as second:
        second.reuse_map("arena", shared.maps["arena"])
        second.load()
        second.programs["builds"].test_run(PACKET)
        assert shared.get("head") == shared.arena.variable("pool").at(4).address
        assert shared.programs["sums"].test_run(PACKET).retval == 30
        with pytest.raises(ValueError, match="arena arena is not in this process: map arena"):
            second.arena.variable("head")
        with pytest.raises(ValueError, match="not in this process"):
            second.get("counter")
        with pytest.raises(ValueError, match="not in this process"):
            second.arena.buffer()
    assert shared.get("counter") == 8


def test_a_view_that_outlives_everything() -> None:
    code = (
        "from netbpf import loader\n"
        f"with loader.open({str(SHARED)!r}) as obj:\n"
        "    obj.load()\n"
        "    view = obj.arena.buffer()\n"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_variables_where_only_programs_make_pages() -> None:
    spec = open_object(SHARED)
    arena = replace(spec.map("arena"), flags=uapi.BPF_F_MMAPABLE | uapi.BPF_F_SEGV_ON_FAULT)
    maps = tuple(arena if m.name == "arena" else m for m in spec.maps)
    with (
        Object(replace(spec, maps=maps)) as obj,
        pytest.raises(ObjectFileError, match=r"section \.addr_space\.1: variables cannot be put"),
    ):
        obj.load()


# The example.


def test_look_ups_answered_in_the_kernel() -> None:
    before = {name for name in list_names() if name.startswith("kv-")}
    done = run_script([BIN / "python", "examples/arena-kv/arena_kv.py"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "answers: [9, 4711, None, 10000, None]" in done.stdout
    assert "asked 1005 times, answered 1003" in done.stdout
    assert {name for name in list_names() if name.startswith("kv-")} <= before
