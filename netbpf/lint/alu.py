"""Arithmetic of BPF on constants: what an instruction makes of two numbers."""

from __future__ import annotations

from typing import Literal

from netbpf.lint import insns as i

ALL = 0xFFFFFFFFFFFFFFFF
LOW = 0xFFFFFFFF


def signed(value: int, bits: int) -> int:
    """The low ``bits`` of ``value`` as a signed number."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def compute(op: int, off: int, left: int, right: int, bits: Literal[32, 64]) -> int | None:
    """What ``left op right`` is, without sign; None for an operation that is not known.

    A 32-bit result has zeros above. ``off`` 1 makes a division signed. Dividing by 0 gives 0, and
    the remainder is then what was to be divided.
    """
    mask = ALL if bits == 64 else LOW
    left, right = left & mask, right & mask
    shift = right & (bits - 1)
    match op:
        case i.ADD:
            result = left + right
        case i.SUB:
            result = left - right
        case i.MUL:
            result = left * right
        case i.OR:
            result = left | right
        case i.AND:
            result = left & right
        case i.XOR:
            result = left ^ right
        case i.LSH:
            result = left << shift
        case i.RSH:
            result = left >> shift
        case i.ARSH:
            result = signed(left, bits) >> shift
        case i.NEG:
            result = -left
        case i.DIV | i.MOD if off in (0, 1):
            result = _divide(op, off == 1, left, right, bits)
        case _:
            return None
    return result & mask


def _divide(op: int, with_sign: bool, left: int, right: int, bits: int) -> int:
    if right == 0:
        return 0 if op == i.DIV else left
    if not with_sign:
        return left // right if op == i.DIV else left % right
    a, b = signed(left, bits), signed(right, bits)
    # As C does: towards zero, and the remainder has the sign of what was divided.
    quotient = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
    return quotient if op == i.DIV else a - quotient * b


def move(off: int, value: int, bits: Literal[32, 64]) -> int | None:
    """What a move of ``value`` leaves: ``off`` is 0, or from how many bits the sign is extended."""
    mask = ALL if bits == 64 else LOW
    if off == 0:
        return value & mask
    if off in (8, 16, 32) and off < bits:
        return signed(value, off) & mask
    return None


def swap(code: int, size: int, value: int, byteorder: Literal["little", "big"]) -> int | None:
    """What a byte swap leaves of ``value``; towards the machine's own order it only truncates.

    :param code: the whole opcode: with X to big endian, of class ALU64 always swapping.
    """
    if size not in (16, 32, 64):
        return None
    value &= (1 << size) - 1
    to_big = bool(code & i.X)
    if code & 7 == i.ALU and to_big == (byteorder == "big"):
        return value
    return int.from_bytes(value.to_bytes(size // 8, "little"), "big")


def holds(op: int, left: int, right: int, bits: Literal[32, 64]) -> bool | None:
    """Whether a conditional jump is taken; None for a condition that is not known."""
    mask = ALL if bits == 64 else LOW
    left, right = left & mask, right & mask
    match op:
        case i.JEQ:
            return left == right
        case i.JNE:
            return left != right
        case i.JGT:
            return left > right
        case i.JGE:
            return left >= right
        case i.JLT:
            return left < right
        case i.JLE:
            return left <= right
        case i.JSET:
            return bool(left & right)
        case i.JSGT:
            return signed(left, bits) > signed(right, bits)
        case i.JSGE:
            return signed(left, bits) >= signed(right, bits)
        case i.JSLT:
            return signed(left, bits) < signed(right, bits)
        case i.JSLE:
            return signed(left, bits) <= signed(right, bits)
    return None
