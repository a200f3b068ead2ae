"""Instructions of a BPF program: taken apart, where each leads, what it calls, what is live where.

The encoding is that of Documentation/bpf/standardization/instruction-set.rst. Nothing here raises
for bytes that no verifier would take: they lead nowhere.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from netbpf.bpf.macros import BPF_INSN_SIZE, BPF_PSEUDO_CALL, BPF_PSEUDO_KFUNC_CALL

# The low three bits of an opcode: its class.
LD, LDX, ST, STX, ALU, JMP, JMP32, ALU64 = range(8)

# The high four bits of an arithmetic opcode.
ADD, SUB, MUL, DIV, OR, AND, LSH, RSH = range(0x00, 0x80, 0x10)
NEG, MOD, XOR, MOV, ARSH, END = range(0x80, 0xE0, 0x10)

# The high four bits of a jump's opcode. JCOND with source 0 is may_goto.
JA, JEQ, JGT, JGE, JSET, JNE, JSGT, JSGE = range(0x00, 0x80, 0x10)
CALL, EXIT, JLT, JLE, JSLT, JSLE, JCOND = range(0x80, 0xF0, 0x10)

# The high three bits of a load's or store's opcode.
IMM, ABS, IND, MEM, MEMSX, ATOMIC = 0x00, 0x20, 0x40, 0x60, 0x80, 0xC0
SIZES = {0x00: 4, 0x08: 2, 0x10: 1, 0x18: 8}

# Bits of an atomic operation's immediate (include/uapi/linux/bpf.h).
FETCH, CMPXCHG, LOAD_ACQ, STORE_REL = 0x01, 0xF1, 0x100, 0x110

X = 0x08
"""The bit of an arithmetic or jump opcode that makes its operand a register."""

LD_IMM64 = 0x18
TAIL_CALL = 12
"""The number of the helper bpf_tail_call."""

FRAME = 10
"""The register that holds the frame pointer."""

CallKind = Literal["helper", "function", "kfunc", "tail", "unknown"]


class Insn(NamedTuple):
    """One instruction as it is encoded; ``imm`` and ``off`` are signed."""

    code: int
    dst: int
    src: int
    off: int
    imm: int


class Call(NamedTuple):
    """The call ``at`` an index; ``target`` is a helper's number, or where a function starts.

    None where it is not known, as of kernel functions.
    """

    at: int
    kind: CallKind
    target: int | None


class Place(NamedTuple):
    """From instruction ``start`` on, the code comes from this line."""

    start: int
    file: str | None
    line: int


@dataclass(frozen=True, slots=True)
class Code:
    """A program's instructions with those of its functions, and what is known of them besides.

    ``opaque`` are the indexes of instructions whose immediate or offset a loader still changes:
    where a branch depends on that, nobody can tell yet which way it leads.
    ``data`` says of loads of an address, by index, which constant bytes (by their name in
    ``contents``) at which offset it is. ``helpers`` maps the immediate of a call to the helper's
    number where it is not the number itself. ``calls_by_offset``: a call of a function keeps its
    distance in ``off`` (the kernel's dumps) and not in ``imm``.
    """

    name: str
    insns: Sequence[Insn] = field(repr=False)
    byteorder: Literal["little", "big"] = "little"
    places: tuple[Place, ...] = field(default=(), repr=False)
    opaque: frozenset[int] = frozenset()
    data: Mapping[int, tuple[str, int]] = field(default_factory=dict, repr=False)
    contents: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    helpers: Mapping[int, int] | None = field(default=None, repr=False)
    calls_by_offset: bool = False

    def call(self, index: int) -> Call:
        """What the call at ``index`` calls."""
        insn = self.insns[index]
        if insn.code != JMP | CALL:
            return Call(index, "unknown", None)
        if insn.src == BPF_PSEUDO_CALL:
            distance = insn.off if self.calls_by_offset else insn.imm
            target = index + 1 + distance
            return Call(index, "function", target if 0 <= target < len(self.insns) else None)
        if insn.src == BPF_PSEUDO_KFUNC_CALL:
            return Call(index, "kfunc", None)
        number = insn.imm if self.helpers is None else self.helpers.get(insn.imm)
        return Call(index, "tail" if number == TAIL_CALL else "helper", number)


def decode(data: bytes, byteorder: Literal["little", "big"]) -> list[Insn]:
    """The instructions of ``data``, one for each 8 bytes.

    The second half of a 16-byte load is one of code 0, whose immediate is the high part.
    """
    whole = memoryview(data)[: len(data) // BPF_INSN_SIZE * BPF_INSN_SIZE]
    if byteorder == "little":
        parts = struct.iter_unpack("<BBhi", whole)
        return [Insn(code, regs & 15, regs >> 4, off, imm) for code, regs, off, imm in parts]
    parts = struct.iter_unpack(">BBhi", whole)
    return [Insn(code, regs >> 4, regs & 15, off, imm) for code, regs, off, imm in parts]


def imm64(insns: Sequence[Insn], index: int) -> int:
    """The value of the 16-byte load at ``index``, unsigned."""
    high = insns[index + 1].imm if index + 1 < len(insns) else 0
    return (high & 0xFFFFFFFF) << 32 | insns[index].imm & 0xFFFFFFFF


def is_exit(insn: Insn) -> bool:
    """Whether the function ends here."""
    return insn.code == JMP | EXIT


def jump_target(insns: Sequence[Insn], index: int) -> int | None:
    """Where the jump at ``index`` leads, if it is one that says so; it may lie outside."""
    code, _, _, off, imm = insns[index]
    kind = code & 7
    if kind not in (JMP, JMP32):
        return None
    op = code & 0xF0
    if op == JA:
        # With X it jumps to where a register says; JMP32 has the distance in the immediate.
        return None if code & X else index + 1 + (imm if kind == JMP32 else off)
    if op in (CALL, EXIT) or op > JCOND:
        return None
    return index + 1 + off


def successors(insns: Sequence[Insn], index: int) -> tuple[int, ...]:
    """The instructions that may run after that at ``index``: the next one first.

    A call leads to what stands behind it. What lies outside of the program is left out.
    """
    insn = insns[index]
    kind, op = insn.code & 7, insn.code & 0xF0
    found: tuple[int | None, ...]
    if insn.code == LD_IMM64:
        found = (index + 2,)
    elif kind in (JMP, JMP32) and op == JA:
        found = (jump_target(insns, index),)
    elif is_exit(insn):
        found = ()
    else:
        found = (index + 1, jump_target(insns, index))
    return tuple(each for each in found if each is not None and 0 <= each < len(insns))


def leaders(insns: Sequence[Insn]) -> set[int]:
    """Where basic blocks start: jumps lead there, or a jump or the end of a function is before."""
    found = {0} if insns else set()
    for index, insn in enumerate(insns):
        kind = insn.code & 7
        if kind not in (JMP, JMP32) or insn.code & 0xF0 == CALL:
            continue
        found.add(index + 1)
        target = jump_target(insns, index)
        if target is not None:
            found.add(target)
    return {index for index in found if 0 <= index < len(insns)}


@dataclass(frozen=True, slots=True)
class Block:
    """A basic block: the instructions from ``start`` to before ``end``, and where it leads."""

    start: int
    end: int
    successors: tuple[int, ...]


def blocks(code: Code) -> dict[int, Block]:
    """The basic blocks by where they start. Functions are blocks that no other leads to."""
    insns = code.insns
    starts = leaders(insns)
    starts.update(
        call.target for call in calls(code) if call.kind == "function" and call.target is not None
    )
    ordered = sorted(starts)
    found = {}
    for start, end in zip(ordered, [*ordered[1:], len(insns)], strict=True):
        last = end - 1
        if last > start and insns[last - 1].code == LD_IMM64:
            last -= 1
        found[start] = Block(start, end, tuple(s for s in successors(insns, last) if s in starts))
    return found


def calls(code: Code) -> Iterator[Call]:
    """All calls, in order."""
    for index, insn in enumerate(code.insns):
        if insn.code & 7 == JMP and insn.code & 0xF0 == CALL:
            yield code.call(index)
