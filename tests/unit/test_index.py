"""The index of a kernel's types: right answers, and no trust in what lies on the disk."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from netbpf.btf import index
from netbpf.btf import types as t
from netbpf.btf.blob import Btf
from netbpf.btf.index import IndexedBtf
from netbpf.errors import NotFoundError, NotSupportedError, ObjectFileError
from netbpf.loader import index_cache, kernel_types
from tests.unit.blobs import Blob

BUILD_ID = bytes(range(20))


def kernel() -> Blob:
    blob = Blob()
    blob.int("int", 4, t.INT_SIGNED)
    blob.struct("sock", 4, ("a", 1, 0))
    blob.add(t.KIND_PTR, "", 2)
    blob.struct("sock___old", 4, ("b", 1, 0))
    blob.struct("netsock", 4, ("c", 1, 0))
    blob.add(t.KIND_FWD, "sock")
    blob.struct("sock", 8, ("d", 1, 0))
    return blob


def test_names_lead_to_all_types_of_the_name() -> None:
    found = index.parse(bytes(kernel()))
    assert found.ids("sock") == [2, 6, 7]
    assert found.ids("sock___old") == [4]
    assert found.ids("ock") == found.ids("nothing") == found.ids("") == []
    assert found.find("sock", t.KIND_FWD) == 6
    assert found.find("sock") == 2
    assert found.find("sock", t.KIND_UNION) is None
    assert found.ids("sock", t.KIND_STRUCT, t.KIND_UNION) == [2, 7]
    assert found.ids("sock", t.KIND_FUNC) == []
    assert found.name(4) == b"sock___old"
    assert found.candidates("sock", t.KIND_STRUCT) == [2, 4, 7]
    assert found.candidates("sock", t.KIND_FWD) == [6]
    assert found.candidates("sock___old", t.KIND_STRUCT) == []
    assert found.candidates("nothing", t.KIND_STRUCT) == []


def test_a_name_may_be_the_tail_of_another_and_stand_twice() -> None:
    blob = Blob()
    long = blob.string("netsock___v2")
    twice = [blob.string("sock"), blob.string("sock")]
    for offset in (long, long + 3, *twice):
        blob._types += struct.pack("<3I", offset, t.KIND_STRUCT << 24, 0)
    found = index.parse(bytes(blob))
    assert found.ids("sock___v2") == [2]
    assert found.candidates("sock", t.KIND_STRUCT) == [2, 3, 4]
    assert found.candidates("netsock", t.KIND_STRUCT) == [1]


def test_functions_have_names_too() -> None:
    blob = kernel()
    proto = blob.add(t.KIND_FUNC_PROTO)
    func = blob.add(t.KIND_FUNC, "sock", proto)
    other = blob.add(t.KIND_FUNC, "sock___old_func", proto)
    found = index.parse(bytes(blob))
    assert found.find("sock", t.KIND_FUNC) == func
    assert found.ids("sock") == [2, 6, 7, func]
    assert found.ids("sock___old_func", t.KIND_FUNC, t.KIND_VAR) == [other]
    assert found.candidates("sock", t.KIND_FUNC) == []


def test_enums_of_both_widths_are_one_kind() -> None:
    blob = Blob()
    blob.add(t.KIND_ENUM, "e", 4)
    blob.add(t.KIND_ENUM64, "e", 8)
    found = index.parse(bytes(blob))
    assert found.candidates("e", t.KIND_ENUM) == found.candidates("e", t.KIND_ENUM64) == [1, 2]


def test_split_types_use_names_of_their_base() -> None:
    base = kernel()
    below = Btf.parse(bytes(base))
    split = Blob(strings=len(below.strings[1]), types=base.count)
    split.struct("module_sock", 4, ("a", 1, 0))
    # A type of the module whose name is a string of the kernel's, flavoured and not.
    for name in (b"sock\0", b"sock___old\0"):
        offset = below.strings[1].index(b"\0" + name) + 1
        split._types += struct.pack("<3I", offset, t.KIND_STRUCT << 24, 0)
    found = index.parse(bytes(split), below)
    assert found.ids("module_sock") == [8]
    assert found.ids("sock") == [9]
    assert found.candidates("sock", t.KIND_STRUCT) == [9, 10]


def test_a_packed_index_gives_the_same_answers() -> None:
    data = bytes(kernel())
    found = index.parse(data)
    assert not found.index.names
    assert found.ids("sock") == [2, 6, 7]
    made = found.index
    packed = index.pack(made, b"abc")
    again = index.unpack(packed, b"abc")
    for part in ("offsets", "names", "ordered"):
        assert list(getattr(again, part)) == list(getattr(made, part)), part
    btf = Btf.parse(data, None, again.offsets)
    assert [btf.type(i) for i in range(len(btf))] == [Btf.parse(data).type(i) for i in range(8)]
    assert IndexedBtf(btf, again).candidates("sock", t.KIND_STRUCT) == [2, 4, 7]


def test_no_byte_of_a_packed_index_can_change() -> None:
    made = index.parse(bytes(kernel()))
    made.ids("sock")
    packed = index.pack(made.index, b"abcdef")
    for at in range(len(packed)):
        changed = bytearray(packed)
        changed[at] ^= 0x55
        with pytest.raises(ValueError, match="index"):
            index.unpack(bytes(changed), b"abcdef")
    for length in range(len(packed)):
        with pytest.raises(ValueError, match="index"):
            index.unpack(packed[:length], b"abcdef")
    with pytest.raises(ValueError, match="another length"):
        index.unpack(packed + b"\0", b"abcdef")
    with pytest.raises(ValueError, match="something else"):
        index.unpack(packed, b"abcdeg")


class Machine:
    """A folder that stands for /sys/kernel, another for the cache."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.btf = folder / "btf"
        self.btf.mkdir()
        self.cache = folder / "cache"
        self.notes = folder / "notes"
        self.monkeypatch = monkeypatch
        monkeypatch.setattr(kernel_types, "SYS_BTF", str(self.btf))
        monkeypatch.setattr(kernel_types, "NOTES", str(self.notes))
        monkeypatch.setattr(kernel_types, "ELSEWHERE", ())
        monkeypatch.setattr(index_cache, "folder", lambda: self.cache)
        self.boot()

    def boot(self, blob: bytes | None = None, build_id: bytes = BUILD_ID) -> None:
        (self.btf / "vmlinux").write_bytes(bytes(kernel()) if blob is None else blob)
        other = struct.pack("=3I", 6, 4, 0x100) + b"Linux\0\0\0" + bytes(4)
        note = struct.pack("=3I", 4, len(build_id), 3) + b"GNU\0" + build_id
        self.notes.write_bytes(other + note)
        self.restart()

    def restart(self) -> None:
        """What a new process knows: nothing."""
        self.monkeypatch.setattr(kernel_types, "_running", {})
        self.monkeypatch.setattr(kernel_types, "_files", {})

    @property
    def file(self) -> Path:
        return self.cache / f"btf-index-{BUILD_ID.hex()}"

    def look(self) -> tuple[list[int], bool]:
        """The candidates for sock, and whether the index had to be made for it."""
        self.restart()
        made = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(index, "parse", lambda *args: made.append(1) or parse(*args))
            found = kernel_types.running().candidates("sock", t.KIND_STRUCT)
        return [c.type_id for c in found], bool(made)


