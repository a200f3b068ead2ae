"""Instructions taken apart: what clang's own disassembler says of them, and bytes that are none."""

from __future__ import annotations

import random
import re
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from netbpf.elf.object import open_object
from netbpf.lint import alu
from netbpf.lint import insns as i
from netbpf.lint.insns import Call, Code, Insn
from netbpf.lint.liveness import liveness

MOV0, EXIT = Insn(0xB7, 0, 0, 0, 0), Insn(0x95, 0, 0, 0, 0)


def code(*insns: tuple[int, int, int, int, int]) -> Code:
    return Code("made", [Insn(*each) for each in insns])


@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_decode(byteorder: Literal["little", "big"]) -> None:
    order = "<" if byteorder == "little" else ">"
    registers = 0x62 if byteorder == "little" else 0x26
    data = struct.pack(order + "BBhi", 0x7B, registers, -8, -1)
    assert i.decode(data, byteorder) == [Insn(0x7B, 2, 6, -8, -1)]
    # What is no whole instruction is left out.
    assert i.decode(data + b"\x95\0\0", byteorder) == [Insn(0x7B, 2, 6, -8, -1)]
    assert i.decode(b"", byteorder) == []


def test_a_load_of_64_bits() -> None:
    insns = i.decode(struct.pack("<BBhiBBhi", 0x18, 1, 0, -2, 0, 0, 0, 0x7FFFFFFF), "little")
    assert i.imm64(insns, 0) == 0x7FFFFFFF_FFFFFFFE
    assert i.successors(insns, 0) == ()
    assert i.successors([*insns, EXIT], 0) == (2,)
    # Cut off, its upper half is 0.
    assert i.imm64(insns[:1], 0) == 0xFFFFFFFE


@pytest.mark.parametrize(
    ("insn", "follow"),
    [
        (MOV0, (6,)),
        (EXIT, ()),
        (Insn(0x05, 0, 0, 2, 0), (8,)),
        (Insn(0x05, 0, 0, -6, 0), (0,)),
        (Insn(0x06, 0, 0, 0, 3), (9,)),  # gotol
        (Insn(0x15, 1, 0, 2, 7), (6, 8)),
        (Insn(0x1D, 1, 2, -1, 0), (6, 5)),
        (Insn(0x16, 1, 0, 2, 7), (6, 8)),
        (Insn(0xDE, 1, 2, 1, 0), (6, 7)),
        (Insn(0xE5, 0, 0, 4, 0), (6, 10)),  # may_goto
        (Insn(0x85, 0, 0, 0, 1), (6,)),
        (Insn(0x85, 0, 1, 0, -3), (6,)),
        (Insn(0x0D, 1, 0, 0, 0), ()),  # to where a register says
        (Insn(0x15, 1, 0, 200, 7), (6,)),  # out of the program
        (Insn(0x05, 0, 0, -200, 0), ()),
        (Insn(0xF5, 0, 0, 1, 0), (6,)),  # no jump that is known
    ],
)
def test_successors(insn: Insn, follow: tuple[int, ...]) -> None:
    insns = [MOV0] * 5 + [insn] + [MOV0] * 5 + [EXIT]
    assert i.successors(insns, 5) == follow


def test_blocks() -> None:
    found = i.blocks(
        code(
            (0x18, 1, 0, 0, 1),
            (0, 0, 0, 0, 0),
            (0x15, 1, 0, 1, 0),
            (0x85, 0, 1, 0, 1),
            (0x95, 0, 0, 0, 0),
            (0xB7, 0, 0, 0, 3),
            (0x95, 0, 0, 0, 0),
        )
    )
    assert {start: (b.end, b.successors) for start, b in found.items()} == {
        0: (3, (3, 4)),
        3: (4, (4,)),
        4: (5, ()),
        5: (7, ()),
    }


