"""Probes (USDT): notes of ELF files, arguments in the assembler's words, and specs for programs."""

from __future__ import annotations

import random
import re
import struct
import subprocess
import time
from pathlib import Path

import pytest

from netbpf.btf import types as t
from netbpf.btf.blob import Btf
from netbpf.elf import open_object, usdt, usdt_args
from netbpf.elf.usdt_args import Argument
from netbpf.errors import NotFoundError, ObjectFileError
from netbpf.plumbing import usdt_specs
from netbpf.plumbing.attach_usdt import in_memory
from tests.netns_fixtures import probed
from tests.netns_fixtures.objects import build
from tests.unit.blobs import Blob

SOURCES = Path(__file__).resolve().parents[1] / "bpf"
LIBRARY = Path("/usr/lib/x86_64-linux-gnu/libstdc++.so.6")


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return probed.build(tmp_path_factory.mktemp("probed"))


def parsed(text: str, machine: str = "x86_64") -> list[Argument]:
    return usdt_args.parse(text, machine)


def const(size: int, signed: bool, value: int) -> Argument:
    return Argument("const", size, signed, value=value)


def reg(size: int, signed: bool, register: int) -> Argument:
    return Argument("reg", size, signed, register=register)


def deref(size: int, signed: bool, register: int, value: int) -> Argument:
    return Argument("deref", size, signed, register=register, value=value)


def test_arguments_on_x86_64() -> None:
    assert parsed("") == parsed(" ") == []
    assert parsed("-4@%eax 1@%sil 2@%r9w 8@%rip") == [
        reg(4, True, 80),
        reg(1, False, 104),
        reg(2, False, 64),
        reg(8, False, 128),
    ]
    assert parsed("8@$-9 -1@$71") == [const(8, False, -9), const(1, True, 71)]
    assert parsed("-8@-16(%rbp) 4@(%rsp) 2@ 8 ( %r15 )") == [
        deref(8, True, 32, -16),
        deref(4, False, 152, 0),
        deref(2, False, 0, 8),
    ]
    assert parsed("1@-96(%rbp,%rax,8) -4@(%rdx , %rcx)") == [
        Argument("sib", 1, False, value=-96, register=32, index=80, shift=3),
        Argument("sib", 4, True, register=96, index=88),
    ]
    every = "al bl cl dl sil dil bpl spl r8b r15b ax bx si bp sp r10w eax r12d rbx r14"
    assert len(parsed(" ".join(f"1@%{name}" for name in every.split()[:12]))) == 12
    assert len(parsed(" ".join(f"1@%{name}" for name in every.split()[12:]))) == 8


def test_arguments_on_other_machines() -> None:
    assert parsed("-4@[sp, 96] 8@[x3] 4@5 -8@x30", "aarch64") == [
        deref(4, True, 248, 96),
        deref(8, False, 24, 0),
        const(4, False, 5),
        reg(8, True, 240),
    ]
    assert parsed("-8@-88(s0) 4@5 -8@a1 1@t6", "riscv64") == [
        deref(8, True, 64, -88),
        const(4, False, 5),
        reg(8, True, 88),
        reg(1, False, 248),
    ]
    assert parsed("-2@-28(%r15) -8@%r0 4@71", "s390x") == [
        deref(2, True, 144, -28),
        reg(8, True, 24),
        const(4, False, 71),
    ]


