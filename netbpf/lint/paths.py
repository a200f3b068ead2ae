"""What a program can return and which helpers it calls: its paths, followed with known constants.

A path is followed with what is certain of registers and stack slots; where it depends on what is
not known, both ways are taken. So a constant that is found is one that some path returns. What is
too much to follow becomes unknown, which says nothing: a loop or a program that branches without
end never takes long, and bytes that no verifier would take never raise.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from netbpf.bpf.macros import BPF_PSEUDO_FUNC
from netbpf.lint import alu
from netbpf.lint import insns as i
from netbpf.lint.insns import Code, Insn
from netbpf.lint.liveness import REGISTERS, liveness
from netbpf.lint.state import (
    NARROW,
    UNDECIDED,
    Data,
    Frame,
    Key,
    Known,
    State,
    Undecided,
    Value,
    address,
    assume_equal,
    helper_returns,
    join,
    moved,
    one_of_two,
)

# Helpers that call a function of the program, which may write to its caller's stack:
# for_each_map_elem, timer_set_callback, find_vma, loop, user_ringbuf_drain.
_CALL_BACK = frozenset({164, 170, 180, 181, 209})

# Together some 0.2 s at worst. The largest programs in use have some 10,000 instructions.
MAX_INSNS = 1 << 14
_MAX_STEPS = 32_000
# States that are kept apart where paths meet, and values that a function may return.
_MAX_STATES = 24
_MAX_VALUES = 16
# include/linux/bpf_verifier.h: MAX_CALL_FRAMES.
_MAX_DEPTH = 8


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was found out about a program.

    ``returns`` are the codes that it returns for certain on some path, as the hook sees them, with
    the instruction each comes from. ``calls`` are the helpers' numbers by the index of the call, as
    far as paths lead there. ``complete`` is False where some paths were not followed to their end.
    """

    returns: tuple[tuple[int, int], ...]
    calls: dict[int, int]
    complete: bool


def explore(code: Code) -> Outcome:
    """Follow the paths of a program, within bounds."""
    if not 0 < len(code.insns) <= MAX_INSNS:
        return Outcome((), {}, complete=False)
    run = _Run(code)
    found: list[Value] = []
    complete = True
    try:
        run.function(0, (None,) * 5, found)
        complete = run.decided
    except _Enough:
        complete = False
    returns = {
        (alu.signed(value.value, 32), value.origin): None
        for value in found
        if isinstance(value, Known)
    }
    return Outcome(tuple(sorted(returns)), dict(sorted(run.calls.items())), complete)


class _Enough(Exception):
    """The bound of the analysis is reached."""