def test_calls() -> None:
    made = code(
        (0x85, 0, 0, 0, 155),
        (0x85, 0, 1, 0, 2),
        (0x85, 0, 2, 0, 12345),
        (0x85, 0, 0, 0, 12),
        (0x8D, 1, 0, 0, 0),
        (0x85, 0, 1, 0, 1000),
    )
    assert list(i.calls(made)) == [
        Call(0, "helper", 155),
        Call(1, "function", 4),
        Call(2, "kfunc", None),
        Call(3, "tail", 12),
        Call(4, "unknown", None),
        Call(5, "function", None),
    ]
    dumped = Code("dumped", [Insn(0x85, 0, 1, 1, 9), Insn(0x85, 0, 0, 0, 700), EXIT], helpers={})
    assert dumped.call(1) == Call(1, "helper", None)
    by_offset = Code("dumped", dumped.insns, calls_by_offset=True)
    assert by_offset.call(0) == Call(0, "function", 2)


SOURCE = """
#define SEC(name) __attribute__((section(name), used))
static unsigned long long (*const redirect)(unsigned, unsigned long long) = (void *)23;
static __attribute__((noinline)) void add(int *a, long b) { __sync_fetch_and_add(a, b); }
SEC("tc") int all(int *skb) {
  unsigned long sum = 0, n = skb[1];
  for (int k = 0; k < skb[0]; k++)
    sum += (unsigned)k * n / 3 % 7 - (sum >> 2) + (skb[2] > sum ? 4 : ~sum);
  if ((unsigned)skb[3] > 0x12345678) sum ^= 0x123456789abcdefULL;
  sum += __builtin_bswap32(skb[4]) + *(unsigned char *)skb + *(unsigned short *)skb;
  int spill[4] = {1, 2, 3, 4};
  add(spill, sum);
  return skb[5] == 2 ? redirect(n, 0) : spill[n & 3];
}
"""

_LINE = re.compile(r"^\s*(\d+):\t((?:[0-9a-f]{2} ){7}[0-9a-f]{2})\t(.*)$")


@pytest.mark.parametrize("cpu", ["v1", "v2", "v3"])
def test_the_disassembler_agrees(cpu: str, tmp_path: Path) -> None:
    clang, objdump = shutil.which("clang"), shutil.which("llvm-objdump")
    assert clang and objdump, "the tests need clang and llvm"
    source, made = tmp_path / "all.c", tmp_path / "all.o"
    source.write_text(SOURCE)
    subprocess.run(
        [clang, "-O2", "-target", "bpf", f"-mcpu={cpu}", "-c", source, "-o", made], check=True
    )
    dump = subprocess.run(
        [objdump, "-d", "--section=tc", made], check=True, capture_output=True, text=True
    ).stdout
    said = {int(m[1]): m[3] for line in dump.splitlines() if (m := _LINE.match(line))}
    function = open_object(made).program("all").function
    insns = i.decode(function.insns, "little")
    assert len(said) > 40
    kinds: dict[str, Callable[[Insn], bool]] = {
        "goto": lambda n: i.jump_target(insns, insns.index(n)) is not None,
        "exit": i.is_exit,
        "call": lambda n: n.code == i.JMP | i.CALL,
        " ll": lambda n: n.code == i.LD_IMM64,
    }
    for index, words in said.items():
        for word, holds in kinds.items():
            assert (word in words) is holds(insns[index]), (index, words)
        if target := re.search(r"goto \+?(-?\d+)", words):
            assert i.jump_target(insns, index) == index + 1 + int(target[1])
        if exact := re.fullmatch(r"[rw](\d+) = (-?\d+)", words):
            assert (insns[index].dst, insns[index].imm) == (int(exact[1]), int(exact[2]))


def test_bytes_that_are_no_program_raise_nothing() -> None:
    for seed in range(500):
        chance = random.Random(seed)
        data = chance.randbytes(8 * chance.choice([1, 2, 3, 17, 60]))
        for byteorder in ("little", "big"):
            insns = i.decode(data, byteorder)  # type: ignore[arg-type]
            made = Code("noise", insns)
            blocks = i.blocks(made)
            assert set(blocks) >= {0}
            assert all(s in blocks for block in blocks.values() for s in block.successors)
            list(i.calls(made))
            assert set(liveness(made, blocks).live) == set(blocks)