parse = index.parse


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_the_second_process_finds_the_index(machine: Machine) -> None:
    assert machine.look() == ([2, 4, 7], True)
    assert machine.look() == ([2, 4, 7], False)
    assert stat.S_IMODE(machine.file.stat().st_mode) == 0o600
    assert stat.S_IMODE(machine.cache.stat().st_mode) == 0o700
    assert os.listdir(machine.cache) == [machine.file.name]
    # Within one process nothing is read twice.
    assert kernel_types.running() is kernel_types.running()


def test_the_first_function_adds_its_names_to_the_index(machine: Machine) -> None:
    blob = kernel()
    func = blob.add(t.KIND_FUNC, "connect", blob.add(t.KIND_FUNC_PROTO))
    machine.boot(bytes(blob))
    assert machine.look() == ([2, 4, 7], True)
    small = machine.file.stat().st_size
    for grown in (True, False):
        before = machine.file.stat()
        machine.restart()
        assert kernel_types.running().main.find("connect", t.KIND_FUNC) == func
        assert (machine.file.stat().st_size > before.st_size) == grown
        assert (machine.file.stat().st_ino != before.st_ino) == grown
    assert machine.file.stat().st_size == small + 4 * func
    assert machine.look() == ([2, 4, 7], False)


def test_another_kernel_has_another_index(machine: Machine) -> None:
    machine.look()
    other = Blob()
    other.struct("sock", 4)
    machine.boot(bytes(other), bytes(20))
    assert machine.look() == ([1], True)
    assert machine.look() == ([1], False)
    # Of the same build id, but of another size: a kernel built twice from one source.
    machine.boot(bytes(other))
    assert machine.look() == ([1], True)
    assert machine.look() == ([1], False)
    assert len(os.listdir(machine.cache)) == 2


def test_the_indexes_of_old_kernels_go(machine: Machine) -> None:
    for number in range(7):
        machine.boot(build_id=bytes([number]) * 20)
        machine.look()
        os.utime(machine.cache / f"btf-index-{bytes([number]).hex() * 20}", (number, number))
    assert sorted(os.listdir(machine.cache)) == [
        f"btf-index-{bytes([n]).hex() * 20}" for n in (3, 4, 5, 6)
    ]