@pytest.mark.parametrize(
    ("text", "machine", "said"),
    [
        ("4@%xmm0", "x86_64", "argument 0 is in a register that is not known: '4@%xmm0'"),
        ("8@%rax 4@global(%rip)", "x86_64", "argument 1 is of a kind that is not known"),
        ("3@%rax", "x86_64", "argument 0 has 3 bytes"),
        ("16@%rax", "x86_64", "argument 0 has 16 bytes"),
        ("8@(%rax,%rcx,3)", "x86_64", "an index of 3 bytes"),
        ("8@(%rax,%xmm1,8)", "x86_64", "register that is not known"),
        ("8f@%rax", "x86_64", "kind that is not known"),
        ("8@", "x86_64", "kind that is not known"),
        ("%rax", "x86_64", "kind that is not known"),
        ("8@%rax8@%rbx", "x86_64", "kind that is not known"),
        (" ".join(["8@%rax"] * 13), "x86_64", "more than 12"),
        ("8@" + "1" * 4096, "x86_64", "4098 characters are too many for its arguments"),
        ("8@w3", "aarch64", "register that is not known"),
        ("8@x31", "aarch64", "register that is not known"),
        ("8@%r16", "s390x", "register that is not known"),
        ("8@pc", "riscv64", "register that is not known"),
        ("8@r0", "mips", "arguments of probes on mips are not known"),
    ],
)
def test_arguments_that_nobody_knows(text: str, machine: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        parsed(text, machine)


def test_long_white_space_takes_no_time() -> None:
    start = time.process_time()
    for _ in range(100):
        with pytest.raises(ValueError, match="kind that is not known: '8@'"):
            parsed("8@" + " " * 4000 + "x")
    assert time.process_time() - start < 2
    assert parsed("8@ 16 \t (  %rbp , %rax ) ") == [
        Argument("sib", 8, False, value=16, register=32, index=80)
    ]


def test_places_are_where_the_linker_put_them(target: Path) -> None:
    shown = subprocess.check_output(["readelf", "-nW", target], text=True)
    lines = shown.splitlines()
    at = [i for i, line in enumerate(lines) if line.startswith("    Name: ")]
    told = {lines[i].split(": ")[1] for i in at}
    assert told == {"kinds", "places", "bare", "indexed"}
    places = {name: usdt.find(target, "netbpf", name).sites for name in told}
    read = sorted((site.address, site.arguments) for each in places.values() for site in each)
    assert read == sorted(
        (
            int(lines[i + 1].split("Location: ")[1].split(",")[0], 16),
            lines[i + 2].split("Arguments:")[1].strip(),
        )
        for i in at
    )
    data = target.read_bytes()
    assert all(data[site.offset] == 0x90 for each in places.values() for site in each)
    # The counter lies in .probes, of two bytes.
    sections = subprocess.check_output(["readelf", "-SW", target], text=True)
    words = next(line for line in sections.splitlines() if " .probes " in line).split(".probes")[1]
    assert places["kinds"][0].semaphore == int(words.split()[2], 16)
    assert {site.semaphore for site in places["places"]} == {0}


def test_a_file_that_was_moved_after_linking(target: Path, tmp_path: Path) -> None:
    # As by prelink: the headers say other addresses than the notes, by the same distance.
    (before,) = usdt.find(target, "netbpf", "kinds").sites
    moved = tmp_path / "moved"
    data = bytearray(target.read_bytes())
    (note,) = (n for n in notes_of(target) if n.name == "kinds")
    place = data.index(struct.pack("<QQ", note.address, note.base))
    struct.pack_into("<QQ", data, place, note.address - 0x1000, note.base - 0x1000)
    moved.write_bytes(data)
    assert usdt.find(moved, "netbpf", "kinds").sites == (before,)


def notes_of(path: Path) -> list[usdt.Note]:
    sections = subprocess.check_output(["readelf", "-SW", path], text=True)
    line = next(line for line in sections.splitlines() if usdt.NOTES in line)
    offset, size = (int(word, 16) for word in line.split("NOTE")[1].split()[1:3])
    return list(usdt.notes(str(path), path.read_bytes()[offset : offset + size], "<"))


def test_fixed_or_not(tmp_path: Path, target: Path) -> None:
    probe = usdt.find(target, "netbpf", "bare")
    assert (probe.machine, probe.byteorder, probe.fixed) == ("x86_64", "little", False)
    assert len(probe.sites) == 2
    assert usdt.find(probed.build(tmp_path, "-no-pie"), "netbpf", "bare").fixed


@pytest.mark.skipif(not LIBRARY.exists(), reason="another machine than x86_64")
def test_probes_of_the_system() -> None:
    found = notes_of(LIBRARY)
    assert {note.name for note in found} >= {"throw", "catch"}
    for note in found:
        parsed(note.arguments)
        assert usdt.find(LIBRARY, note.provider, note.name).sites


def note(
    text: bytes = b"p\0n\0a\0",
    owner: bytes = b"stapsdt\0",
    kind: int = 3,
    size: int | None = None,
) -> bytes:
    body = struct.pack("<QQQ", 1, 2, 3) + text
    head = struct.pack("<III", len(owner), len(body) if size is None else size, kind)
    return head + owner + body + bytes(-len(body) % 4)


def test_notes() -> None:
    good = usdt.Note("p", "n", "a", 1, 2, 3)
    assert list(usdt.notes("f", note(b"p\0n\0a\0" + bytes(3)), "<")) == [good]
    assert list(usdt.notes("f", b"", "<")) == []
    assert list(usdt.notes("f", note() + note(b"\0n\0:x\0"), "<")) == [
        good,
        usdt.Note("", "n", "", 1, 2, 3),
    ]
    big = struct.pack(">III", 8, 30, 3) + b"stapsdt\0" + struct.pack(">QQQ", 1, 2, 3) + b"p\0n\0a\0"
    assert list(usdt.notes("f", big + bytes(2), ">")) == [good]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (note()[:-8], "note 0: it is not all there"),
        (note() + b"\0" * 5, "note 1: it is not all there"),
        (note(size=1 << 31), "note 0: it is not all there"),
        (note(owner=b"GNU\0"), "note 0: it is none of a probe"),
        (note(kind=1), "note 0: it is none of a probe"),
        (note(size=20), "note 0: it is not all there"),
        (note(b"p\0n\0"), "note 0: provider, name and arguments do not end"),
        (note(b"p\0n\0a"), "note 0: provider, name and arguments do not end"),
        (note(b""), "note 0: provider, name and arguments do not end"),
        (note(b"p\0\0a\0"), "note 0: the probe has no name"),
    ],
)
def test_malformed_notes(data: bytes, said: str) -> None:
    with pytest.raises(ObjectFileError) as error:
        list(usdt.notes("f", data, "<"))
    assert str(error.value) == f"f: section .note.stapsdt: {said}"


