"""Which registers and stack slots a program still reads, at each place where paths meet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from netbpf.lint import insns as i
from netbpf.lint.insns import Block, Code, Insn

REGISTERS = 16
"""As many as an instruction can name; the kernel's own (BPF_REG_AX) is one of them."""

ARGUMENTS = 0b111110
"""The registers that hold what is passed to a call, and do not outlive it."""

_SCRATCH = ARGUMENTS | 1

# More than that are not looked at: what stands there is unknown where paths meet.
_MAX_SLOTS = 32


@dataclass(frozen=True, slots=True)
class Liveness:
    """What is live where a block starts, as bits.

    Bit N is register N, bit 16 + N the N-th of ``slots``, which are offsets from the frame pointer.
    ``passed`` has the registers that only matter to a helper, which looks at what they point to.
    """

    slots: tuple[int, ...]
    live: Mapping[int, int]
    passed: Mapping[int, int]


def liveness(code: Code, blocks: Mapping[int, Block]) -> Liveness:
    """What is live at the start of each block, by going through them backwards until it is."""
    insns = code.insns
    loaded = sorted({n.off for n in insns if n.code & 7 == i.LDX and n.src == i.FRAME})
    slots = tuple(loaded[-_MAX_SLOTS:])
    bit_of = {offset: REGISTERS + number for number, offset in enumerate(slots)}
    weak = REGISTERS + len(slots)
    effects = {start: _effect(code, insns, block, bit_of, weak) for start, block in blocks.items()}
    live = dict.fromkeys(blocks, 0)
    callers: dict[int, list[int]] = {start: [] for start in blocks}
    for start, block in blocks.items():
        for successor in block.successors:
            callers[successor].append(start)
    pending = sorted(blocks)
    queued = set(pending)
    while pending:
        start = pending.pop()
        queued.discard(start)
        after = 0
        for successor in blocks[start].successors:
            after |= live[successor]
        used, written = effects[start]
        before = used | after & ~written
        if before != live[start]:
            live[start] = before
            for caller in callers[start]:
                if caller not in queued:
                    queued.add(caller)
                    pending.append(caller)
    strong = (1 << weak) - 1
    return Liveness(
        slots,
        {start: bits & strong for start, bits in live.items()},
        {start: bits >> weak & ARGUMENTS for start, bits in live.items()},
    )


def _effect(
    code: Code, insns: Sequence[Insn], block: Block, bit_of: Mapping[int, int], weak: int
) -> tuple[int, int]:
    """What the block reads before it writes it, and what it writes."""
    used = written = 0
    for index in range(block.end - 1, block.start - 1, -1):
        reads, writes = _reads_writes(code, insns[index], index, bit_of, weak)
        used = reads | used & ~writes
        written |= writes
    return used, written


def _reads_writes(
    code: Code, insn: Insn, index: int, bit_of: Mapping[int, int], weak: int
) -> tuple[int, int]:
    opcode, dst, src, off, imm = insn
    kind = opcode & 7
    to, by = 1 << dst, 1 << src
    to_both = to | (to & ARGUMENTS) << weak
    if kind in (i.ALU, i.ALU64):
        op = opcode & 0xF0
        if op == i.MOV:
            return by if opcode & i.X else 0, to_both
        return (to | by if opcode & i.X and op not in (i.NEG, i.END) else to), to_both
    if kind == i.LDX:
        slot = 1 << bit_of[off] if src == i.FRAME and off in bit_of else 0
        return by | slot, to_both
    if kind == i.LD:
        if opcode == i.LD_IMM64:
            return 0, to_both
        mode = opcode & 0xE0
        if mode in (i.ABS, i.IND):
            return (by if mode == i.IND else 0) | 1 << 6, _SCRATCH | ARGUMENTS << weak
        return 0, 0
    slot = 1 << bit_of[off] if dst == i.FRAME and off in bit_of and opcode & 0xE0 == i.MEM else 0
    if kind == i.ST:
        return to, slot
    if kind == i.STX:
        # Of an atomic operation, what it may write it has read as well, or it is never constant.
        return to | by | (1 if opcode & 0xE0 == i.ATOMIC and imm == i.CMPXCHG else 0), slot
    op = opcode & 0xF0
    if op == i.EXIT:
        return 1, 0
    if op == i.CALL:
        passed = ARGUMENTS if code.call(index).kind == "function" else ARGUMENTS << weak
        return passed, _SCRATCH | ARGUMENTS << weak
    if op == i.JA:
        return to if opcode & i.X else 0, 0
    return (to | by if opcode & i.X else to), 0