def test_what_a_killed_writer_left_goes(machine: Machine) -> None:
    machine.look()
    (machine.cache / f".{machine.file.name}.4711.0a0b0c0d").write_bytes(b"half")
    machine.file.unlink()
    assert machine.look() == ([2, 4, 7], True)
    assert os.listdir(machine.cache) == [machine.file.name]


def test_a_writer_whose_part_is_taken_away_goes_without(machine: Machine) -> None:
    rename = os.rename

    def late(part: str, name: str, **folders: int) -> None:
        os.unlink(part, dir_fd=folders["src_dir_fd"])
        rename(part, name, **folders)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index_cache.os, "rename", late)
        assert machine.look() == ([2, 4, 7], True)
    assert os.listdir(machine.cache) == []
    assert machine.look() == ([2, 4, 7], True)


def truncated(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def flipped(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def empty(file: Path) -> None:
    file.write_bytes(b"")


def foreign(file: Path) -> None:
    file.write_bytes(index.pack(parse(bytes(Blob())).index, b"another"))


def writable(file: Path) -> None:
    file.chmod(0o620)


def open_folder(file: Path) -> None:
    file.parent.chmod(0o777)


def link(file: Path) -> None:
    file.rename(file.parent / "elsewhere")
    file.symlink_to("elsewhere")


def fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def linked_folder(file: Path) -> None:
    target = file.parent.with_name("target")
    file.parent.rename(target)
    file.parent.symlink_to(target)


def no_folder(file: Path) -> None:
    file.unlink()
    file.parent.rmdir()
    file.parent.write_bytes(b"")


@pytest.mark.parametrize(
    "spoil",
    [
        truncated,
        flipped,
        empty,
        foreign,
        writable,
        open_folder,
        link,
        fifo,
        folder,
        linked_folder,
        no_folder,
    ],
)
def test_what_is_not_ours_or_not_whole_is_made_anew(
    machine: Machine, spoil: Callable[[Path], None]
) -> None:
    machine.look()
    spoil(machine.file)
    assert machine.look() == ([2, 4, 7], True)


def test_another_owner_is_not_believed(machine: Machine) -> None:
    machine.look()
    with pytest.MonkeyPatch.context() as patch:
        owner = os.geteuid() + 1
        patch.setattr(index_cache.os, "geteuid", lambda: owner)
        assert machine.look() == ([2, 4, 7], True)
    assert machine.look() == ([2, 4, 7], False)


def test_a_spoilt_file_is_replaced(machine: Machine) -> None:
    for spoil in (truncated, flipped, empty, foreign, writable, link, fifo):
        machine.look()
        spoil(machine.file)
        assert machine.look()[1], spoil
        assert machine.look() == ([2, 4, 7], False), spoil
        assert stat.S_ISREG(machine.file.lstat().st_mode)


def test_without_a_place_or_a_build_id_it_goes_without_a_cache(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_cache, "folder", lambda: None)
    assert machine.look() == machine.look() == ([2, 4, 7], True)
    monkeypatch.setattr(index_cache, "folder", lambda: machine.cache)
    machine.notes.unlink()
    assert machine.look() == machine.look() == ([2, 4, 7], True)
    assert not machine.cache.exists()


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_cache.os, "geteuid", lambda: 0)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert index_cache.folder() == "/var/cache/netbpf"
    monkeypatch.setattr(index_cache.os, "geteuid", lambda: 1000)
    assert index_cache.folder() == "/somewhere/netbpf"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/one")
    assert index_cache.folder() == "/home/one/.cache/netbpf"
    monkeypatch.delenv("HOME")
    assert index_cache.folder() is None


def test_modules_are_asked_when_the_kernel_itself_has_none(machine: Machine) -> None:
    base = kernel()
    below = Btf.parse(bytes(base))

    def module(*names: str) -> bytes:
        split = Blob(strings=len(below.strings[1]), types=base.count)
        for name in names:
            split.struct(name, 4, ("a", 1, 0))
        return bytes(split)

    (machine.btf / "first").write_bytes(module("sock", "queue"))
    (machine.btf / "second").write_bytes(module("queue___2", "other"))
    (machine.btf / "broken").write_bytes(b"none")
    types = kernel_types.running()
    assert [c.type_id for c in types.candidates("sock", t.KIND_STRUCT)] == [2, 4, 7]
    found = types.candidates("queue", t.KIND_STRUCT)
    assert [c.type_id for c in found] == [9, 8]
    assert [c.btf.type(c.type_id).name for c in found] == ["queue", "queue___2"]
    assert found[0].btf.base is types.btf
    assert list(types.modules()) == ["first", "second"]
    # Modules come and go, those that stay are read once.
    kept = types.modules()["second"]
    (machine.btf / "first").unlink()
    assert [c.type_id for c in types.candidates("queue", t.KIND_STRUCT)] == [8]
    assert types.modules()["second"] is kept
    (machine.btf / "third").write_bytes(module("late"))
    assert len(types.candidates("late", t.KIND_STRUCT)) == 1


def test_a_kernel_that_does_not_tell_its_types(machine: Machine, tmp_path: Path) -> None:
    (machine.btf / "vmlinux").write_bytes(b"nothing of the kind" * 2)
    with pytest.raises(ObjectFileError, match="vmlinux: no BTF magic"):
        kernel_types.running()
    (machine.btf / "vmlinux").unlink()
    with pytest.raises(NotSupportedError, match="CONFIG_DEBUG_INFO_BTF") as caught:
        kernel_types.running()
    assert "--btf" in str(caught.value)
    # Distributions may keep them in a file.
    other = tmp_path / "vmlinux-{0}"
    Path(str(other).format(os.uname().release)).write_bytes(bytes(kernel()))
    machine.monkeypatch.setattr(kernel_types, "ELSEWHERE", ("/none/{0}", str(other)))
    assert len(kernel_types.running().candidates("sock", t.KIND_STRUCT)) == 3


def elf(content: bytes, *, wide: bool = True, order: str = "<", name: bytes = b".BTF") -> bytes:
    """An ELF file of any machine with one section beside that of the names."""
    strings = b"\0" + name + b"\0"
    start = 64
    sections = [(0, 0, 0), (1, start, len(content)), (0, start + len(content), len(strings))]
    table = b""
    for at, offset, size in sections:
        values = (at, 1, 0, 0, offset, size, 0, 0, 1, 0)
        table += struct.pack(order + ("IIQQQQIIQQ" if wide else "10I"), *values)
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1 if order == "<" else 2, 1]) + bytes(9)
    where = start + len(content) + len(strings)
    if wide:
        head = struct.pack(order + "HHIQQQIHHHHHH", 3, 62, 1, 0, 0, where, 0, 64, 0, 0, 64, 3, 2)
    else:
        head = struct.pack(order + "HHIIIIIHHHHHH", 3, 40, 1, 0, 0, where, 0, 52, 0, 0, 40, 3, 2)
    return (ident + head).ljust(64, b"\0") + content + strings + table


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("order", ["<", ">"])
def test_types_of_a_file(tmp_path: Path, wide: bool, order: str) -> None:
    blob = Blob(order)
    blob.struct("sock", 4)
    raw, file = tmp_path / "raw", tmp_path / "elf"
    raw.write_bytes(bytes(blob))
    file.write_bytes(elf(bytes(blob), wide=wide, order=order))
    for path, pointer in ((raw, struct.calcsize("P")), (file, 8 if wide else 4)):
        found = kernel_types.read(path)
        assert [c.type_id for c in found.candidates("sock", t.KIND_STRUCT)] == [1]
        assert found.btf.pointer == pointer
        assert kernel_types.read(path) is found
        assert not found.modules()
    # What the types say of a long counts more than the file.
    blob.int("long unsigned int", 4 if wide else 8)
    file.write_bytes(elf(bytes(blob), wide=wide, order=order))
    assert kernel_types.read(file).btf.pointer == (4 if wide else 8)


