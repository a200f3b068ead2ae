"""What is certain at one place of a program's path, and what an instruction makes of it."""

from __future__ import annotations

from typing import Literal, NamedTuple

from netbpf.lint import alu
from netbpf.lint import insns as i
from netbpf.lint.insns import Insn

REDIRECT, REDIRECT_NEIGH, REDIRECT_PEER = 23, 152, 155
BPF_F_INGRESS = 1
TC_ACT_SHOT, TC_ACT_REDIRECT = 2, 7


class Known(NamedTuple):
    """A constant, without sign, and the instruction that it comes from."""

    value: int
    origin: int


class Frame(NamedTuple):
    """The address of a place on the function's stack; None: somewhere on it."""

    offset: int | None


class Data(NamedTuple):
    """The address of constant bytes."""

    name: str
    offset: int


class Narrow(NamedTuple):
    """A number that is not known, but has zeros in its upper half."""

    bits: Literal[32]


class Undecided(NamedTuple):
    """What only loading the program will tell: nothing that depends on it is certain."""

    loader: str = "loader"


Value = Known | Frame | Data | Narrow | Undecided | None

NARROW = Narrow(32)
UNDECIDED = Undecided()
Slot = tuple[int, Value]
Key = tuple[object, ...]


class State:
    """What is certain at one place of a path; ``leaky``: any address may lead to the stack."""

    __slots__ = ("leaky", "regs", "slots")

    def __init__(self, regs: list[Value], slots: dict[int, Slot], leaky: bool) -> None:
        self.regs = regs
        self.slots = slots
        self.leaky = leaky

    def copy(self) -> State:
        return State(self.regs.copy(), self.slots.copy(), self.leaky)

    def forget_stack(self, start: int | None = None, end: int = 0) -> None:
        """Slots from ``start`` to before ``end`` are written by somebody; None: all of them."""
        if not self.slots:
            return
        if start is None:
            self.slots.clear()
            return
        for offset in [o for o, (size, _) in self.slots.items() if o < end and o + size > start]:
            del self.slots[offset]


def assume_equal(
    state: State, insn: Insn, left: Value, right: Value, bits: Literal[32, 64], at: int
) -> None:
    """Two values were found equal: what is known of one holds for the other."""
    for register, unknown, known in ((insn.dst, left, right), (insn.src, right, left)):
        if not isinstance(known, Known) or not (unknown is None or unknown == NARROW):
            continue
        whole = bits == 64 or (unknown == NARROW)
        if whole and (register == insn.dst or insn.code & i.X):
            value = known.value & (alu.ALL if bits == 64 else alu.LOW)
            state.regs[register] = Known(value, at)


def moved(at: int, off: int, value: Value, bits: Literal[32, 64]) -> Value:
    if isinstance(value, Known):
        result = alu.move(off, value.value, bits)
        return None if result is None else Known(result, value.origin)
    if isinstance(value, Undecided) or (off == 0 and bits == 64):
        return value
    return NARROW if off == 0 else None


def address(op: int, left: Value, right: Value) -> Value:
    """An address with something added or taken away."""
    if isinstance(right, Frame | Data) and op == i.ADD:
        left, right = right, left
    if not isinstance(left, Frame | Data) or isinstance(right, Frame | Data):
        return None
    known = isinstance(right, Known) and left.offset is not None
    if not known:
        return Frame(None) if isinstance(left, Frame) else None
    assert isinstance(right, Known) and left.offset is not None
    distance = alu.signed(right.value, 64)
    offset = left.offset + (distance if op == i.ADD else -distance)
    return Frame(offset) if isinstance(left, Frame) else Data(left.name, offset)


def one_of_two(op: int, number: int | None, bits: Literal[32, 64]) -> int | None:
    """What an operation on any number makes besides 0, where it makes only one other number."""
    if number is None:
        return None
    mask = alu.ALL if bits == 64 else alu.LOW
    number &= mask
    if op == i.AND and number & (number - 1) == 0:
        return number
    if number == bits - 1:
        return {i.RSH: 1, i.ARSH: mask}.get(op)
    return None


def helper_returns(at: int, number: int, regs: list[Value]) -> tuple[Value, ...]:
    """What a helper may return: net/core/filter.c has these return a verdict."""
    redirected, refused = Known(TC_ACT_REDIRECT, at), Known(TC_ACT_SHOT, at)
    if number == REDIRECT_PEER:
        return (redirected,) if _is_zero(regs[2]) else (redirected, refused)
    if number == REDIRECT:
        flags = regs[2]
        plain = isinstance(flags, Known) and flags.value in (0, BPF_F_INGRESS)
        return (redirected,) if plain else (redirected, refused)
    if number == REDIRECT_NEIGH:
        plain = _is_zero(regs[3]) and _is_zero(regs[4])
        return (redirected,) if plain else (redirected, refused)
    return (None,)


def _is_zero(value: Value) -> bool:
    return isinstance(value, Known) and value.value == 0


def join(one: Key, two: Key) -> Key:
    """What is certain of both; an address of the stack that gets lost may turn up anywhere."""
    leaky = bool(one[-1] or two[-1])
    values: list[object] = []
    for a, b in zip(one[:-1], two[:-1], strict=True):
        if a == b:
            values.append(a)
        elif isinstance(a, Frame) and isinstance(b, Frame):
            values.append(Frame(None))
        elif UNDECIDED in (a, b):
            leaky = leaky or isinstance(a, Frame) or isinstance(b, Frame)
            values.append(UNDECIDED)
        else:
            leaky = leaky or isinstance(a, Frame) or isinstance(b, Frame)
            values.append(None)
    return (*values, leaky)