@pytest.mark.parametrize(
    ("address", "semaphore", "said"),
    [
        (0x7000000, 0, "netbpf:kinds is at 0x7000000, where the file has no instructions"),
        (None, 0x7000000, "the semaphore of netbpf:kinds is at 0x7000000, where"),
    ],
)
def test_addresses_outside_of_the_file(
    target: Path, tmp_path: Path, address: int | None, semaphore: int, said: str
) -> None:
    (note,) = (n for n in notes_of(target) if n.name == "kinds")
    data = bytearray(target.read_bytes())
    place = data.index(struct.pack("<QQ", note.address, note.base))
    struct.pack_into("<QQQ", data, place, address or note.address, note.base, semaphore)
    broken = tmp_path / "broken"
    broken.write_bytes(data)
    with pytest.raises(ObjectFileError, match=r"\.note\.stapsdt") as error:
        usdt.find(broken, "netbpf", "kinds")
    assert said in str(error.value)
    # In code instead of data, and the other way round.
    swapped = (note.semaphore, note.base, note.address) if semaphore else (note.semaphore, 0, 0)
    struct.pack_into("<QQQ", data, place, *swapped)
    broken.write_bytes(data)
    with pytest.raises(ObjectFileError, match="no instructions"):
        usdt.find(broken, "netbpf", "kinds")


def test_broken_files(target: Path, tmp_path: Path) -> None:
    whole, broken, dice = target.read_bytes(), tmp_path / "broken", random.Random(4)
    sections = subprocess.check_output(["readelf", "-SW", target], text=True)
    line = next(line for line in sections.splitlines() if usdt.NOTES in line)
    offset, size = (int(word, 16) for word in line.split("NOTE")[1].split()[1:3])
    (headers,) = struct.unpack_from("<Q", whole, 40)
    # Where it hurts: the file's header, the segments, the notes, the sections.
    spans = [(0, 64), (64, 700), (offset, offset + size), (headers, len(whole))]
    answers = []
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(dice.choice((1, 1, 2, 4))):
            data[dice.randrange(*dice.choice(spans))] = dice.choice((0, 1, 0x7F, 0x80, 0xFF))
        broken.write_bytes(data[: dice.randrange(len(data))] if dice.random() < 0.1 else data)
        try:
            usdt.find(broken, "netbpf", "kinds")
            answers.append("read")
        except NotFoundError:
            answers.append("not there")
        except ObjectFileError:
            answers.append("refused")
    assert min(answers.count("read"), answers.count("refused")) > 50