def test_files_that_hold_no_types(tmp_path: Path) -> None:
    good = elf(bytes(kernel()))
    cases: dict[str, tuple[bytes, str]] = {
        "empty": (b"", "too few for a BTF header"),
        "text": (b"something else entirely, but long", "no BTF magic"),
        "no section": (elf(b"", name=b".text"), "no section .BTF"),
        "bad section": (elf(b"none"), "too few"),
        "short": (good[:40], "ELF header is not complete"),
        "cut": (good[:-30], "section headers lie outside"),
        "class": (good[:4] + b"\x07" + good[5:], "ELF header"),
    }
    for name, (data, message) in cases.items():
        file = tmp_path / name
        file.write_bytes(data)
        with pytest.raises(ObjectFileError, match=message):
            kernel_types.read(file)
    for length in range(4, len(good), 7):
        (tmp_path / "part").write_bytes(good[:length])
        with pytest.raises(ObjectFileError):
            kernel_types.read(tmp_path / "part")
    with pytest.raises(NotFoundError, match="no file of types"):
        kernel_types.read(tmp_path / "absent")
    with pytest.raises(ObjectFileError, match="not a regular file"):
        kernel_types.read(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ObjectFileError, match="not a regular file"):
        kernel_types.read(tmp_path / "fifo")
    with pytest.raises(ObjectFileError, match="no possible file name"):
        kernel_types.read("a\0b")
