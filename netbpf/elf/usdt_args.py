"""Where the arguments of a probe are (USDT), out of the assembler's words: ``-4@%eax 8@16(%rbp)``.

Each is its size in bytes, negative where it is signed, and behind the ``@`` an operand as the
machine's assembler writes it. What libbpf (usdt.c: parse_usdt_arg) takes is taken.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from netbpf.records import record

Kind = Literal["const", "reg", "deref", "sib"]

MAX_ARGUMENTS = 12
# Twelve of the longest take less than a quarter of it; errors quote what they are about.
_MAX_TEXT = 4096
_SIZES = (1, 2, 4, 8)
_SCALES = {1: 0, 2: 1, 4: 2, 8: 3}


@record(slots=True, frozen=True)
class Argument:
    """An argument of ``size`` bytes.

    It is ``value`` itself (const), what is in the register (reg), or what is in memory: at
    ``value`` from where the register points (deref), and from there at ``index`` shifted by
    ``shift`` (sib). Registers are told as their offset in bytes in the kernel's struct pt_regs.
    """

    kind: Kind
    size: int
    signed: bool
    value: int = 0
    register: int = 0
    index: int = 0
    shift: int = 0


class _Machine(NamedTuple):
    """How operands are written, tried in turn, and where the registers are."""

    operands: tuple[tuple[Kind, str], ...]
    registers: Mapping[str, int]


def parse(text: str, machine: str) -> list[Argument]:
    """The arguments of a probe.

    :param machine: in the words of ``uname -m``.
    :raises ValueError: not all of them are understood, or there are more than programs can read.
    """
    try:
        words = _MACHINES[machine]()
    except KeyError:
        raise ValueError(f"arguments of probes on {machine} are not known") from None
    if len(text) > _MAX_TEXT:
        raise ValueError(f"{len(text)} characters are too many for its arguments")
    found: list[Argument] = []
    rest = text.strip()
    while rest:
        if len(found) == MAX_ARGUMENTS:
            raise ValueError(f"more than {MAX_ARGUMENTS} arguments: {text!r}")
        argument, rest = _first(rest, words, len(found))
        found.append(argument)
    return found


def _first(text: str, words: _Machine, number: int) -> tuple[Argument, str]:
    for kind, operand in words.operands:
        match = re.match(rf"(?P<size>-?\d+)\s*@\s*{operand}(?:\s+|$)", text)
        if match is not None:
            return _argument(kind, match, words.registers, number), text[match.end() :]
    raise ValueError(f"argument {number} is of a kind that is not known: {text.split()[0]!r}")


def _argument(
    kind: Kind, match: re.Match[str], registers: Mapping[str, int], number: int
) -> Argument:
    parts, written = match.groupdict(), match[0].strip()
    # No number is read that no C library would read.
    size, scale = int(parts["size"][:8]), int(parts.get("scale") or 1)
    if abs(size) not in _SIZES:
        raise ValueError(f"argument {number} has {parts['size']} bytes: {written!r}")
    if scale not in _SCALES:
        raise ValueError(f"argument {number} has an index of {scale} bytes: {written!r}")
    for name in (parts.get("register"), parts.get("index")):
        if name is not None and name not in registers:
            raise ValueError(f"argument {number} is in a register that is not known: {written!r}")
    return Argument(
        kind,
        abs(size),
        size < 0,
        value=int((parts.get("value") or "0")[:21]),
        register=registers.get(parts.get("register") or "", 0),
        index=registers.get(parts.get("index") or "", 0),
        shift=_SCALES[scale],
    )


_VALUE = r"(?P<value>[-+]?\d+)"


# Offsets of struct pt_regs, struct user_pt_regs and struct user_regs_struct as programs see them:
# arch/*/include/uapi/asm/ptrace.h.
def _x86_64() -> _Machine:
    register, index = r"%(?P<register>\w+)", r"%(?P<index>\w+)"
    # Two \s* in a row would be tried with every share of long white space.
    value = rf"(?:{_VALUE}\s*)?"
    sib = rf"\(\s*{register}\s*,\s*{index}\s*(?:,\s*(?P<scale>\d{{1,3}})\s*)?\)"
    order = "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs flags rsp"
    offsets = {name: 8 * number for number, name in enumerate(order.split())}
    registers = {}
    for name in ("rax", "rbx", "rcx", "rdx"):
        parts = (name, f"e{name[1:]}", name[1:], f"{name[1]}l")
        registers.update(dict.fromkeys(parts, offsets[name]))
    for name in ("rsi", "rdi", "rbp", "rsp"):
        parts = (name, f"e{name[1:]}", name[1:], f"{name[1:]}l")
        registers.update(dict.fromkeys(parts, offsets[name]))
    for number in range(8, 16):
        name = f"r{number}"
        registers.update({name + suffix: offsets[name] for suffix in ("", "d", "w", "b")})
    registers.update(dict.fromkeys(("rip", "eip"), offsets["rip"]))
    return _Machine(
        (
            ("sib", rf"{value}{sib}"),
            ("deref", rf"{value}\(\s*{register}\s*\)"),
            ("reg", register),
            ("const", rf"\${_VALUE}"),
        ),
        registers,
    )


def _aarch64() -> _Machine:
    register = r"(?P<register>[a-z]\w*)"
    return _Machine(
        (
            ("deref", rf"\[\s*{register}\s*(?:,\s*{_VALUE}\s*)?\]"),
            ("const", _VALUE),
            ("reg", register),
        ),
        {f"x{number}": 8 * number for number in range(31)} | {"sp": 8 * 31},
    )


def _riscv64() -> _Machine:
    register = r"(?P<register>[a-z]\w*)"
    order = "pc ra sp gp tp t0 t1 t2 s0 s1 a0 a1 a2 a3 a4 a5 a6 a7 s2 s3 s4 s5 s6 s7 s8 s9 s10 s11"
    names = [*order.split(), "t3", "t4", "t5", "t6"]
    return _Machine(
        (
            ("deref", rf"{_VALUE}\s*\(\s*{register}\s*\)"),
            ("const", _VALUE),
            ("reg", register),
        ),
        {name: 8 * number for number, name in enumerate(names) if name != "pc"},
    )


def _s390x() -> _Machine:
    register = r"%(?P<register>r\d+)"
    # Behind one argument of eight bytes and the program status word of sixteen.
    return _Machine(
        (
            ("deref", rf"{_VALUE}\s*\(\s*{register}\s*\)"),
            ("reg", register),
            ("const", _VALUE),
        ),
        {f"r{number}": 24 + 8 * number for number in range(16)},
    )


_MACHINES: Mapping[str, Callable[[], _Machine]] = {
    "x86_64": _x86_64,
    "aarch64": _aarch64,
    "riscv64": _riscv64,
    "s390x": _s390x,
}