class _Run:
    """One exploration: what all functions of the program share."""

    def __init__(self, code: Code) -> None:
        self.code = code
        self.insns = code.insns
        self.calls: dict[int, int] = {}
        self.decided = True
        self._steps = _MAX_STEPS
        self._depth = 0
        self._known: dict[tuple[int, tuple[Value, ...]], tuple[Value, ...]] = {}
        blocks = i.blocks(code)
        self._live = liveness(code, blocks)
        arrivals = dict.fromkeys(blocks, 0)
        for block in blocks.values():
            for successor in block.successors:
                arrivals[successor] += 1
        # A loop closes where another arrival is; functions begin with one from outside.
        entries = {0, *(c.target for c in i.calls(code) if c.kind == "function")}
        self._meets = {s for s, n in arrivals.items() if n > 1 or (n and s in entries)}

    def function(self, entry: int, arguments: tuple[Value, ...], found: list[Value]) -> None:
        """Append what the function at ``entry`` returns to ``found``, each value once.

        :raises _Enough: the bound is reached; ``found`` has what was found before.
        """
        regs: list[Value] = [None, *arguments] + [None] * (REGISTERS - 6)
        regs[i.FRAME] = Frame(0)
        pending = [(entry, State(regs, {}, False))]
        met: dict[int, set[Key]] = {}
        wide: dict[int, Key] = {}
        insns, meets, end = self.insns, self._meets, len(self.insns)
        while pending:
            at, state = pending.pop()
            while 0 <= at < end:
                if at in meets:
                    merged = self._meet(at, state, met, wide)
                    if merged is None:
                        break
                    state = merged
                self._steps -= 1
                if self._steps < 0:
                    raise _Enough
                insn = insns[at]
                kind = insn.code & 7
                if kind in (i.ALU, i.ALU64):
                    self._alu(at, insn, state, pending)
                elif kind == i.LDX:
                    self._load(at, insn, state)
                elif kind in (i.ST, i.STX):
                    self._store(at, insn, state)
                elif kind == i.LD:
                    at = self._load_constant(at, insn, state)
                elif insn.code == i.JMP | i.EXIT:
                    if state.regs[0] not in found:
                        found.append(state.regs[0])
                    break
                elif insn.code & 0xF0 == i.CALL:
                    self._call(at, state, pending)
                else:
                    at = self._jump(at, insn, state, pending)
                    continue
                at += 1

    def _meet(
        self, at: int, state: State, met: dict[int, set[Key]], wide: dict[int, Key]
    ) -> State | None:
        """The state to go on with where paths meet; None when that was done before."""
        live, passed = self._live.live[at], self._live.passed[at]
        values: list[object] = [
            value
            if live >> number & 1 or (passed >> number & 1 and isinstance(value, Frame))
            else None
            for number, value in enumerate(state.regs[: i.FRAME])
        ]
        values.append(state.regs[11] if live >> 11 & 1 else None)
        slots = self._live.slots
        if slots:
            bits = live >> REGISTERS
            values += [
                state.slots.get(offset) if bits >> number & 1 else None
                for number, offset in enumerate(slots)
            ]
        key = (*values, state.leaky)
        if (before := wide.get(at)) is not None:
            joined = join(before, key)
            if joined == before:
                return None
            wide[at] = key = joined
        else:
            seen = met.setdefault(at, set())
            if key in seen:
                return None
            if len(seen) >= _MAX_STATES:
                for other in seen:
                    key = join(key, other)
                wide[at] = key
            seen.add(key)
        return self._state(key)

    def _state(self, key: Key) -> State:
        regs: list[Value] = [*key[: i.FRAME], Frame(0), key[i.FRAME]]  # type: ignore[list-item]
        regs += [None] * (REGISTERS - len(regs))
        slots = dict(zip(self._live.slots, key[i.FRAME + 1 : -1], strict=True))
        kept = {offset: slot for offset, slot in slots.items() if slot is not None}
        return State(regs, kept, bool(key[-1]))  # type: ignore[arg-type]

    def _alu(self, at: int, insn: Insn, state: State, pending: list[tuple[int, State]]) -> None:
        code, dst, src, off, imm = insn
        regs, op = state.regs, code & 0xF0
        bits: Literal[32, 64] = 64 if code & 7 == i.ALU64 else 32
        right: Value = Known(imm & alu.ALL, at)
        if op != i.END and code & i.X:
            right = regs[src]
        elif at in self.code.opaque:
            right = UNDECIDED
        if op == i.MOV:
            regs[dst] = moved(at, off, right, bits)
            return
        left = regs[dst]
        if isinstance(left, Undecided) or isinstance(right, Undecided):
            regs[dst] = UNDECIDED
            return
        if isinstance(left, Known) and isinstance(right, Known):
            if op == i.END:
                result = alu.swap(code, imm, left.value, self.code.byteorder)
            else:
                result = alu.compute(op, off, left.value, right.value, bits)
            regs[dst] = None if result is None else Known(result, at)
            return
        number = right.value if isinstance(right, Known) else None
        if (
            bits == 64
            and op in (i.ADD, i.SUB)
            and (isinstance(left, Frame | Data) or isinstance(right, Frame | Data))
        ):
            regs[dst] = address(op, left, right)
            return
        if (op in (i.XOR, i.SUB) and code & i.X and src == dst) or (op == i.AND and number == 0):
            regs[dst] = Known(0, at)
            return
        split = one_of_two(op, number, bits)
        if split is not None and not isinstance(left, Frame | Data):
            # A condition that was made a number: it is the one or the other.
            other = state.copy()
            other.regs[dst] = Known(split, at)
            pending.append((at + 1, other))
            regs[dst] = Known(0, at)
            return
        regs[dst] = NARROW if bits == 32 and op != i.END else None

    def _load(self, at: int, insn: Insn, state: State) -> None:
        code, dst, src, off, _ = insn
        size, mode = i.SIZES[code & 0x18], code & 0xE0
        found: Value = None if size == 8 or mode != i.MEM else NARROW
        base = state.regs[src]
        if isinstance(base, Undecided):
            found = UNDECIDED
        elif at in self.code.opaque or mode not in (i.MEM, i.MEMSX):
            pass
        elif isinstance(base, Frame) and base.offset is not None:
            slot = state.slots.get(base.offset + off)
            if slot is not None and slot[0] == size:
                found = slot[1]
        elif isinstance(base, Data):
            data, start = self.code.contents.get(base.name, b""), base.offset + off
            if 0 <= start <= len(data) - size:
                value = int.from_bytes(data[start : start + size], self.code.byteorder)
                found = Known(value, at)
        if mode == i.MEMSX:
            known = found.value if isinstance(found, Known) else None
            if known is not None:
                found = Known(alu.signed(known, size * 8) & alu.ALL, at)
            elif not isinstance(found, Undecided):
                found = None
        state.regs[dst] = found

    def _store(self, at: int, insn: Insn, state: State) -> None:
        code, dst, src, off, imm = insn
        size, mode = i.SIZES[code & 0x18], code & 0xE0
        value: Value
        if mode == i.MEM and code & 7 == i.STX:
            value = state.regs[src]
        elif mode == i.MEM:
            value = UNDECIDED if at in self.code.opaque else Known(imm & alu.ALL, at)
        elif mode == i.ATOMIC and code & 7 == i.STX:
            value = None
            if imm == i.LOAD_ACQ:
                state.regs[dst] = None
                return
            if imm == i.CMPXCHG:
                state.regs[0] = None
            elif imm & i.FETCH:
                state.regs[src] = None
        else:
            # The kernel's own speculation barriers have the class of a store.
            return
        base = state.regs[dst]
        if isinstance(base, Frame):
            start = None if base.offset is None else base.offset + off
            state.forget_stack(start, (start or 0) + size)
            if start is not None and isinstance(value, Known):
                state.slots[start] = (size, value._replace(value=value.value & _mask(size)))
            elif start is not None and (
                isinstance(value, Undecided) or (isinstance(value, Frame | Data) and size == 8)
            ):
                state.slots[start] = (size, value)
        elif state.leaky:
            state.forget_stack()
        if isinstance(value, Frame):
            state.leaky = True

    def _load_constant(self, at: int, insn: Insn, state: State) -> int:
        """Run a load of class LD; returns the index of its last half."""
        code, dst, src, _, imm = insn
        if code != i.LD_IMM64:
            if code & 0xE0 in (i.ABS, i.IND):
                state.regs[0:6] = [NARROW, None, None, None, None, None]
            return at
        value: Value = None
        if at in self.code.data:
            value = Data(*self.code.data[at])
        elif at in self.code.opaque:
            value = UNDECIDED
        elif src == 0:
            value = Known(i.imm64(self.insns, at), at)
        elif src == BPF_PSEUDO_FUNC and self.code.helpers is None:
            # Somebody will call it: what it calls counts, what it returns is the caller's.
            self._returned(at + 1 + imm, (None,) * 5)
        state.regs[dst] = value
        return at + 1

    def _call(self, at: int, state: State, pending: list[tuple[int, State]]) -> None:
        call, regs = self.code.call(at), state.regs
        passed = [value for value in regs[1:6] if isinstance(value, Frame)]
        results: Iterable[Value] = (None,)
        if call.kind == "function":
            if call.target is not None:
                live = self._live.live.get(call.target, 0)
                arguments = tuple(
                    None if isinstance(value, Frame) or not live >> number & 1 else value
                    for number, value in enumerate(regs[1:6], 1)
                )
                results = self._returned(call.target, arguments)
        elif call.target is not None:
            self.calls[at] = call.target
            results = helper_returns(at, call.target, regs)
        if state.leaky or (
            passed and (call.kind != "helper" or call.target is None or call.target in _CALL_BACK)
        ):
            state.forget_stack()
            state.leaky = state.leaky or call.kind == "kfunc"
        else:
            for frame in passed:
                state.forget_stack(frame.offset)
        regs[1:6] = [None] * 5
        first, *others = results
        for value in others:
            other = state.copy()
            other.regs[0] = value
            pending.append((at + 1, other))
        regs[0] = first

    def _returned(self, entry: int, arguments: tuple[Value, ...]) -> tuple[Value, ...]:
        """What the function at ``entry`` returns when it is called so; never nothing."""
        key = entry, arguments
        if key in self._known:
            return self._known[key]
        if self._depth >= _MAX_DEPTH or not 0 <= entry < len(self.insns):
            return (None,)
        # A function that comes back to itself is nothing that the verifier takes.
        self._known[key] = (None,)
        found: list[Value] = []
        self._depth += 1
        self.function(entry, arguments, found)
        self._depth -= 1
        results: tuple[Value, ...] = tuple(found) if len(found) <= _MAX_VALUES else (None,)
        # Where no path is known to come back, what follows is not known to run.
        results = results or (UNDECIDED,)
        self._known[key] = results
        return results

    def _jump(self, at: int, insn: Insn, state: State, pending: list[tuple[int, State]]) -> int:
        """Where the path goes on; the other way, where both are open, is left for later."""
        target = i.jump_target(self.insns, at)
        op = insn.code & 0xF0
        if target is None:
            self.decided = False
            return -1
        if op == i.JA:
            return target
        bits: Literal[32, 64] = 64 if insn.code & 7 == i.JMP else 32
        left = state.regs[insn.dst]
        right: Value = Known(insn.imm & alu.ALL, at)
        if insn.code & i.X:
            right = state.regs[insn.src]
        if isinstance(left, Undecided) or isinstance(right, Undecided) or at in self.code.opaque:
            self.decided = False
            return -1
        if op != i.JCOND and isinstance(left, Known) and isinstance(right, Known):
            taken = alu.holds(op, left.value, right.value, bits)
            if taken is not None:
                return target if taken else at + 1
        other = state.copy()
        if op in (i.JEQ, i.JNE):
            equal = other if op == i.JEQ else state
            assume_equal(equal, insn, left, right, bits, at)
        pending.append((target, other))
        return at + 1


def _mask(size: int) -> int:
    return (1 << size * 8) - 1