def test_other_files(tmp_path: Path) -> None:
    object_file = build('SEC("tc") int f(void *c) { return 0; }')
    with pytest.raises(ObjectFileError, match="not a 64-bit executable or library"):
        usdt.find(object_file, "a", "b")
    with pytest.raises(ObjectFileError, match="not a regular file"):
        usdt.find("/dev/null", "a", "b")
    with pytest.raises(NotFoundError, match=r"its section \.note\.stapsdt is missing"):
        usdt.find("/usr/bin/env", "a", "b")


def of_object(name: str) -> tuple[Btf, int]:
    path = build((SOURCES / f"{name}.c").read_text(), "-D__TARGET_ARCH_x86", name=name, head="")
    spec = open_object(path)
    assert spec.btf is not None
    return spec.btf, spec.map("__bpf_usdt_specs").value_type_id


def test_specs_in_the_layout_of_the_object() -> None:
    arguments = parsed("-4@%eax 8@$5 1@-96(%rbp,%rax,8)")
    word = struct.Struct("=QIh?b")
    old = usdt_specs.encode(*of_object("usdt"), arguments, 7)
    assert len(old) == 12 * 16 + 16
    assert [word.unpack_from(old, 16 * i) for i in range(4)] == [
        (0, 1, 80, True, 32),
        (5, 0, 0, False, 0),
        ((1 << 64) - 96, 3, 32, False, 56),
        (0, 0, 0, False, 0),
    ]
    assert struct.unpack_from("=Qh", old, 192) == (7, 3)
    # Since libbpf 1.7 an argument has bit fields, and 24 bytes.
    new = usdt_specs.encode(*of_object("usdt_indexed"), arguments, 7)
    assert len(new) == 12 * 24 + 16
    newer = struct.Struct("=QBxHxxh?b6x")
    assert [newer.unpack_from(new, 24 * i) for i in range(4)] == [
        (0, 1, 0, 80, True, 32),
        (5, 0, 0, 0, False, 0),
        ((1 << 64) - 96, 3, 80 | 3 << 12, 32, False, 56),
        (0, 0, 0, 0, False, 0),
    ]
    assert struct.unpack_from("=Qh", new, 288) == (7, 3)


def test_a_spec_is_never_a_free_one() -> None:
    btf, value = of_object("usdt")
    nothing = usdt_specs.encode(btf, value, [], 0)
    zeros = bytes(len(nothing))
    assert nothing != zeros
    assert nothing[192:202] == bytes(10)
    assert usdt_specs.free([nothing, zeros, None, zeros, zeros], 2) == [1, 3]
    assert usdt_specs.free([nothing, zeros], 2) == [1]
    assert usdt_specs.free([zeros], 0) == []


def test_specs_of_another_shape() -> None:
    blob = Blob()
    number = blob.add(t.KIND_INT, "int", 4, 32)
    other = blob.add(t.KIND_STRUCT, "other", 4, blob.string("arg_cnt"), number, 0, vlen=1)
    btf = Btf.parse(bytes(blob))
    for value, said in ((number, "has no members"), (other, "no member args")):
        with pytest.raises(ValueError, match=said):
            usdt_specs.encode(btf, value, [], 0)


def test_places_in_memory() -> None:
    maps = (
        "55d0-55e0 r--p 00000000 fe:00 12 /usr/bin/a b\n"
        "55e0-5600 r-xp 00000010 fe:00 12                 /usr/bin/a b\n"
        "7000-8000 r-xp 00000000 00:00 0 \n"
        "7fff-8fff r-xp 00000000 00:00 0   [vdso]\n"
    )
    assert in_memory(maps, "/usr/bin/a b", 0x14) == 0x55E4
    assert in_memory(maps, "/usr/bin/a b", 0x8) is None
    assert in_memory(maps, "/usr/bin/a b", 0x30) is None
    assert in_memory(maps, "/usr/bin/other", 0x14) is None