def test_what_is_live() -> None:
    made = code(
        (0xB7, 6, 0, 0, 1),
        (0x7B, 10, 6, -8, 0),
        (0x15, 1, 0, 1, 0),
        (0xB7, 0, 0, 0, 3),
        (0x79, 2, 10, -8, 0),
        (0x85, 0, 0, 0, 5),
        (0x95, 0, 0, 0, 0),
    )
    found = liveness(made, i.blocks(made))
    assert found.slots == (-8,)
    slot = 1 << 16
    # The frame pointer is live wherever it is used; r2 is what the helper is passed.
    assert found.live[0] == 1 << 1 | 1 << 10
    assert found.live[3] == found.live[4] == slot | 1 << 10
    assert found.passed[4] == 0b111010


@pytest.mark.parametrize(
    ("op", "off", "left", "right", "bits", "result"),
    [
        (i.ADD, 0, 2**64 - 1, 2, 64, 1),
        (i.ADD, 0, 2**32 - 1, 2, 32, 1),
        (i.SUB, 0, 0, 1, 32, 2**32 - 1),
        (i.MUL, 0, 2**63, 2, 64, 0),
        (i.DIV, 0, 7, 0, 64, 0),
        (i.MOD, 0, 7, 0, 64, 7),
        (i.DIV, 0, 2**64 - 7, 2, 64, (2**64 - 7) // 2),
        (i.DIV, 1, 2**64 - 7, 2, 64, 2**64 - 3),
        (i.MOD, 1, 2**64 - 7, 2, 64, 2**64 - 1),
        (i.MOD, 1, 7, 2**32 - 2, 32, 1),
        (i.LSH, 0, 1, 65, 64, 2),
        (i.LSH, 0, 1, 33, 32, 2),
        (i.RSH, 0, 2**63, 63, 64, 1),
        (i.ARSH, 0, 2**63, 63, 64, 2**64 - 1),
        (i.ARSH, 0, 2**31, 31, 32, 2**32 - 1),
        (i.NEG, 0, 1, 0, 32, 2**32 - 1),
        (i.OR, 0, 4, 3, 64, 7),
        (i.AND, 0, 6, 3, 64, 2),
        (i.XOR, 0, 6, 3, 64, 5),
        (i.DIV, 9, 7, 2, 64, None),
        (0xE0, 0, 7, 2, 64, None),
    ],
)
def test_arithmetic(
    op: int, off: int, left: int, right: int, bits: Literal[32, 64], result: int | None
) -> None:
    assert alu.compute(op, off, left, right, bits) == result


def test_moves_swaps_and_conditions() -> None:
    assert alu.move(0, 2**64 - 1, 32) == 2**32 - 1
    assert alu.move(8, 0x80, 64) == 2**64 - 128
    assert alu.move(16, 0x8000, 32) == 2**32 - 0x8000
    assert alu.move(32, 0x80000000, 32) is None
    assert alu.move(1, 5, 64) is None  # a cast between address spaces
    assert alu.swap(0xD4, 16, 0x11223344, "little") == 0x3344
    assert alu.swap(0xDC, 16, 0x11223344, "little") == 0x4433
    assert alu.swap(0xD4, 32, 0x11223344, "big") == 0x44332211
    assert alu.swap(0xD7, 32, 0x11223344, "little") == 0x44332211
    assert alu.swap(0xD7, 8, 1, "little") is None
    assert alu.holds(i.JSGT, 2**64 - 1, 0, 64) is False
    assert alu.holds(i.JGT, 2**64 - 1, 0, 64) is True
    assert alu.holds(i.JSLT, 0xFFFFFFFF, 0, 32) is True
    assert alu.holds(i.JSET, 6, 1, 64) is False
    assert alu.holds(i.JCOND, 0, 0, 64) is None
